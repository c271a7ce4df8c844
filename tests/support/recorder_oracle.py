"""A tracer as the recorder meets it, and what the oracle holds of each: sets, and nothing that is derived."""

from __future__ import annotations

from collections import Counter
from typing import Any

from frzmq.wire.batch import BatchType, EndMark, Header, WriterEnd, encode_batch, encode_end_mark
from frzmq.wire.messages import (
    Hello,
)

MS = 10**6
S = 10**9
RECORDS, OPEN, END, STRINGS, FLUSH, GOODBYE = BatchType


class Tracer:
    """An honest one: what it made (``sent``: tseq -> batch), what is on its way, what was lost on the way."""

    def __init__(self, number: int, end_marks: bool, generation: int) -> None:
        self.uuid = bytes([number]) * 16
        self.incarnation = 1
        self.peer = b"peer%d" % number
        self.end_marks = end_marks
        self.generation = generation
        self.told = generation
        self.tseq = 0
        self.batches = 0
        self.next_index: dict[int, int] = {}
        self.first: dict[int, int] = {}
        self.overwritten: dict[int, list[tuple[int, int]]] = {}
        self.strings = 0
        self.pipe: list[int] = []
        self.lost: list[int] = []
        self.sent: dict[int, tuple[Header, bytes]] = {}
        self.nonce = self.proof = 0
        """Of the last welcome; and of the last that came."""
        self.open = False
        self.ended = False
        """It said goodbye: nothing more comes before another hello."""

    def hello(self) -> Hello:
        return Hello(
            self.uuid, self.incarnation, 1, 1, 7, "svc", self.generation, self.end_marks, lock=True, nonce=self.proof
        )

    def make(self, kind: BatchType, now: int, body: bytes = b"", **fields: int) -> None:
        self.tseq += 1
        header = Header(
            kind,
            self.uuid,
            self.incarnation,
            self.nonce,
            self.generation,
            self.tseq,
            base_ns=now,
            last_ns=now,
            body_size=len(body),
            **fields,
        )
        self.sent[self.tseq] = (header, body)
        self.pipe.append(self.tseq)

    def record(self, now: int, writer: int, count: int, skipped: int) -> None:
        index = self.next_index.get(writer, 0)
        self.first.setdefault(writer, index)
        if skipped:
            self.overwritten.setdefault(writer, []).append((index, index + skipped))
        self.make(RECORDS, now, b"r" * (3 * count), writer=writer, first_index=index + skipped, count=count)
        self.next_index[writer] = index + skipped + count
        self.batches += 1

    def cut(self, now: int) -> None:
        if self.open and self.end_marks:
            rows = tuple(
                WriterEnd(w, self.first.get(w, n), n, 0, tuple(self.overwritten.get(w, ())))
                for w, n in sorted(self.next_index.items())
            )
            self.make(END, now, encode_end_mark(EndMark(rows)), count=self.batches)
        self.batches, self.first, self.overwritten = 0, {}, {}
        self.generation = self.told
        self.open = True
        self.make(OPEN, now, b"opening")


def raw(part: tuple[Header, bytes]) -> bytes:
    return encode_batch(*part)


class Known:
    """What the oracle holds of a stream: sets, and nothing that is derived."""

    def __init__(self, tracer: Tracer, now: int) -> None:
        self.uuid, self.peer, self.incarnation, self.nonce = tracer.uuid, tracer.peer, tracer.incarnation, tracer.nonce
        self.end_marks = tracer.end_marks
        self.asked = tracer.generation + 1
        self.young = tracer.generation == 0
        self.first_seen = 0
        self.opened = 0
        self.state = "live"
        self.error = ""
        self.rejoin_at = 0
        self.heard = now
        self.died: int | None = None
        self.shared: int | None = None
        self.seen: set[int] = set()
        self.parts: dict[int, dict[int, tuple[Header, bytes]]] = {}
        self.sealed: list[dict[str, Any]] = []
        self.sealed_through = 0
        self.left = 0
        """Generations below it are behind the tracer."""
        self.record_from = 0
        self.goodbye = 0
        self.strings: list[bytes] = []
        self.string_ids: set[int] = set()
        self.place: dict[int, dict[int, str]] = {}
        self.ends: dict[int, int] = {}
        """By writer: the next index that a sealed generation told of, also of one in which it recorded nothing."""
        self.before: dict[int, Counter[str]] = {}
        """By writer, of the time before the recorder was switched off."""
        self.from_birth = self.young
        """Whatever a writer recorded, this recorder should have."""
        self.duplicate = self.rejected = 0
        self.dirty = self.ack_now = False

    def begin(self, first: int) -> int:
        """Where the indices of a writer begin of which ``first`` is the first that is told."""
        return 0 if self.from_birth else first

    def ledger(self) -> Counter[str]:
        return sum(self.by_writer().values(), Counter())

    def by_writer(self) -> dict[int, Counter[str]]:
        counts = {writer: Counter(before) for writer, before in self.before.items()}
        for writer, places in self.place.items():
            counts.setdefault(writer, Counter()).update(places.values())
        for part in self.parts.values():
            for header, _ in part.values():
                if header.type is RECORDS:
                    counts.setdefault(header.writer, Counter())["open"] += header.count
        return {writer: +of_writer for writer, of_writer in counts.items() if +of_writer}

    def stored(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        through = max(self.seen, default=0)
        gaps, start = [], None
        for n in range(1, through + 1):
            if n not in self.seen and start is None:
                start = n
            elif n in self.seen and start is not None:
                gaps.append((start, n))
                start = None
        return through, tuple(gaps)

    @property
    def low(self) -> int:
        """What was before it an earlier recorder may have had."""
        return 1 if self.young else self.first_seen

    def all_seen(self, start: int, end: int) -> bool:
        return all(n in self.seen for n in range(max(start, self.low), end))

    def settled(self, target: int) -> bool:
        """No part of a generation up to ``target`` is open, and the tracer is beyond it."""
        if self.parts:
            return min(self.parts) > target
        return min(self.sealed_through + 1, self.left) > target
