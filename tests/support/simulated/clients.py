"""Control clients: each request is to be answered once, and in time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from frzmq.errors import ControlCode
from frzmq.recorder.control import MAX_TIMEOUT_NS, RECOVERY_NS
from frzmq.wire.messages import (
    Cancel,
    Credit,
    ErrorReply,
    FlushReply,
    FlushRequest,
    OkReply,
    Reply,
    Request,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotRequest,
    StartRequest,
    StatusReply,
    StatusRequest,
    StopRequest,
    decode_message,
    encode_message,
)
from support.simulated.network import Connection, Wire
from support.simulated.recorder import Recorder
from support.simulated.world import MS, S, World

WRITE_NS = 400 * MS
"""Of a snapshot, and some: what the spool's thread takes here."""
TRANSPORT_NS = 200 * MS
ONE_SNAPSHOT_NS = 2 * S + RECOVERY_NS + WRITE_NS
_ANSWERS: dict[type[Request], type[Reply]] = {
    FlushRequest: FlushReply,
    SnapshotRequest: SnapshotEnd,
    StatusRequest: StatusReply,
    StartRequest: OkReply,
    StopRequest: OkReply,
}


class Judge(Protocol):
    def received(self, peer: bytes, id_: int, data: bytes, end: SnapshotEnd) -> None: ...


@dataclass(slots=True)
class Asked:
    request: Request
    at_ns: int
    allowed_ns: int
    stalled_ns: int
    """Of the recorder, before."""
    data: bytearray = field(default_factory=bytearray)


class Client:
    """``slow``: gives credit late."""

    def __init__(self, world: World, number: int, recorder: Recorder, judge: Judge, *, slow: bool) -> None:
        self.world, self.peer = world, b"c%d" % number
        self._recorder, self._judge, self._slow = recorder, judge, slow
        self._wire = Wire(world)
        self._connection = Connection("control", self.peer, self._wire, recorder, self._wake)
        self._ids = number << 32
        self.waiting: dict[int, Asked] = {}
        self.answers: list[tuple[Request, Reply]] = []
        self._cancelled: set[int] = set()

    # --- what it asks

    def flush(self, timeout_ns: int = 0, *, double: bool = False) -> int:
        allowed_ns = min(timeout_ns or self._recorder.config.flush_timeout_ns, MAX_TIMEOUT_NS)
        return self._ask(FlushRequest(self._next(), timeout_ns, double), allowed_ns)

    def snapshot(self, *, last_ns: int = 0, share: bool = False, credit: int = 4, timeout_ns: int = 0) -> int:
        own_ns = (timeout_ns or self._recorder.config.flush_timeout_ns) + RECOVERY_NS + WRITE_NS
        # one that somebody else asked for with a long timeout, or the recorder itself, may come first
        allowed_ns = own_ns + 2 * ONE_SNAPSHOT_NS + 5 * S
        id_ = self._ask(SnapshotRequest(self._next(), "", last_ns, share, credit, timeout_ns), allowed_ns)
        if credit == 0:
            self._send(Credit(id_, 1))
        return id_

    def status(self) -> int:
        return self._ask(StatusRequest(self._next()), 0)

    def start(self) -> int:
        return self._ask(StartRequest(self._next()), 0)

    def stop(self) -> int:
        return self._ask(StopRequest(self._next()), 2 * ONE_SNAPSHOT_NS + 5 * S)

    def cancel(self, id_: int) -> None:
        """Of a snapshot: what was sent before may still come."""
        if self.waiting.pop(id_, None) is not None:
            self._cancelled.add(id_)
            self._send(Cancel(id_))

    def lost(self) -> None:
        """The recorder is gone: nobody answers any more."""
        self.waiting.clear()

    def _next(self) -> int:
        self._ids += 1
        return self._ids

    def _ask(self, request: Request, allowed_ns: int) -> int:
        if self._send(request):
            world = self.world
            allowed_ns += TRANSPORT_NS
            self.waiting[request.id] = Asked(request, world.now_ns, allowed_ns, self._recorder.stalled_ns)
        return request.id

    def _send(self, request: Request) -> bool:
        return self._connection.send(encode_message(request))

    # --- what it is told

    def overdue(self) -> list[Request]:
        return [a.request for a in self.waiting.values() if self._late_ns(a) > 0]

    def _late_ns(self, asked: Asked) -> int:
        stalled_ns = self._recorder.stalled_ns - asked.stalled_ns
        return self.world.now_ns - asked.at_ns - asked.allowed_ns - stalled_ns

    def _wake(self) -> None:
        while (data := self._connection.receive()) is not None:
            message = decode_message(data)
            match message:
                case OkReply() | StatusReply() | FlushReply() | SnapshotChunk() | SnapshotEnd() | ErrorReply():
                    self._receive(message)
                case _:
                    self.world.fail(f"{self.peer!r} got {message}")

    def _receive(self, reply: Reply) -> None:
        world = self.world
        asked = self.waiting.get(reply.id)
        if asked is None:
            world.check(reply.id in self._cancelled, f"{self.peer!r} is answered, and waits for nothing: {reply}")
            return
        if isinstance(reply, SnapshotChunk):
            self._chunk(asked, reply)
            return
        world.note(self.peer.decode(), f"is told {reply}")
        del self.waiting[reply.id]
        world.check(self._late_ns(asked) <= 0, f"{self.peer!r}: answered too late: {asked.request}: {reply}")
        world.check(
            isinstance(reply, (_ANSWERS[type(asked.request)], ErrorReply)),
            f"{self.peer!r}: wanted an answer to {asked.request}, got {reply}",
        )
        if isinstance(reply, ErrorReply):
            world.check(reply.code in {code.value for code in ControlCode}, f"an unknown code: {reply}")
        self.answers.append((asked.request, reply))
        if isinstance(reply, SnapshotEnd):
            world.check(len(asked.data) == reply.size_bytes, f"{len(asked.data)} bytes came of {reply}")
            self._judge.received(self.peer, reply.id, bytes(asked.data), reply)

    def _chunk(self, asked: Asked, chunk: SnapshotChunk) -> None:
        self.world.check(chunk.offset == len(asked.data), f"wanted the chunk at {len(asked.data)}, got {chunk.offset}")
        asked.data += chunk.data
        wait_ns = self.world.between(1 * MS, 2000 * MS) if self._slow else 0
        asked.allowed_ns += wait_ns + TRANSPORT_NS
        self.world.after(wait_ns, lambda: self._send(Credit(chunk.id, 1)))
