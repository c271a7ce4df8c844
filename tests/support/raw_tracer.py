"""A tracer by hand: the wire and two sockets, nothing of `frzmq.tracer`. Every wait has a deadline."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from frzmq.transport.addresses import parse_address
from frzmq.transport.keys import ClientKey
from frzmq.transport.outbound import TracerSockets
from frzmq.wire.batch import (
    BatchType,
    EndMark,
    Header,
    Opening,
    WriterEnd,
    encode_batch,
    encode_end_mark,
    encode_opening,
)
from frzmq.wire.kinds import KINDS
from frzmq.wire.messages import (
    Ack,
    Advance,
    Hello,
    Message,
    RecorderHeartbeat,
    Reject,
    Stop,
    TracerHeartbeat,
    Welcome,
    decode_message,
    encode_message,
)

DEADLINE_S = 10.0
AGAIN_S = 2.0
RECORD = b"\x05\x01\xa0\xc0"
"""An event without a name and attributes, 1 ns after the one before."""
WRITER = 1

M = TypeVar("M")


class RawTracer:
    """Says hello when made; follows every Advance while `pump` runs, unless ``deaf``."""

    def __init__(
        self,
        address: str,
        *,
        service: str = "raw",
        end_marks: bool = True,
        lock: bool = False,
        uuid: bytes = b"",
        key: ClientKey | None = None,
    ) -> None:
        self.uuid = uuid or os.urandom(16)
        self.end_marks = end_marks
        self.deaf = False
        self.generation = 0
        self.tseq = 0
        self.index = 0
        self.nonce = 0
        self.acknowledged = 0
        self.stopped: Stop | None = None
        self.rejected = ""
        self._first_index = 0
        self._batches = 0
        self._sockets = TracerSockets(parse_address(address), key=key)
        now_ns = time.monotonic_ns()
        hello = Hello(
            self.uuid, 0, 1, 1, os.getpid(), service, 0, end_marks, lock=lock, monotonic_ns=now_ns, wall_ns=now_ns
        )
        self._join(hello)

    def _join(self, hello: Hello) -> None:
        """Says it again until it is welcome, or rejected."""
        said_at = -AGAIN_S

        def welcome() -> bool:
            nonlocal said_at
            if time.monotonic() >= said_at + AGAIN_S:
                said_at = time.monotonic()
                self.say(hello)
            return self.generation > 0 or bool(self.rejected)

        self.until(welcome)

    # --- link

    def say(self, message: Message) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not self._sockets.send(encode_message(message)):
            assert time.monotonic() < deadline, "no recorder took it"
            self._sockets.poll(5)

    def pump(self, timeout_ms: int = 5) -> None:
        """One wait for the recorder, and what it asks for."""
        self._sockets.poll(timeout_ms)
        for data in self._sockets.receive():
            match decode_message(data):
                case Welcome() as welcome:
                    self.nonce = welcome.nonce
                    if welcome.generation > self.generation:
                        self._open(welcome.generation)
                case Advance(generation) | RecorderHeartbeat(_, generation):
                    if generation > self.generation and not self.deaf and self.generation:
                        self._end()
                        self._open(generation)
                case Ack() as ack:
                    self.acknowledged = max(self.acknowledged, ack.stored_through)
                case Stop() as stop:
                    self.stopped = stop
                case Reject(reason):
                    self.rejected = reason

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not reached():
            assert time.monotonic() < deadline, "the recorder did not get there in time"
            self.pump()

    def heartbeat(self) -> None:
        self.say(TracerHeartbeat(self.generation, self.tseq))

    # --- data

    def header(self, kind: BatchType, **fields: int) -> Header:
        """The next of this tracer's batches."""
        self.tseq += 1
        now_ns = time.monotonic_ns()
        values = {
            "nonce": self.nonce,
            "generation": self.generation,
            "tseq": self.tseq,
            "base_ns": now_ns,
            "last_ns": now_ns,
        }
        return Header(kind, self.uuid, 0, **{**values, **fields})

    def send(self, frame: bytes) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not self._sockets.send_batch(frame):
            assert time.monotonic() < deadline, "no recorder took it"
            self._sockets.poll(5, room=True)

    def record(self, count: int = 1, *, padding: int = 0) -> None:
        """A batch of ``count`` records (and, for size alone, ``padding`` bytes in the last one's place)."""
        body = RECORD * count
        if padding:
            body += b"\x05\x01\xa0\x81\xa1x\xc6" + padding.to_bytes(4, "big") + bytes(padding)
            count += 1
        now_ns = time.monotonic_ns()
        header = self.header(
            BatchType.RECORDS,
            writer=WRITER,
            first_index=self.index,
            count=count,
            base_ns=now_ns - count,
            last_ns=now_ns,
        )
        self.send(encode_batch(header, body))
        self.index += count
        self._batches += 1

    def flush_mark(self) -> None:
        """Everything sent so far is acknowledged."""
        self.send(encode_batch(self.header(BatchType.FLUSH)))
        self.until(lambda: self.acknowledged >= self.tseq)

    def goodbye(self) -> None:
        self._end()
        self.send(encode_batch(self.header(BatchType.GOODBYE)))

    def _open(self, generation: int) -> None:
        self.generation, self._first_index, self._batches = generation, self.index, 0
        now_ns = time.monotonic_ns()
        self.send(encode_batch(self.header(BatchType.OPEN), encode_opening(Opening(now_ns, now_ns, now_ns, KINDS))))

    def _end(self) -> None:
        if self.end_marks:
            mark = EndMark((WriterEnd(WRITER, self._first_index, self.index),))
            self.send(encode_batch(self.header(BatchType.END, count=self._batches), encode_end_mark(mark)))

    @property
    def problem(self) -> str:
        """Why the recorder does not take it."""
        return self._sockets.problem

    def close(self, linger_ms: int = 500) -> None:
        assert self._sockets.close(linger_ms)
