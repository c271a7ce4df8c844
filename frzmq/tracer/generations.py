"""What a tracer's end marks and openings are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from frzmq.tracer.slices import Slice
from frzmq.wire.batch import MAX_BODY_BYTES, EndMark, Opening, WriterEnd, encode_opening

Range = tuple[int, int]


class GenerationBook:
    """The generation that is open: its batches, and what is to be said of its writers at its end."""

    def __init__(self) -> None:
        self.batches = 0
        """RECORDS batches that were stamped."""
        self._next: dict[int, int] = {}
        """By writer: above the last record that was stamped."""
        self._carried: dict[int, WriterEnd] = {}
        self._lost: dict[int, list[Range]] = {}
        self._given_up: dict[int, list[Range]] = {}

    def stamp(self, taken: Slice) -> None:
        self.batches += 1
        self._next[taken.writer] = taken.first_index + taken.count

    def lose(self, writer: int, first_index: int, count: int) -> None:
        """These were stamped, and overwritten before they were sent again."""
        self._lost.setdefault(writer, []).append((first_index, first_index + count))

    def give_up(self, ranges: Iterable[tuple[int, Range]]) -> None:
        """The recorder takes no more of this incarnation: these, ``(writer, range)``, were under way. They, and what of the open generation its end mark
        would have said, are lost, and the next incarnation says so."""
        for writer, lost in ranges:
            self._given_up.setdefault(writer, []).append(lost)
        told = ((row.writer, row.overwritten) for row in self._carried.values())
        for writer, untold in (*self._lost.items(), *told):
            if untold:
                self._given_up.setdefault(writer, []).extend(untold)
        self._carried, self._lost = {}, {}

    def carry(self, rows: tuple[WriterEnd, ...]) -> None:
        """Begins with what was recorded before: ``rows`` are of that, as a cut gives them. What an earlier incarnation sent of it is meant only where it was
        given up."""
        sent, self._next = self._next, {}
        given_up, self._given_up = self._given_up, {}
        self.batches = 0
        self._lost = {}
        self._carried = {}
        for row in rows:
            first = min(max(row.first_index, sent.get(row.writer, 0)), row.next_index)
            lost = sorted([*row.overwritten, *given_up.pop(row.writer, ())])
            first = min([first, *(start for start, _ in lost)])
            self._carried[row.writer] = dataclasses.replace(row, first_index=first, overwritten=tuple(lost))
        for writer, ranges in given_up.items():
            lost = sorted(ranges)
            self._carried[writer] = WriterEnd(writer, lost[0][0], max(end for _, end in lost), 0, tuple(lost))

    def end(self, rows: tuple[WriterEnd, ...]) -> tuple[int, EndMark]:
        """``(batches, end mark)``; the next generation begins."""
        merged = dict(self._carried)
        for row in rows:
            before = merged.get(row.writer)
            if before is not None:
                row = dataclasses.replace(
                    row, first_index=before.first_index, overwritten=before.overwritten + row.overwritten
                )
            merged[row.writer] = row
        mark = EndMark(tuple(self._with_lost(row) for row in merged.values()))
        batches, self.batches = self.batches, 0
        self._next, self._carried, self._lost = {}, {}, {}
        return batches, mark

    def _with_lost(self, row: WriterEnd) -> WriterEnd:
        ranges = sorted([*row.overwritten, *self._lost.get(row.writer, ())])
        return dataclasses.replace(row, overwritten=_joined(ranges, row.first_index, row.next_index))


def _joined(ranges: list[Range], first: int, next_: int) -> tuple[Range, ...]:
    """Ascending and disjoint, inside ``[first, next_)``."""
    joined: list[Range] = []
    for start, end in ranges:
        start, end = max(start, first), min(end, next_)
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif start < end:
            joined.append((start, end))
    return tuple(joined)


def bounded_opening(opening: Opening) -> bytes:
    """The body of an OPEN batch; what is beyond the bound of a body is left out, open items as omitted."""
    body = encode_opening(opening)
    while len(body) > MAX_BODY_BYTES:
        if opening.open:
            keep = len(opening.open) // 2
            omitted = opening.open_omitted + len(opening.open) - keep
            opening = dataclasses.replace(opening, open=opening.open[:keep], open_omitted=omitted)
        else:
            opening = dataclasses.replace(opening, writers=opening.writers[: len(opening.writers) // 2])
        body = encode_opening(opening)
    return body
