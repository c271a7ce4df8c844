"""A simulated recorder's host: the worker's loop around the real `RecorderMachine`, with the real spools and the real reading of buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Protocol, assert_never

from frzmq.config import RecorderConfig
from frzmq.errors import WireError
from frzmq.recorder.events import (
    FindLines,
    ForgetTracer,
    FrameReceived,
    Input,
    Instruction,
    LinesFound,
    LinkReceived,
    ReadTail,
    RequestReceived,
    SendLink,
    SendReply,
    ShareSnapshot,
    Store,
    TailRead,
    Tick,
    TracerDied,
    WatchTracer,
    WriteSnapshot,
)
from frzmq.recorder.machine import RecorderMachine
from frzmq.recorder.snapshots import write_view
from frzmq.recorder.spool import Spools
from frzmq.recorder.tail import read_tail
from frzmq.wire.messages import (
    Ack,
    Cancel,
    Credit,
    FlushRequest,
    Hello,
    Ping,
    Reply,
    SnapshotRequest,
    StartRequest,
    StatusRequest,
    StopRequest,
    ToTracer,
    TracerHeartbeat,
    decode_message,
    encode_message,
)
from support.simulated.network import Connection, Pipe
from support.simulated.process import Process
from support.simulated.world import MS, US, World

FRAMES_A_TURN = (2, 8, 64, 64)
"""Large ones fill a turn sooner."""
PROBE_NS = 100 * MS


class Watcher(Protocol):
    """Whoever knows better: told of everything before the machine is, and of every instruction."""

    def frame(self, data: bytes) -> None: ...
    def input(self, event: Input) -> None: ...
    def instruction(self, instruction: Instruction) -> None: ...
    def stored(self, data: bytes) -> None: ...
    def tail(self, process: Process) -> None: ...
    def handled(self) -> None: ...


@dataclass(slots=True)
class Inbox:
    """Of one socket: its connections, and the pipes in which something may wait."""

    by_peer: dict[bytes, Connection] = field(default_factory=dict)
    pipes: list[tuple[bytes, Pipe]] = field(default_factory=list)

    def readable(self) -> list[tuple[bytes, Pipe]]:
        self.pipes = [(peer, pipe) for peer, pipe in self.pipes if not pipe.closed or pipe.readable]
        return [(peer, pipe) for peer, pipe in self.pipes if pipe.readable]


class Recorder:
    def __init__(
        self, world: World, config: RecorderConfig, watcher: Watcher, processes: Mapping[bytes, Process]
    ) -> None:
        self.world, self.config = world, config
        self._watcher, self._processes = watcher, processes
        self.up = False
        self.boots = 0
        self._stalled_ns = 0
        self.write_fails = 0.0
        """How likely a snapshot cannot be written."""
        self.tail_ns = 20 * MS
        """How long the reading of a buffer takes at the most."""
        self.machine: RecorderMachine
        self._spools: Spools
        self._data, self._link, self._control = Inbox(), Inbox(), Inbox()
        self._stalled_until_ns = 0
        self._turn_at_ns: int | None = None
        self._acks: dict[bytes, Ack] | None = None
        self._watched: set[bytes] = set()

    # --- from outside

    def start(self) -> None:
        self.boots += 1
        world = self.world
        self.world.note("recorder", f"starts, run {self.boots}")
        self.boot_id = self.boots.to_bytes(16, "big")
        self.machine = RecorderMachine(
            self.config, self.boot_id, lambda: world.random.getrandbits(64), world.now_ns, machine="here"
        )
        self._spools = Spools(self._write, self._send_reply, self.wake, self._keep)
        self._watched = set()
        self.up = True

    def kill(self) -> None:
        self.world.note("recorder", "is killed")
        self.up = False
        self.close()
        for inbox in (self._data, self._link, self._control):
            for connection in list(inbox.by_peer.values()):
                connection.cut(server_dies=True)
            inbox.by_peer.clear()
            inbox.pipes.clear()
        self._turn_at_ns = None

    def close(self) -> None:
        """Its temporary files, also those whose writing has not begun."""
        files = [spool.file for spool in self._spools._spools]
        self._spools.close()
        for file in files:
            file.close()

    def stall(self, ns: int) -> None:
        self.world.note("recorder", f"stalls for {ns // MS} ms")
        now_ns = self.world.now_ns
        until_ns = max(self._stalled_until_ns, now_ns + ns)
        self._stalled_ns += until_ns - max(self._stalled_until_ns, now_ns)
        self._stalled_until_ns = until_ns

    @property
    def stalled_ns(self) -> int:
        """In all, by now."""
        return self._stalled_ns - max(0, self._stalled_until_ns - self.world.now_ns)

    def accept(self, connection: Connection) -> None:
        inbox = {"data": self._data, "link": self._link, "control": self._control}[connection.kind]
        assert connection.up is not None
        inbox.by_peer[connection.peer] = connection
        inbox.pipes.append((connection.peer, connection.up))

    def wake(self) -> None:
        if self.up:
            self._turn_by(self.world.now_ns + self.world.between(2 * US, 100 * US))

    # --- the loop

    def _turn_by(self, at_ns: int) -> None:
        at_ns = max(at_ns, self._stalled_until_ns, self.world.now_ns)
        if self._turn_at_ns is None or at_ns < self._turn_at_ns:
            self._turn_at_ns = at_ns
            self.world.at(at_ns, self._turn)

    def _turn(self) -> None:
        world = self.world
        if not self.up or self._turn_at_ns is None or world.now_ns < self._turn_at_ns:
            return
        self._turn_at_ns = None
        if world.now_ns < self._stalled_until_ns:
            self._turn_by(self._stalled_until_ns)
            return
        for peer, data in self._drain(self._link, 64):
            self._give_link(peer, data)
        for peer, data in self._drain(self._control, 64):
            self._give_control(peer, data)
        self._drain_frames()
        for event in self._spools.finished():
            self._give(event)
        self._spools.pump(world.now_ns)
        deadline_ns = self.machine.deadline_ns()
        if deadline_ns is not None and world.now_ns >= deadline_ns:
            self._give(Tick())
        self._watcher.handled()
        wanted = (self.machine.deadline_ns(), self._spools.deadline_ns(world.now_ns))
        deadlines = [at_ns for at_ns in wanted if at_ns is not None]
        if any(inbox.readable() for inbox in (self._data, self._link, self._control)):
            deadlines.append(world.now_ns)
        if deadlines:
            self._turn_by(max(min(deadlines), world.now_ns + 1 * US))

    def _drain(self, inbox: Inbox, most: int) -> list[tuple[bytes, bytes]]:
        """In the order of each pipe, the pipes in turn, beginning anywhere."""
        pipes = inbox.readable()
        self.world.random.shuffle(pipes)
        found: list[tuple[bytes, bytes]] = []
        while pipes and len(found) < most:
            for peer, pipe in list(pipes):
                data = pipe.receive()
                if data is None:
                    pipes.remove((peer, pipe))
                else:
                    found.append((peer, data))
        return found

    def _give_link(self, peer: bytes, data: bytes) -> None:
        match decode_message(data):
            case Hello() | TracerHeartbeat() | Ping() as message:
                self._give(LinkReceived(peer, message))
            case other:
                self.world.fail(f"the link brought {other}")

    def _give_control(self, peer: bytes, data: bytes) -> None:
        now_ns = self.world.now_ns
        match decode_message(data):
            case Credit(id_, chunks):
                self._spools.credit(peer, id_, chunks, now_ns)
            case Cancel(id_):
                self._spools.cancel(peer, id_)
            case StatusRequest() | StartRequest() | StopRequest() | FlushRequest() | SnapshotRequest() as message:
                self.world.note("recorder", f"is asked by {peer.decode()}: {message}")
                self._give(RequestReceived(peer, message))
            case other:
                self.world.fail(f"the control socket brought {other}")

    def _drain_frames(self) -> None:
        frames = self._drain(self._data, self.world.random.choice(FRAMES_A_TURN))
        self._acks = {} if self.world.chance(0.8) else None
        for _, data in frames:
            self._watcher.frame(data)
            self._give(FrameReceived(data))
        acks, self._acks = self._acks or {}, None
        for peer, ack in acks.items():
            self._send_link(peer, ack)

    def _give(self, event: Input) -> None:
        self._watcher.input(event)
        for instruction in self.machine.handle(event, self.world.now_ns):
            self._watcher.instruction(instruction)
            self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        world = self.world
        match instruction:
            case SendLink(peer, Ack() as ack) if self._acks is not None:
                self._acks[peer] = ack
            case SendLink(peer, message):
                self._send_link(peer, message)
            case SendReply(peer, reply):
                self._send_reply(peer, reply)
            case WriteSnapshot():
                world.note("recorder", f"writes snapshot {instruction.snapshot}, missing {instruction.missing}")
                refused = self._spools.begin(instruction, world.now_ns)
                if refused is not None:
                    self._give(refused)
            case ShareSnapshot():
                self._spools.share(instruction, world.now_ns)
            case FindLines():
                self._give(LinesFound())
            case ReadTail():
                self._later(world.between(50 * US, self.tail_ns), partial(self._read_tail, instruction))
            case WatchTracer(uuid):
                self._watched.add(uuid)
                if not self._processes[uuid].alive:
                    self.notice_death(uuid)
            case ForgetTracer(uuid):
                self._watched.discard(uuid)
            case _:
                assert_never(instruction)

    def _send_link(self, peer: bytes, message: ToTracer) -> None:
        connection = self._link.by_peer.get(peer)
        if connection is not None:
            connection.answer(encode_message(message))

    def _send_reply(self, peer: bytes, reply: Reply) -> bool | None:
        connection = self._control.by_peer.get(peer)
        return None if connection is None else connection.answer(encode_message(reply))

    def _later(self, delay_ns: int, what: Callable[[], object]) -> None:
        """Unless this run of the recorder is over then."""
        boot = self.boots

        def then() -> None:
            if not self.up or self.boots != boot:
                return
            if self.world.now_ns < self._stalled_until_ns:
                self.world.at(self._stalled_until_ns, then)
                return
            what()

        self.world.after(delay_ns, then)

    # --- snapshots, buffers, locks

    def _write(self, write: Callable[[bytes], object], instruction: WriteSnapshot) -> int:
        if self.world.chance(self.write_fails):
            raise OSError(28, "No space left on device")
        return write_view(write, instruction, "here")

    def _keep(self, file: IO[bytes], store: Store) -> str:
        file.seek(0)
        self._watcher.stored(file.read())
        return f"{store.service}-{store.reason}.frz"

    def _read_tail(self, asked: ReadTail) -> None:
        world, process = self.world, self._processes[asked.uuid]
        read = TailRead(asked.uuid, None, "no such file")
        if process.file_there:
            self._watcher.tail(process)
            memory = process.memory()
            try:
                tail = read_tail(lambda at, size: memory[at : at + size], len(memory), asked.uuid, asked.stored)
                read = TailRead(asked.uuid, tail)
                world.check(not tail.problems, f"the buffer of {process.name}: {tail.problems}")
            except WireError as error:
                read = TailRead(asked.uuid, None, str(error))
            if not asked.alive:
                process.file_there = False
        self._later(self.world.between(10 * US, MS), partial(self._tail_read, read))

    def _tail_read(self, read: TailRead) -> None:
        self._give(read)
        self.wake()

    def notice_death(self, uuid: bytes) -> None:
        """The lock of a process is free."""
        if self.up and uuid in self._watched:
            self._later(self.world.between(1 * MS, PROBE_NS), partial(self._died, uuid))

    def _died(self, uuid: bytes) -> None:
        if uuid in self._watched:
            self._watched.discard(uuid)
            self._give(TracerDied(uuid, "SIGKILL"))
            self.wake()
