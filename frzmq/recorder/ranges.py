"""A set of integers that come mostly in order: sequence numbers, record indices."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Ranges:
    """Integers as disjoint half-open ranges ``[start, end)``, ascending and never touching. Adding at the end costs O(1)."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._starts)

    def ranges(self) -> list[tuple[int, int]]:
        return list(zip(self._starts, self._ends, strict=True))

    @property
    def start(self) -> int:
        """The least number in it; 0 when empty."""
        return self._starts[0] if self._starts else 0

    @property
    def end(self) -> int:
        """Above every number in it; 0 when empty."""
        return self._ends[-1] if self._ends else 0

    def count(self, start: int, end: int) -> int:
        """How many of ``[start, end)`` are in it."""
        total = 0
        for at in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[at] >= end:
                break
            total += max(0, min(end, self._ends[at]) - max(start, self._starts[at]))
        return total

    def add(self, start: int, end: int) -> int:
        """Puts ``[start, end)`` in and returns how many of them are new."""
        if start >= end:
            return 0
        if self._ends and start == self._ends[-1]:
            self._ends[-1] = end
            return end - start
        new = end - start - self.count(start, end)
        first = bisect_left(self._ends, start)
        behind = bisect_right(self._starts, end)
        if first < behind:
            start = min(start, self._starts[first])
            end = max(end, self._ends[behind - 1])
        self._starts[first:behind] = [start]
        self._ends[first:behind] = [end]
        return new

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of ``[start, end)`` is not in it, as ranges."""
        found: list[tuple[int, int]] = []
        for at in range(bisect_right(self._ends, start), len(self._starts)):
            if start >= end or self._starts[at] >= end:
                break
            if start < self._starts[at]:
                found.append((start, self._starts[at]))
            start = self._ends[at]
        if start < end:
            found.append((start, end))
        return found

    def join_first(self) -> int:
        """Fills the lowest gap between two ranges and returns where it ended."""
        ended = self._starts[1]
        del self._ends[0], self._starts[1]
        return ended
