"""The recorder's loop: sockets in, `RecorderMachine` in the middle, instructions out.

One thread with one poller serves the data socket, the link and control: up to 64 frames a turn, each given to the machine at once.
A thread of its own for the data socket gained nothing (64 KiB frames, a few us of Python for each: 1.7-2.1 GB/s with it, 2.0 GB/s
without), and would need a queue. As it is, memory is bounded by the sockets' small high-water marks: a recorder that cannot follow
reads later, and what waits is in the tracers' own bounded buffers. `scripts/bench_recorder.py` compares it with a loop that only
counts. Snapshots are written by a thread of their own (`frzmq.recorder.spool`). What is around the loop is in `frzmq.recorder.serve`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final, assert_never

from frzmq.clock import machine_id
from frzmq.config import RecorderConfig
from frzmq.errors import ConfigError, ControlCode
from frzmq.recorder.door import Door, some_free
from frzmq.recorder.events import (
    FindLines,
    ForgetTracer,
    FrameReceived,
    Input,
    Instruction,
    KeyRevoked,
    LinkReceived,
    ReadTail,
    RequestReceived,
    SendLink,
    SendReply,
    ShareSnapshot,
    Tick,
    TracerDied,
    Unwatched,
    WatchTracer,
    WriteSnapshot,
)
from frzmq.recorder.guard import Guard, descriptors, give_back_memory, rss_bytes
from frzmq.recorder.inputs import control_input, link_input
from frzmq.recorder.keyring import WatchedKeys
from frzmq.recorder.lines import LineFinder
from frzmq.recorder.liveness import PROBE_NS, Liveness
from frzmq.recorder.log import log
from frzmq.recorder.machine import RecorderMachine
from frzmq.recorder.recovery import TailReader
from frzmq.recorder.snapshots import write_view
from frzmq.recorder.spool import Spools, SpoolStats
from frzmq.recorder.store import SnapshotStore
from frzmq.recorder.strays import Strays
from frzmq.transport.sockets import Again, Received, RecorderSockets, send_to
from frzmq.version import __version__
from frzmq.wire.messages import (
    Ack,
    Cancel,
    Credit,
    ErrorReply,
    FlushRequest,
    Reply,
    Request,
    SnapshotRequest,
    Status,
    ToTracer,
    encode_message,
)

FRAMES_A_TURN: Final = 64
BYTES_A_TURN: Final = 4 << 20
"""The link and control are served between: a turn of the data socket takes about 5 ms at the most."""
REQUESTS_A_TURN_NS: Final = 10_000_000
"""After so long the next request waits for the next turn: a status of as many tracers as a reply holds takes 50 ms, and a client may ask as often as it likes."""
BUSY_BYTES: Final = 64 << 10
"""After a turn with so much on the data socket snapshots get little of the next."""
MAX_WAIT_MS: Final = 1_000
ENDING_NS: Final = 5 * 10**9
"""What is under way when the recorder is told to end may take so long."""
ORPHAN_NS: Final = 10 * 10**9
"""The same, when its program is gone."""
STATUS_S: Final = 2.0
_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class WorkerStats:
    turns: int
    frames: int
    frame_bytes: int
    unsent: int
    """Messages whose receiver was gone, or read too slowly."""
    faults: int
    """Errors of our own: each is a bug."""
    cuts: int
    """Times that all connections were closed, for want of memory or descriptors."""
    spools: SpoolStats


class Worker:
    """Serves ``sockets`` until `stop` is called, and a little longer. Everything but `stop` and `status` belongs to the thread that made it."""

    def __init__(
        self,
        config: RecorderConfig,
        sockets: RecorderSockets,
        *,
        directory: str | None = None,
        parent_fd: int | None = None,
        keys: WatchedKeys | None = None,
    ) -> None:
        machine = machine_id()
        self._machine = RecorderMachine(
            config,
            os.urandom(16),
            lambda: secrets.randbits(64),
            time.monotonic_ns(),
            pid=os.getpid(),
            version=__version__,
            machine=machine,
        )
        self._sockets = sockets
        self._keys = keys
        self._keys_every_ns = config.heartbeat_ns // 4
        self._keys_at_ns = 0
        self._refused_told = 0
        self._parent_fd = parent_fd
        self._liveness = Liveness(directory)
        self._strays = Strays(directory)
        store = SnapshotStore(config.store)
        self._spools = Spools(
            partial(write_view, machine=machine),
            self._send_reply,
            self._wake,
            lambda file, kept: store.keep(file, kept.service, kept.reason),
        )
        self._lines = LineFinder(partial(write_view, machine=machine), self._wake)
        self._tails = TailReader(directory, self._wake)
        self._receive = sockets.frame_receiver()
        self._wake_fd, self._wake_end = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(self._wake_end, False)
        sockets.watch(self._wake_fd)
        self._guard = Guard(
            config.max_bytes + 2 * config.max_generation_bytes,
            memory=rss_bytes,
            descriptors=descriptors,
            give_back=give_back_memory,
        )
        self._door = Door(sockets.gate(), sockets.watch, sockets.unwatch, some_free)
        if parent_fd is not None:
            os.set_blocking(parent_fd, False)
            sockets.watch(parent_fd)
        self._status_asked: SimpleQueue[Future[Status]] = SimpleQueue()
        self._acks: dict[bytes, Ack] | None = None
        self._stopping = False
        self._end_ns: int | None = None
        self._probed_ns = 0
        """Until then the program's death may show."""
        self._turns = self._frames = self._frame_bytes = self._unsent = self._faults = 0
        self._fault_counts: dict[str, int] = {}

    # --- from other threads and signal handlers

    def stop(self) -> None:
        """End soon: what is under way is finished first, for ENDING_NS at the most."""
        self._stopping = True
        self._wake()

    def status(self, timeout_s: float = STATUS_S) -> Status:
        """As it is at the loop's next turn. Raises TimeoutError."""
        asked: Future[Status] = Future()
        self._status_asked.put(asked)
        self._wake()
        try:
            return asked.result(timeout_s)
        finally:
            # a loop that hangs is not to find a heap of them when it goes on
            asked.cancel()

    @property
    def faults(self) -> int:
        """Errors of its own after which it went on."""
        return self._faults

    @property
    def wake_end(self) -> int:
        """Any byte written to this file descriptor ends a wait."""
        return self._wake_end

    def _wake(self) -> None:
        # a full pipe wakes too; a closed one is that of a recorder that has ended
        with contextlib.suppress(OSError):
            os.write(self._wake_end, b"w")

    # --- the loop

    def run(self) -> None:
        while not self._over(time.monotonic_ns()):
            self.turn()

    def _over(self, now_ns: int) -> bool:
        if self._stopping and self._end_ns is None:
            self._end_ns = now_ns + ENDING_NS
        if self._end_ns is None:
            return False
        self._machine.hurry(now_ns)
        return now_ns >= self._end_ns or not (self._spools.busy() or self._machine.busy or now_ns < self._probed_ns)

    def turn(self) -> None:
        """One wait and what it brought."""
        self._turns += 1
        ready = self._sockets.poll(self._timeout_ms(time.monotonic_ns()))
        if self._wake_fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_fd, 4096)
        if self._parent_fd is not None and self._parent_fd in ready:
            self._read_parent(self._parent_fd)
        with self._faultless("keys"):
            if self._keys is not None:
                self._look_at_keys(self._keys, time.monotonic_ns())
        with self._faultless("door"):
            if self._door.turn(ready, time.monotonic_ns()):
                self._machine.note_error("no file descriptors for more connections: wanted more of them (LimitNOFILE=)")
        with self._faultless("link"):
            if self._sockets.link in ready:
                self._drain_link()
        with self._faultless("control"):
            if self._sockets.control in ready:
                self._drain_control()
        busy = False
        with self._faultless("data"):
            if self._sockets.pull in ready:
                busy = self._drain_frames()
        now_ns = time.monotonic_ns()
        with self._faultless("snapshots"):
            for event in self._spools.finished():
                self._give(event, now_ns)
            for found in self._lines.finished():
                self._give(found, now_ns)
            for tail in self._tails.finished():
                self._give(tail, now_ns)
            self._spools.pump(now_ns, busy=busy)
        with self._faultless("liveness"):
            for uuid, how in self._liveness.probe(now_ns):
                self._give(TracerDied(uuid, how), now_ns)
        with self._faultless("strays"):
            if now_ns >= self._strays.next_ns:
                self._take_in_strays(now_ns)
        with self._faultless("status"):
            if not self._status_asked.empty():
                # one for all that ask at this moment
                status = self._machine.status(now_ns)
                while not self._status_asked.empty():
                    asked = self._status_asked.get_nowait()
                    if asked.set_running_or_notify_cancel():
                        asked.set_result(status)
        with self._faultless("guard"):
            problem = self._guard.why_cut(self._machine.tracers, now_ns)
            if problem:
                self._cut_off(problem)
        with self._faultless("tick"):
            deadline_ns = self._machine.deadline_ns()
            if deadline_ns is not None and now_ns >= deadline_ns:
                self._give(Tick(), now_ns)

    def _cut_off(self, problem: str) -> None:
        """Everybody: who of them it was, zmq does not say."""
        closed = self._sockets.close_connections()
        self._machine.note_error(f"{problem}: all connections were closed")
        if self._guard.cuts & (self._guard.cuts - 1) == 0:
            log(f"{problem}: closed all {closed} connections ({self._guard.cuts})")

    def _timeout_ms(self, now_ns: int) -> int:
        wanted = (
            self._guard.deadline_ns(),
            self._door.deadline_ns(),
            self._machine.deadline_ns(),
            self._spools.deadline_ns(now_ns),
            self._liveness.deadline_ns(),
            self._end_ns,
            self._keys_at_ns if self._keys is not None else None,
        )
        deadline_ns = min((d for d in wanted if d is not None), default=None)
        if deadline_ns is None:
            return MAX_WAIT_MS
        return max(0, min(MAX_WAIT_MS, -(-(deadline_ns - now_ns) // _MS)))

    def _drain_frames(self) -> bool:
        """True when so much came that more is likely to wait."""
        receive, give, now_ns = self._receive, self._give, time.monotonic_ns()
        frames = size_bytes = 0
        self._acks = {}
        try:
            while frames < FRAMES_A_TURN and size_bytes < BYTES_A_TURN:
                data = receive()
                frames += 1
                size_bytes += len(data)
                give(FrameReceived(data), now_ns)
        except Again:
            pass
        finally:
            self._frames += frames
            self._frame_bytes += size_bytes
            acks, self._acks = self._acks, None
            for peer, ack in acks.items():
                self._send_link(peer, ack)
        return size_bytes >= BUSY_BYTES

    def _drain_link(self) -> None:
        waiting = self._sockets.receive(self._sockets.link)
        # after they came: who gets this time back takes it for one after its question
        now_ns = time.monotonic_ns()
        for received in waiting:
            key = self._keys.access.recording_as(received.public) if self._keys is not None else ""
            self._give(link_input(received.parts, key), now_ns)

    def _drain_control(self) -> None:
        until_ns = time.monotonic_ns() + REQUESTS_A_TURN_NS
        while waiting := self._sockets.receive(self._sockets.control, 1):
            self._request(waiting[0], time.monotonic_ns())
            if time.monotonic_ns() >= until_ns:
                break

    def _request(self, received: Received, now_ns: int) -> None:
        event = control_input(received.parts)
        match event:
            case RequestReceived() if denial := self._denial(received, event.message):
                self._send_reply(event.peer, ErrorReply(event.message.id, ControlCode.DENIED.value, denial))
            case RequestReceived(peer, Credit(id_, chunks)):
                self._spools.credit(peer, id_, chunks, now_ns)
            case RequestReceived(peer, Cancel(id_)):
                self._spools.cancel(peer, id_)
            case RequestReceived(_, FlushRequest() | SnapshotRequest()):
                with self._faultless("strays"):
                    self._take_in_strays(now_ns)
                self._give(event, now_ns)
            case _:
                self._give(event, now_ns)

    def _take_in_strays(self, now_ns: int) -> None:
        """As if their hellos had come, by connections that are gone: then their deaths are seen like those of others."""
        for hello in self._strays.find(self._machine.known.by_uuid, now_ns):
            self._give(LinkReceived(hello.uuid, hello), now_ns)

    def _denial(self, received: Received, request: Request) -> str:
        return self._keys.access.denial(received.public, request) if self._keys is not None else ""

    def _look_at_keys(self, keys: WatchedKeys, now_ns: int) -> None:
        """Whoever is not in the list any more is stopped, and cut off."""
        if now_ns < self._keys_at_ns:
            return
        self._keys_at_ns = now_ns + self._keys_every_ns
        refused = self._sockets.refused
        if refused.bit_length() > self._refused_told.bit_length():
            # the 1st, 2nd, 4th, 8th ...: not a line for each
            self._refused_told = refused
            self._machine.telling.note(
                f"keys: {refused} handshakes refused, the last of public key {self._sockets.refused_last[:8]}..."
            )
        try:
            before = keys.refresh()
        except ConfigError as error:
            log(f"the keys stay as they were: {error}")
            self._machine.note_error(f"the keys stay as they were: {error}")
            return
        if before is not None:
            names, publics = keys.access.lost_since(before)
            for name in sorted(names):
                self._give(KeyRevoked(name), now_ns)
            self._sockets.cut(publics)

    def _read_parent(self, fd: int) -> None:
        try:
            gone = not os.read(fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._sockets.unwatch(fd)
            self._parent_fd = None
            now_ns = time.monotonic_ns()
            self._end_ns = self._end_ns or now_ns + ORPHAN_NS
            if self._machine.live():
                # no goodbye: it was killed, and its lock may go a moment after its end of the pipe
                self._probed_ns = now_ns + 2 * PROBE_NS

    # --- the machine

    def _give(self, event: Input, now_ns: int) -> None:
        for instruction in self._machine.handle(event, now_ns):
            self._carry_out(instruction, now_ns)

    def _carry_out(self, instruction: Instruction, now_ns: int) -> None:
        match instruction:
            case SendLink(peer, Ack() as ack) if self._acks is not None:
                # cumulative: of those of one turn the last says all, and each costs zmq's thread a wake-up
                self._acks[peer] = ack
            case SendLink(peer, message):
                self._send_link(peer, message)
            case SendReply(peer, reply):
                self._send_reply(peer, reply)
            case WriteSnapshot():
                refused = self._spools.begin(instruction, now_ns)
                if refused is not None:
                    self._give(refused, now_ns)
            case FindLines():
                self._lines.begin(instruction)
            case ReadTail():
                self._tails.begin(instruction)
            case ShareSnapshot():
                self._spools.share(instruction, now_ns)
            case WatchTracer(uuid):
                if not self._liveness.watch(uuid):
                    self._give(Unwatched(uuid), now_ns)
            case ForgetTracer(uuid):
                self._liveness.forget(uuid)
            case _:
                assert_never(instruction)

    def _send_link(self, peer: bytes, message: ToTracer) -> None:
        """A message that is lost is said again: heartbeats repeat the generation, acknowledgements are cumulative."""
        if not send_to(self._sockets.link, peer, encode_message(message)):
            self._unsent += 1

    def _send_reply(self, peer: bytes, reply: Reply) -> bool | None:
        taken = send_to(self._sockets.control, peer, encode_message(reply))
        if not taken:
            self._unsent += 1
        return taken

    @contextlib.contextmanager
    def _faultless(self, where: str) -> Iterator[None]:
        """An error of our own ends this part of the turn, with a line on standard error, and never the recorder."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever it is: the other tracers record on
            self._faults += 1
            self._log_fault(where, error)

    def _log_fault(self, where: str, error: Exception) -> None:
        """The 1st, 2nd, 4th, 8th ... fault of a place: not a line for each frame."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        at = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else "?"
        count = self._fault_counts[at] = self._fault_counts.get(at, 0) + 1
        if count & (count - 1) == 0:
            log(f"fault in {where} at {at} ({count}): {type(error).__name__}: {error}")

    def stats(self) -> WorkerStats:
        return WorkerStats(
            self._turns,
            self._frames,
            self._frame_bytes,
            self._unsent,
            self._faults,
            self._guard.cuts,
            self._spools.stats(),
        )

    def close(self) -> None:
        """Not the sockets: they are the caller's."""
        self._liveness.close()
        self._spools.close()
        for fd in (self._wake_fd, self._wake_end):
            os.close(fd)
