"""A recorder's machine on a bench: its clock, and the tracers that talk to it."""

from __future__ import annotations

from itertools import count

from frzmq.config import RecorderConfig
from frzmq.recorder.events import (
    FrameReceived,
    Input,
    Instruction,
    LinkReceived,
    RequestReceived,
    SealedGeneration,
    SendLink,
    Tick,
)
from frzmq.recorder.machine import RecorderMachine
from frzmq.wire.batch import BatchType, EndMark, Header, WriterEnd, encode_batch, encode_end_mark
from frzmq.wire.messages import (
    FlushRequest,
    Hello,
    SnapshotRequest,
    StartRequest,
    StatusRequest,
    StopRequest,
    Welcome,
)

MS, S = 10**6, 10**9
BOOT = b"b" * 16
RECORD = b"\x05\x01\xa0\xc0"
"""An event without a name, 1 ns after the one before."""
CONFIG = RecorderConfig(
    min_age_ns=60 * S,
    max_bytes=1 << 20,
    max_generation_bytes=100 << 10,
    advance_every_ns=S,
    heartbeat_ns=S // 4,
    silence_ns=5 * S,
    flush_timeout_ns=2 * S,
    mode="service",
)


class Bench:
    """A machine, its clock, and the tracers that talk to it."""

    def __init__(self, config: RecorderConfig = CONFIG) -> None:
        self.now = 1000 * S
        numbers = count(1)
        self.machine = RecorderMachine(
            config, BOOT, lambda: next(numbers) * 100, self.now, pid=5, version="v", machine="here"
        )

    def give(self, event: Input) -> list[Instruction]:
        return self.machine.handle(event, self.now)

    def tick(self, passed_ns: int) -> list[Instruction]:
        self.now += passed_ns
        return self.give(Tick())

    def ask(
        self, request: StartRequest | StopRequest | FlushRequest | SnapshotRequest | StatusRequest
    ) -> list[Instruction]:
        return self.give(RequestReceived(b"c", request))

    def sealed(self, at: int = 0) -> tuple[SealedGeneration, ...]:
        return self.machine.telling.view(self.now, 0).streams[at].sealed


class Peer:
    def __init__(self, bench: Bench, name: bytes = b"p", **hello: object) -> None:
        self.bench, self.name, self.generation, self.tseq = bench, name, 0, 0
        fields: dict[str, object] = {"generation": 0, "lock": True, "machine": "here", **hello}
        self.hello = Hello((name * 16)[:16], 1, 1, 1, 42, "svc", **fields)  # type: ignore[arg-type]
        self.joined = bench.give(LinkReceived(name, self.hello))
        self.nonce = next(
            i.message.nonce for i in self.joined if isinstance(i, SendLink) and isinstance(i.message, Welcome)
        )

    def batch(self, kind: BatchType, body: bytes = b"", **fields: int) -> bytes:
        self.tseq += 1
        now = self.bench.now
        values = {"generation": self.generation, "tseq": self.tseq, "base_ns": now, "last_ns": now, **fields}
        return encode_batch(Header(kind, self.hello.uuid, self.hello.incarnation, self.nonce, **values), body)

    def send(self, kind: BatchType, body: bytes = b"", **fields: int) -> list[Instruction]:
        return self.bench.give(FrameReceived(self.batch(kind, body, **fields)))

    def open(self, generation: int) -> list[Instruction]:
        self.generation = generation
        return self.send(BatchType.OPEN, b"opening")

    def records(self, first: int, number: int, size_bytes: int = 0) -> list[Instruction]:
        return self.send(
            BatchType.RECORDS, b"r" * max(size_bytes, 2 * number), writer=1, first_index=first, count=number
        )

    def end(self, batches: int, first: int, next_: int, *overwritten: tuple[int, int]) -> list[Instruction]:
        return self.send(
            BatchType.END, encode_end_mark(EndMark((WriterEnd(1, first, next_, 0, overwritten),))), count=batches
        )

    def say(self, message: object) -> SendLink:
        return SendLink(self.name, message)  # type: ignore[arg-type]
