"""A simulated process: its program, its agent's loop around the real `TracerMachine`, its sockets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import assert_never

from frzmq.tracer.events import (
    Close,
    Collect,
    Collected,
    CompleteFlush,
    CutTo,
    EndAsked,
    Event,
    FlushAsked,
    FrameRefused,
    FrameSent,
    GenerationCut,
    Instruction,
    LinkReceived,
    Parked,
    ReadSlices,
    ReadStrings,
    Release,
    ResumeRecording,
    SendFrame,
    SendHeartbeat,
    SendHello,
    SendPing,
    SlicesRead,
    Started,
    State,
    StopRecording,
    StringsRead,
    Ticked,
)
from frzmq.tracer.machine import TracerMachine
from frzmq.tracer.slices import Cut, Slice
from frzmq.wire.batch import BatchType, Opening, split_headers
from frzmq.wire.kinds import KINDS
from frzmq.wire.messages import (
    Ack,
    Advance,
    Hello,
    Ping,
    Pong,
    RecorderHeartbeat,
    Reject,
    Stop,
    ToRecorder,
    ToTracer,
    TracerHeartbeat,
    Welcome,
    decode_message,
    encode_message,
)
from support.simulated.network import Connection, Server, Wire
from support.simulated.program import Program, TruthBuffer
from support.simulated.world import MS, US, World

USED_KINDS = {kind: KINDS[kind] for kind in (1, 2, 3, 4, 5, 9, 10, 11, 12)}
"""To read the whole table costs half a millisecond each time."""
Session = tuple[bytes, int]
"""Boot id and nonce: one stream."""


@dataclass(slots=True)
class Sent:
    """What a process knows of one session, as its messages show it."""

    batches: dict[int, tuple[int, range]] = field(default_factory=dict)
    """RECORDS by tseq: writer and indices."""
    acknowledged: dict[int, set[int]] = field(default_factory=dict)
    """Records by writer."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What is drawn for one process."""

    skew_ns: int
    same_machine: bool
    shared: bool
    lock: bool
    window_bytes: int
    bulk: float
    names: int


