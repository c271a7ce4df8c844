"""Intervals on lanes, so that those of one lane nest: what a timeline can draw as a stack of bars.

Spans nest on their track by themselves, but for those of generators that are left early, and an operation may end on another thread than it began on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from frzmq.reader.model import Call, Operation, Span
from frzmq.reader.snapshot import Snapshot

OPEN_NS = 1 << 62
"""The end of what had not ended."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One interval."""

    begin_ns: int
    end_ns: int
    """OPEN_NS: it had not ended."""
    item: Span | Operation | Call
    depth: int = 0
    """How many bars of its lane are around it."""

    @property
    def is_operation(self) -> bool:
        return isinstance(self.item, Operation)

    @property
    def kind(self) -> str:
        match self.item:
            case Operation():
                return "operation"
            case Span():
                return "span"
            case Call():
                return "call"


@dataclass(frozen=True, slots=True)
class Lane:
    track: int
    number: int
    """0: the track itself; then what does not nest with it."""
    bars: tuple[Bar, ...]
    """In the order of their begins."""

    def edges(self) -> Iterator[tuple[int, Bar, bool]]:
        """``(time, bar, begins)`` in the order in which a stack of bars takes them; without the ends of what had not ended."""
        stack: list[Bar] = []
        for bar in self.bars:
            while len(stack) > bar.depth:
                yield from _end(stack.pop())
            yield bar.begin_ns, bar, True
            stack.append(bar)
        while stack:
            yield from _end(stack.pop())


def _end(bar: Bar) -> Iterator[tuple[int, Bar, bool]]:
    if bar.end_ns < OPEN_NS:
        yield bar.end_ns, bar, False


def lanes(snapshot: Snapshot) -> list[Lane]:
    """All operations, spans and calls; a begin that is lost is that of its process's first record."""
    by_track: dict[int, list[Bar]] = {}
    items: Iterable[Span | Operation | Call] = (*snapshot.operations, *snapshot.spans, *snapshot.calls)
    for item in items:
        if item.begin_ns is None and item.end_ns is None:
            # an operation of which nothing but its id is known
            continue
        first_ns = snapshot.processes[item.process].first_ns
        end_ns = OPEN_NS if item.end_ns is None else item.end_ns
        begin_ns = item.begin_ns if item.begin_ns is not None else min(first_ns or end_ns, end_ns)
        by_track.setdefault(item.track, []).append(Bar(begin_ns, max(begin_ns, end_ns), item))
    return [lane for track in sorted(by_track) for lane in _nested(track, by_track[track])]


def _nested(track: int, bars: list[Bar]) -> list[Lane]:
    # of what begins and ends together an operation is around its spans
    bars.sort(key=lambda bar: (bar.begin_ns, -bar.end_ns, not bar.is_operation, bar.item.number))
    placed: list[list[Bar]] = []
    stacks: list[list[int]] = []
    for bar in bars:
        number = next((n for n, stack in enumerate(stacks) if _takes(stack, bar)), len(stacks))
        if number == len(stacks):
            stacks.append([])
            placed.append([])
        placed[number].append(Bar(bar.begin_ns, bar.end_ns, bar.item, len(stacks[number])))
        stacks[number].append(bar.end_ns)
    return [Lane(track, number, tuple(lane)) for number, lane in enumerate(placed)]


def _takes(stack: list[int], bar: Bar) -> bool:
    """Whether it nests in what is open on the lane, whose ends are ``stack``; those before its begin are dropped."""
    while stack and stack[-1] <= bar.begin_ns:
        stack.pop()
    return not stack or stack[-1] >= bar.end_ns
