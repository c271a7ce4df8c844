"""What a stream's `Ledger` is made of: by writer, which of its indices have a place, and how many are where.

The recorder knows of a record by the batch that brought it or, once its generation is sealed, by an end mark that counts it or by a later batch of its writer,
whose indices are beyond it. What is still in the tracer or under way is not known. Where a writer's indices begin for it:

- of a tracer that it met as it began, and has heard ever since, at 0: what never came is ``missing``;
- of a further incarnation, where the one before ended: what was under way as that was stopped, and nobody told of, is ``missing``;
- else (an earlier recorder had the tracer, or this one was off) at the first that is told: what was before is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct
from types import MappingProxyType
from typing import Final

from frzmq.recorder.ranges import Ranges
from frzmq.wire.batch import EndMark, Header, WriterEnd
from frzmq.wire.ledger import Places, WriterLedger

MAX_WRITERS: Final = 1024
"""Writers that are told apart; of those beyond, the ones that were not heard of for longest, there are only sums."""
MAX_HOLES: Final = 16
"""Ranges of a writer that are missing and may come late; of those below it is forgotten which they are, not how many."""
_COUNT: Final = Struct("<QQ")
NOTHING: Final = Ranges()


@dataclass(slots=True)
class _Span:
    """Every record in ``[first, settled)`` has its place; ``holes`` of it are missing."""

    first: int
    settled: int
    holes: list[tuple[int, int]] = field(default_factory=list)

    def miss(self, start: int, end: int) -> int:
        """Returns how many these are."""
        if start >= end:
            return 0
        self.holes = sorted([*self.holes, (start, end)])[-MAX_HOLES:]
        return end - start

    def fill(self, start: int, end: int) -> int:
        """Returns how many of them were missing."""
        filled = 0
        left: list[tuple[int, int]] = []
        for a, b in self.holes:
            low, high = max(a, start), min(b, end)
            if low >= high:
                left.append((a, b))
                continue
            filled += high - low
            left += [part for part in ((a, low), (high, b)) if part[0] < part[1]]
        self.holes = left[-MAX_HOLES:]
        return filled


@dataclass(slots=True)
class _Counts:
    recorded: int = 0
    held: int = 0
    evicted: int = 0
    overwritten: int = 0
    missing: int = 0
    late: int = 0
    dropped: int = 0


class Book:
    """``from_birth``: the tracer has sent nothing to anybody before; ``ends``: by writer, where an earlier incarnation ended."""

    def __init__(self, from_birth: bool, ends: Mapping[int, int]) -> None:
        self._from_birth = from_birth
        self._ends = dict(ends)
        self._spans: dict[int, _Span] = {}
        self._before: dict[int, int] = {}
        """By writer: where it was when the recorder was switched off."""
        self._counts: dict[int, _Counts] = {}
        self._total = _Counts()
        self.forgotten = 0
        """Writers of which there is only the sum."""

    # --- what became of records

    def settle(
        self,
        received: Mapping[int, Ranges],
        mark: EndMark | None,
        gone: Mapping[int, int] = MappingProxyType({}),
        *,
        whole: bool,
    ) -> tuple[int, bytes]:
        """Gives every record of a generation that is sealed its place, those that came in the ring; ``gone``: by writer, the first of those whose batches came
        without them; ``whole``: all batches that the mark counts are here, so
        that what they do not hold the tracer itself had lost. Returns ``(how many of it are lost, what `evict` is to be given)``."""
        rows = {row.writer: row for row in mark.writers} if mark is not None else {}
        lost = 0
        counted = []
        for writer in received.keys() | rows.keys():
            came = received.get(writer, NOTHING)
            row = rows.get(writer)
            if row is None and not came:
                if writer in gone:
                    # how many they were the writer's next index will say
                    self._span(writer, gone[writer])
                continue
            if row is not None:
                first, end = row.first_index, row.next_index
            else:
                first, end = min(came.start, gone.get(writer, came.start)), came.end
            span = self._span(writer, first)
            if len(came) == 1 and came.start == span.settled and came.end == end:
                # all of it, in one piece: nearly always
                span.settled = end
                held = end - came.start
                self._add(writer, row, recorded=held, held=held)
            else:
                held = came.count(0, came.end)
                lost += self._settle_writer(writer, span, came, row, first, end, whole)
            if held:
                counted.append(_COUNT.pack(writer, held))
        return lost, b"".join(counted)

    def _settle_writer(
        self, writer: int, span: _Span, came: Ranges, row: WriterEnd | None, first: int, end: int, whole: bool
    ) -> int:
        start, span.settled = span.settled, max(span.settled, end, came.end)
        placed, overwritten = _with_overwritten(came, row, start)
        holes = placed.gaps(start, span.settled)
        lost = overwritten + sum(b - max(a, first) for a, b in holes if b > first)
        if whole:
            overwritten = lost
            holes = [(a, min(b, first)) for a, b in holes if a < first]
        missing = sum(span.miss(a, b) for a, b in holes)
        # an index that is used again is a record of its own
        recorded = span.settled - start + came.count(0, start)
        held = came.count(0, came.end)
        self._add(writer, row, recorded=recorded, held=held, overwritten=overwritten, missing=missing)
        return lost

    def _add(
        self, writer: int, row: WriterEnd | None, *, recorded: int, held: int, overwritten: int = 0, missing: int = 0
    ) -> None:
        counts = self._of(writer)
        if row is not None and row.dropped > counts.dropped:
            counts.dropped = row.dropped
        for each in (counts, self._total):
            each.recorded += recorded
            each.held += held
            each.overwritten += overwritten
            each.missing += missing

    def late(self, header: Header) -> int:
        """A batch of a generation that is sealed. Returns how many of its records are late; the others came before."""
        start, end = header.first_index, header.first_index + header.count
        span = self._span(header.writer, start)
        found = span.fill(start, end)
        above = max(0, end - max(start, span.settled))
        below = max(0, min(end, span.first) - start)
        recorded = max(0, end - span.settled) + max(0, span.first - start)
        missing = span.miss(span.settled, start) + span.miss(end, span.first) - found
        span.settled, span.first = max(span.settled, end), min(span.first, start)
        late = found + above + below
        for counts in (self._of(header.writer), self._total):
            counts.recorded += recorded
            counts.late += late
            counts.missing += missing
        return late

    def evict(self, counted: bytes) -> None:
        """What `settle` said of a generation that goes."""
        for writer, held in _COUNT.iter_unpack(counted):
            self._total.held -= held
            self._total.evicted += held
            if (counts := self._counts.get(writer)) is not None:
                # of one that was forgotten and came again, what it held before is not among it
                gone = min(held, counts.held)
                counts.held -= gone
                counts.evicted += gone

    def interrupt(self) -> None:
        """The recorder is off: of what the writers do meanwhile nothing is counted."""
        self._from_birth = False
        self._ends = {}
        before = self._before | dict(self.settled())
        self._before = dict(list(before.items())[-MAX_WRITERS:])
        self._spans = {}

    # --- what is known

    def settled(self) -> Iterator[tuple[int, int]]:
        """``(writer, the index below which its records have their places)``"""
        return ((writer, span.settled) for writer, span in self._spans.items())

    def placed(self) -> dict[int, int]:
        """The same, also of what was before the recorder was off."""
        return self._before | dict(self.settled())

    def places(self, opened: int) -> Places:
        """Of all writers, with so many records in open generations."""
        return _places(self._total, opened)

    def writers(self, opened: Mapping[int, int]) -> tuple[WriterLedger, ...]:
        """Those that are told apart; ``opened``: by writer, records in open generations."""
        numbers = sorted(self._counts.keys() | opened.keys())
        rows = (self._writer(number, opened.get(number, 0)) for number in numbers)
        return tuple(row for row in rows if row.recorded or row.dropped)

    def _writer(self, number: int, opened: int) -> WriterLedger:
        counts = self._counts.get(number, _Counts())
        p = _places(counts, opened)
        return WriterLedger(
            p.recorded, p.open, p.held, p.evicted, p.overwritten, p.missing, p.late, number, counts.dropped
        )

    # --- places

    def _span(self, writer: int, first: int) -> _Span:
        span = self._spans.pop(writer, None)
        if span is None:
            at = 0 if self._from_birth else self._ends.pop(writer, first)
            span = _Span(at, at)
        self._spans[writer] = span
        if len(self._spans) > MAX_WRITERS:
            del self._spans[next(iter(self._spans))]
            self._from_birth = False
        return span

    def _of(self, writer: int) -> _Counts:
        counts = self._counts.pop(writer, None) or _Counts()
        self._counts[writer] = counts
        if len(self._counts) > MAX_WRITERS:
            del self._counts[next(iter(self._counts))]
            self.forgotten += 1
        return counts


def _places(counts: _Counts, opened: int) -> Places:
    return Places(
        counts.recorded + opened,
        opened,
        counts.held,
        counts.evicted,
        counts.overwritten,
        counts.missing,
        counts.late,
    )


def _with_overwritten(came: Ranges, row: WriterEnd | None, start: int) -> tuple[Ranges, int]:
    """What came and what the mark says was overwritten, above ``start``; and how many of these did not come: a chunk that was overwritten after it had
    arrived is not lost."""
    if row is None or not row.overwritten:
        return came, 0
    placed = Ranges()
    for a, b in came.ranges():
        placed.add(a, b)
    return placed, sum(placed.add(max(a, start), b) for a, b in row.overwritten)
