"""A small recorder for the tracer's tests: a PULL and a ROUTER in a thread, which answers as it is told and keeps all that came."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar, cast

from frzmq.errors import WireError
from frzmq.transport.addresses import parse_address
from frzmq.transport.sockets import RecorderSockets, Socket, receive_all, send_to
from frzmq.wire.batch import Batch, BatchType, split_frame
from frzmq.wire.codec import unpack_values
from frzmq.wire.kinds import KINDS, Kind
from frzmq.wire.messages import (
    Ack,
    Advance,
    Hello,
    Message,
    Ping,
    Pong,
    RecorderHeartbeat,
    Reject,
    Stop,
    TracerHeartbeat,
    Welcome,
    decode_message,
    encode_message,
)

DEADLINE_S = 20.0
T = TypeVar("T")


@dataclass
class FakeTracer:
    """What came of one incarnation of one uuid."""

    hello: Hello
    peer: bytes
    nonce: int
    asked: int
    batches: dict[int, Batch] = field(default_factory=dict)
    """By tseq."""
    duplicates: int = 0
    heartbeats: list[TracerHeartbeat] = field(default_factory=list)
    hellos: int = 1
    pings: int = 0

    def of(self, type_: BatchType) -> list[Batch]:
        """In the order of tseq."""
        return [batch for _, batch in sorted(self.batches.items()) if batch.header.type is type_]

    @property
    def records(self) -> int:
        return sum(batch.header.count for batch in self.of(BatchType.RECORDS))

    @property
    def events(self) -> int:
        """EVENT records."""
        return sum(_count(Kind.EVENT, batch.body) for batch in self.of(BatchType.RECORDS))

    @property
    def strings(self) -> dict[int, str]:
        table: dict[int, str] = {}
        for batch in self.of(BatchType.STRINGS):
            table.update(enumerate(map(str, unpack_values(batch.body)), batch.header.first_index))
        return table

    @property
    def said_goodbye(self) -> bool:
        return bool(self.of(BatchType.GOODBYE))

    def ack(self, boot_id: bytes) -> Ack:
        through = max(self.batches, default=0)
        first = min(self.batches, default=1) if self.hello.generation else 1
        gaps: list[tuple[int, int]] = []
        for tseq in range(first, through):
            if tseq in self.batches:
                continue
            if gaps and gaps[-1][1] == tseq:
                gaps[-1] = (gaps[-1][0], tseq + 1)
            else:
                gaps.append((tseq, tseq + 1))
        return Ack(boot_id, through, tuple(gaps))


def _count(kind: Kind, body: bytes) -> int:
    values = list(unpack_values(body))
    found = at = 0
    while at < len(values):
        spec = KINDS[cast(int, values[at])]
        found += spec.kind == kind
        at += 2 + spec.arity
    return found


class FakeRecorder:
    """Serves ``address`` until the `with` block ends. ``heartbeat_ns`` and ``silence_ns`` are what `Welcome` says."""

    def __init__(self, address: str, *, heartbeat_ns: int = 50_000_000, silence_ns: int = 60 * 10**9) -> None:
        self.boot_id = os.urandom(16)
        self.acknowledges = True
        """False: nothing is acknowledged."""
        self.answers = True
        """False: what comes is read, and nothing said."""
        self.loses: Callable[[Batch], bool] = lambda _batch: False
        """Batches for which it is True are as if they had never come."""
        self.refuses = ""
        """Why nobody is taken."""
        self.tracers: dict[tuple[bytes, int], FakeTracer] = {}
        self.rejected = 0
        self.errors: list[str] = []
        self._heartbeat_ns, self._silence_ns = heartbeat_ns, silence_ns
        self._changed = threading.Condition(threading.RLock())
        self._sockets = RecorderSockets(parse_address(address))
        self._ends = False
        self._outbox: list[tuple[bytes, Message]] = []
        self._beat_at_ns = 0
        self._thread = threading.Thread(target=self._run, name="fake-recorder")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._ends = True
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    # --- from the test's thread

    def wait(self, what: Callable[[], T | None], deadline_s: float = DEADLINE_S) -> T:
        """What ``what`` returns, once that is true."""
        end = time.monotonic() + deadline_s
        with self._changed:
            while not (found := what()):
                left = end - time.monotonic()
                assert left > 0, f"waited {deadline_s} s in vain; tracers: {self.tracers.keys()}; errors: {self.errors}"
                self._changed.wait(left)
            return found

    def wait_tracers(self, number: int = 1) -> list[FakeTracer]:
        self.wait(lambda: len(self.tracers) >= number)
        with self._changed:
            return list(self.tracers.values())

    def wait_tracer(self, of_pid: int | None = None, incarnation: int = 1) -> FakeTracer:
        def find() -> FakeTracer | None:
            for (_, found), tracer in self.tracers.items():
                if found == incarnation and of_pid in (None, tracer.hello.pid):
                    return tracer
            return None

        return self.wait(find)

    def advance(self, tracer: FakeTracer) -> int:
        with self._changed:
            tracer.asked += 1
            self._outbox.append((tracer.peer, Advance(tracer.asked)))
            return tracer.asked

    def advance_and_wait(self, tracer: FakeTracer) -> int:
        """Until the generation is open."""
        generation = self.advance(tracer)
        self.wait(lambda: any(b.header.generation == generation for b in tracer.of(BatchType.OPEN)))
        return generation

    def stop(self, tracer: FakeTracer, reason: str, rejoin_ns: int = 0) -> None:
        with self._changed:
            self._outbox.append((tracer.peer, Stop(reason, rejoin_ns)))

    def forget(self) -> None:
        """As after a restart: another boot id, nothing known of anybody. The sockets stay."""
        with self._changed:
            self.boot_id = os.urandom(16)
            self.tracers = {}

    # --- its own thread

    def _run(self) -> None:
        sockets = self._sockets
        try:
            while not self._ends:
                ready = sockets.poll(10)
                with self._changed:
                    if sockets.link in ready:
                        self._read_link(sockets.link)
                    if sockets.pull in ready:
                        self._read_frames(sockets.pull)
                    self._beat()
                    for peer, message in self._outbox:
                        send_to(sockets.link, peer, encode_message(message))
                    self._outbox.clear()
                    self._changed.notify_all()
        finally:
            sockets.close(0)

    def _beat(self) -> None:
        now_ns = time.monotonic_ns()
        if self.answers and now_ns >= self._beat_at_ns:
            self._beat_at_ns = now_ns + self._heartbeat_ns
            self._outbox += [(t.peer, RecorderHeartbeat(self.boot_id, t.asked)) for t in self.tracers.values()]

    def _read_link(self, link: Socket) -> None:
        for peer, *parts in receive_all(link):
            try:
                message = decode_message(parts[0])
            except WireError as error:
                self.errors.append(str(error))
                continue
            if self.answers:
                self._answer(peer, message)
            elif isinstance(message, Hello) and (message.uuid, message.incarnation) in self.tracers:
                self.tracers[message.uuid, message.incarnation].hellos += 1

    def _answer(self, peer: bytes, message: Message) -> None:
        match message:
            case Hello() if self.refuses:
                self._outbox.append((peer, Reject(self.refuses)))
            case Hello() as hello:
                self._welcome(peer, hello)
            case Ping(sent_ns):
                self._outbox.append((peer, Pong(sent_ns, time.monotonic_ns())))
                for tracer in self._at(peer):
                    tracer.pings += 1
            case TracerHeartbeat():
                found = self._at(peer)
                if not found:
                    self._outbox.append((peer, RecorderHeartbeat(self.boot_id, 0)))
                for tracer in found:
                    tracer.heartbeats.append(message)
            case _:
                self.errors.append(f"link: {message}")

    def _at(self, peer: bytes) -> list[FakeTracer]:
        return [tracer for tracer in self.tracers.values() if tracer.peer == peer]

    def _welcome(self, peer: bytes, hello: Hello) -> None:
        key = hello.uuid, hello.incarnation
        tracer = self.tracers.get(key)
        if tracer is None:
            tracer = self.tracers[key] = FakeTracer(hello, peer, int.from_bytes(os.urandom(8)), hello.generation + 1)
        else:
            tracer.peer, tracer.hellos = peer, tracer.hellos + 1
            tracer.asked = max(tracer.asked, hello.generation + 1)
        self._outbox.append(
            (peer, Welcome(self.boot_id, tracer.nonce, tracer.asked, 1, self._heartbeat_ns, self._silence_ns))
        )

    def _read_frames(self, pull: Socket) -> None:
        for parts in receive_all(pull):
            try:
                batches = split_frame(parts[0])
            except WireError as error:
                self.errors.append(str(error))
                continue
            for batch in batches:
                self._take(batch)

    def _take(self, batch: Batch) -> None:
        header = batch.header
        tracer = self.tracers.get((header.uuid, header.incarnation))
        if tracer is None or tracer.nonce != header.nonce:
            self.rejected += 1
        elif not self.loses(batch):
            tracer.duplicates += header.tseq in tracer.batches
            tracer.batches[header.tseq] = batch
            if self.acknowledges and self.answers:
                self._outbox.append((tracer.peer, tracer.ack(self.boot_id)))