class Process:
    """``wire`` is its own: what is slow or broken there concerns nobody else."""

    def __init__(self, world: World, number: int, wire: Wire, server: Server, traits: Traits) -> None:
        self.world, self.number, self.wire, self.traits = world, number, wire, traits
        self._server = server
        self.uuid = number.to_bytes(16, "big")
        self.pid = 100 + number
        self.name = f"svc{number}[{self.pid}]"
        self.buffer = TruthBuffer(self.uuid)
        self.machine = TracerMachine(self.uuid, window_bytes=traits.window_bytes)
        self.program = Program(world, self.buffer, traits.skew_ns, bulk=traits.bulk, names=traits.names)
        self.link: Connection | None = None
        self.data: Connection | None = None
        self.alive = True
        self.ending = self.ended = False
        """By itself, in order or not."""
        self.file_there = traits.shared
        self.quiet = False
        """The program makes no more records."""
        self.torn = 0
        """Records that were being written as it was killed."""
        self.sessions: dict[Session, Sent] = {}
        self.session: Session = (b"", 0)
        self.first_incarnation: dict[int, dict[int, int]] = {1: {}}
        """Of each incarnation: by writer, the first record that is its."""
        self.generations: dict[tuple[int, int], dict[int, tuple[int, int]]] = {}
        """By incarnation and generation: by writer, which records belong to it."""
        self.carrying: set[tuple[int, int]] = set()
        """Of these the first of each incarnation."""
        self.flushes: dict[int, tuple[dict[int, int], int]] = {}
        self.on_flushed: Callable[[Process, dict[int, int], int, bool], None] = lambda *_: None
        self.on_end: Callable[[bytes], None] = lambda _: None
        self._local = SimpleNamespace()
        self._asked: deque[Event] = deque()
        self._taken: dict[int, int] = {}
        self._stopped_at: dict[int, int] = {}
        self._open_at: dict[int, int] = {}
        self._carried: dict[int, tuple[int, int]] = {}
        self._carries = False
        self._stalled_until_ns = 0
        self._turn_at_ns: int | None = None
        self._parked = False
        self._peers = 0
        self._token = 0

    # --- from outside

    def start(self) -> None:
        self._parked = False
        self._peers += 1
        server = self._server
        peer = b"t%d.%d" % (self.number, self._peers)
        self.data = Connection("data", peer, self.wire, server, self._wake_for_room)
        self.link = Connection("link", peer, self.wire, server, self.wake)
        self._do(lambda: self._give(Started()))

    def record(self, records: int) -> None:
        if self.alive and self.world.now_ns >= self._stalled_until_ns:
            self.program.step(records)

    def flush(self) -> None:
        self._token += 1
        self.flushes[self._token] = self.program.counts(), self.world.now_ns
        self._asked.append(FlushAsked(self._token))
        self.wake()

    def end(self, patience_ns: int) -> None:
        """As at the end of a program: what is not shipped in time is given up."""
        self.ending = True
        self.program.recording = False
        self._asked.append(EndAsked())
        self.wake()
        self.world.after(patience_ns, self._leave)

    def kill(self) -> None:
        self.world.note(self.name, "is killed")
        self.alive = False
        self.program.recording = False
        self.torn = self.buffer.tear(self.world.random)
        self._close_sockets()
        self.on_end(self.uuid)

    def stall(self, ns: int) -> None:
        """Its agent; of its program `record` makes nothing either, unless it is called as if it went on."""
        self.world.note(self.name, f"stalls for {ns // MS} ms")
        self._stalled_until_ns = max(self._stalled_until_ns, self.world.now_ns + ns)

    def park(self, ns: int) -> None:
        """As around a fork: both sockets are closed, and what they had taken may be lost."""
        if not self.alive or self._parked or self.machine.state is State.CLOSED:
            return
        self.world.note(self.name, "parks")
        self._parked = True
        self._close_sockets()
        self._do(lambda: self._give(Parked()))
        self.world.after(ns, lambda: self.start() if self.alive else None)

    def memory(self) -> bytes:
        """Its file, as another process reads it."""
        return bytes(self.buffer._map)

    @property
    def settled(self) -> bool:
        """It runs, and lacks nothing but time."""
        connected = all(c is not None and c.up is not None for c in (self.data, self.link))
        stalled = self.world.now_ns < self._stalled_until_ns
        return self.alive and connected and not stalled and self.machine.state is State.RECORDING

    # --- the agent's loop

    def wake(self) -> None:
        self._turn_by(self.world.now_ns + self.world.between(5 * US, 200 * US))

    def _wake_for_room(self) -> None:
        if self.machine.wants_room:
            self.wake()

    def _turn_by(self, at_ns: int) -> None:
        at_ns = max(at_ns, self._stalled_until_ns, self.world.now_ns)
        if self._turn_at_ns is None or at_ns < self._turn_at_ns:
            self._turn_at_ns = at_ns
            self.world.at(at_ns, self._turn)

    def _turn(self) -> None:
        now_ns = self.world.now_ns
        if not self.alive or self._turn_at_ns is None or now_ns < self._turn_at_ns:
            return
        self._turn_at_ns = None
        if now_ns < self._stalled_until_ns:
            self._turn_by(self._stalled_until_ns)
            return
        if self._parked:
            return
        self._do(self._one_turn)
        if self.machine.state is State.CLOSED:
            self._leave()
            return
        deadline_ns = self.machine.deadline_ns()
        if deadline_ns is not None:
            self._turn_by(deadline_ns - self.traits.skew_ns)

    def _one_turn(self) -> None:
        while self._asked:
            self._give(self._asked.popleft())
        for _ in range(64):
            data = self.link.receive() if self.link is not None else None
            if data is None:
                break
            self._receive(data)
        self._give(Ticked())

    def _receive(self, data: bytes) -> None:
        message = decode_message(data)
        match message:
            case Welcome() | Reject() | Advance() | RecorderHeartbeat() | Ack() | Stop() | Pong():
                self.world.note(self.name, message)
                self._heard(message)
                self._give(LinkReceived(message))
            case _:
                self.world.fail(f"{self.name}: got {message}")

    def _heard(self, message: ToTracer) -> None:
        match message:
            case Welcome(boot_id, nonce) if self.machine.state in (State.GREETING, State.RECORDING):
                self.session = boot_id, nonce
                self.sessions.setdefault(self.session, Sent())
            case Ack(boot_id) if boot_id == self.session[0]:
                sent = self.sessions[self.session]
                stored = [
                    tseq
                    for tseq in sent.batches
                    if tseq <= message.stored_through and not any(a <= tseq < b for a, b in message.gaps)
                ]
                for tseq in stored:
                    writer, records = sent.batches.pop(tseq)
                    sent.acknowledged.setdefault(writer, set()).update(records)
            case _:
                pass

    def _do(self, what: Callable[[], object]) -> None:
        """In the agent's thread."""
        before_local, self.buffer.local = self.buffer.local, self._local
        before_skew_ns, self.world.skew_ns = self.world.skew_ns, self.traits.skew_ns
        what()
        self.buffer.local, self.world.skew_ns = before_local, before_skew_ns

    def _give(self, event: Event) -> None:
        answer: Event | None = event
        while answer is not None:
            instructions = self.machine.handle(answer, self.world.host_ns())
            answer = None
            for instruction in instructions:
                answer = self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> Event | None:
        match instruction:
            case SendFrame(data):
                return self._send_frame(data)
            case Collect(max_bytes):
                slices = tuple(self.buffer.slices(max_bytes))
                self._take(slices)
                self._meanwhile()
                return Collected(slices, self.buffer.new_strings(), self.buffer.totals().dropped)
            case CutTo():
                return self._cut(instruction)
            case ReadSlices(slices):
                return SlicesRead(tuple(self.buffer.read(piece) for piece in slices))
            case ReadStrings():
                return StringsRead(self.buffer.strings_from_start())
            case SendHello():
                self._send(self._hello(instruction))
            case SendHeartbeat(generation, tseq, offset_ns, rtt_ns, sampled_ns):
                totals = self.buffer.totals()
                self._send(
                    TracerHeartbeat(
                        generation, tseq, totals.recorded, totals.dropped, totals.overwritten,
                        offset_ns=offset_ns, rtt_ns=rtt_ns, sampled_ns=sampled_ns,
                    )
                )  # fmt: skip
            case SendPing(sent_ns):
                self._send(Ping(sent_ns))
            case Release(chunk, serial):
                self.buffer.release(chunk, serial)
            case CompleteFlush(token, ok):
                for done in [t for t in self.flushes if t <= token]:
                    self.on_flushed(self, *self.flushes.pop(done), ok)
            case StopRecording(reason):
                self.world.note(self.name, f"stops: {reason}")
                self.program.recording = False
                self.session = b"", 0
                # it comes back as the next, or as the same: of a recorder that has forgotten it
                self._stopped_at = dict(self._taken)
                self.first_incarnation[self.machine.incarnation + 1] = self._stopped_at
            case ResumeRecording():
                self.program.recording = True
            case Close():
                pass
            case _:
                assert_never(instruction)
        return None

    def _meanwhile(self) -> None:
        """The program goes on while the agent works."""
        if not self.quiet and self.world.chance(0.02):
            self.program.step(self.world.between(1, 5))

    def _take(self, slices: tuple[Slice, ...]) -> None:
        for piece in slices:
            self._taken[piece.writer] = piece.first_index + piece.count

    def _send(self, message: ToRecorder) -> None:
        self.world.note(self.name, message)
        if self.link is not None:
            self.link.send(encode_message(message))

    def _send_frame(self, data: bytes) -> FrameSent | FrameRefused:
        if self.data is None or not self.data.send(data):
            return FrameRefused()
        for header in split_headers(data):
            session = self.session
            sent = self.sessions.setdefault(session, Sent())
            assert header.nonce == session[1]
            if header.type is BatchType.RECORDS and header.count:
                records = range(header.first_index, header.first_index + header.count)
                sent.batches[header.tseq] = header.writer, records
        return FrameSent()

    def _cut(self, asked: CutTo) -> GenerationCut:
        buffer, at_ns = self.buffer, self.world.host_ns()
        self._meanwhile()
        cut = buffer.cut(asked.generation)
        self._meanwhile()
        items, omitted = buffer.open_items(at_ns, cut.moments(at_ns, carry=asked.carry))
        begin_ns = cut.begin_ns(at_ns, carry=asked.carry)
        opening = Opening(begin_ns, begin_ns, begin_ns, USED_KINDS, tuple(buffer.writer_infos()), tuple(items), omitted)
        slices = tuple(cut.slices)
        self._note_generation(asked, cut)
        self._take(slices)
        return GenerationCut(at_ns, slices, cut.writers, opening, buffer.new_strings(), buffer.totals().dropped)

    def _note_generation(self, asked: CutTo, cut: Cut) -> None:
        if asked.carry:
            self.first_incarnation[self.machine.incarnation] = self._stopped_at
            self._open_at = dict(self._stopped_at)
        now = {row.writer: (self._open_at.get(row.writer, 0), row.next_index) for row in cut.writers}
        if asked.carry:
            self._carried, self._carries = now, True
            return
        ended = self._carried | now
        key = self.machine.incarnation, self.machine.generation
        self.generations[key] = ended
        if self._carries:
            self.carrying.add(key)
        self._carried, self._carries = {}, False
        self._open_at |= {writer: end for writer, (_, end) in ended.items()}

    def _hello(self, said: SendHello) -> Hello:
        now_ns = self.world.host_ns()
        return Hello(
            uuid=self.uuid,
            incarnation=said.incarnation,
            wire_oldest=1,
            wire_newest=1,
            pid=self.pid,
            service=f"svc{self.number}",
            generation=said.generation,
            machine="here" if self.traits.same_machine else f"m{self.number}",
            buffer_kind="py",
            buffer_bytes=self.buffer.size_bytes,
            shared=self.traits.shared,
            lock=self.traits.lock,
            monotonic_ns=now_ns,
            boottime_ns=now_ns,
            wall_ns=now_ns,
            nonce=said.nonce,
        )

    # --- its end

    def _leave(self) -> None:
        if self.ended or not self.alive:
            return
        self.ended = True
        self.world.note(self.name, f"ends, {self.machine.state.value}")
        self.alive = False
        self.file_there = False
        self._close_sockets()
        self.on_end(self.uuid)

    def _close_sockets(self) -> None:
        for connection in (self.data, self.link):
            if connection is not None:
                connection.close()
        self.data = self.link = None
