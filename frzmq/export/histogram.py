"""How long operations took: by name, in classes of time that grow as the time does, as small pictures that share one axis."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from frzmq.config import format_duration
from frzmq.export.markup import Markup, element
from frzmq.reader.snapshot import Snapshot

BOUNDS_NS: Final = tuple(step * 10**power for power in range(19) for step in (10, 15, 20, 30, 50, 70))
WIDTH_PX: Final = 300
HEIGHT_PX: Final = 30


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the operations of one name."""

    name: str
    took_ns: tuple[int, ...]
    """Of each that has ended and whose begin is known, the shortest first."""
    failed: int
    open: int
    """Had not ended."""

    def quantile_ns(self, share: float) -> int:
        """The time within which this share of them was done."""
        return self.took_ns[max(0, -(-int(share * 1000) * len(self.took_ns) // 1000) - 1)]


@dataclass(frozen=True, slots=True)
class Axis:
    """The classes that are shown: from ``BOUNDS_NS[first]`` on, so many."""

    first: int
    count: int


def latencies(snapshot: Snapshot) -> list[Latency]:
    """One for each name, that with the most time in it first."""
    took: dict[str, list[int]] = {}
    failed: dict[str, int] = {}
    unended: dict[str, int] = {}
    for operation in snapshot.operations:
        name = operation.name
        mine = took.setdefault(name, [])
        if operation.end_ns is None:
            unended[name] = unended.get(name, 0) + 1
        elif operation.begin_ns is not None:
            mine.append(operation.end_ns - operation.begin_ns)
        if operation.error:
            failed[name] = failed.get(name, 0) + 1
    found = [Latency(name, tuple(sorted(t)), failed.get(name, 0), unended.get(name, 0)) for name, t in took.items()]
    return sorted(found, key=lambda each: (-sum(each.took_ns), each.name))


def axis(shown: Sequence[Latency]) -> Axis:
    """From the shortest to the longest of all of them, in whole powers of ten."""
    ended = [each.took_ns for each in shown if each.took_ns]
    if not ended:
        return Axis(0, 6)
    first = _class(min(took[0] for took in ended)) // 6 * 6
    last = _class(max(took[-1] for took in ended)) // 6 * 6 + 5
    return Axis(first, last - first + 1)


def histogram(latency: Latency, on: Axis) -> Markup:
    """A picture of bars; one is as high as the number of operations is to that of the most frequent class."""
    counts = [0] * on.count
    for took_ns in latency.took_ns:
        counts[_class(took_ns) - on.first] += 1
    most = max(counts)
    return _picture(HEIGHT_PX, *(_bar(n, count, most, on) for n, count in enumerate(counts) if count))


def scale(on: Axis) -> Markup:
    """The axis: its powers of ten."""
    return _picture(12, *_ticks(on))


def _class(took_ns: int) -> int:
    return max(0, bisect_right(BOUNDS_NS, took_ns) - 1)


def _picture(height: int, *parts: Markup) -> Markup:
    size = {"width": str(WIDTH_PX), "height": str(height), "viewBox": f"0 0 {WIDTH_PX} {height}"}
    return element("svg", *parts, role="img", **size)


def _bar(n: int, count: int, most: int, on: Axis) -> Markup:
    step = WIDTH_PX / on.count
    height = max(2, round(count / most * HEIGHT_PX))
    least, end = BOUNDS_NS[on.first + n], BOUNDS_NS[min(on.first + n + 1, len(BOUNDS_NS) - 1)]
    return element(
        "rect",
        element("title", f"{count} of {format_duration(least)} to {format_duration(end)}"),
        class_="o",
        x=f"{n * step:.1f}",
        y=str(HEIGHT_PX - height),
        width=f"{max(step - 1, 1):.1f}",
        height=str(height),
    )


def _ticks(on: Axis) -> Iterator[Markup]:
    # no more labels than there is room for
    every = -(-on.count // 36) * 6
    for n in range(0, on.count, every):
        yield element(
            "text", format_duration(BOUNDS_NS[on.first + n]), class_="a", x=f"{n * WIDTH_PX / on.count:.1f}", y="10"
        )
