"""What the demo's snapshot tells of its slowest request: where its time went, and what ran meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from frzmq.reader.model import Operation, Span
from frzmq.reader.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Step:
    """One operation or span of the request."""

    depth: int
    name: str
    process: str
    took_ns: int


@dataclass(frozen=True, slots=True)
class Story:
    steps: tuple[Step, ...]
    culprit: Step | None
    """The longest span of another operation while the request's longest innermost one went on, and by how long they overlap."""


def tell(snapshot: Snapshot, name: str) -> Story:
    """Of the slowest operation called ``name`` that has ended."""
    ended = [o for o in snapshot.operations if o.name == name and o.begin_ns is not None and o.end_ns is not None]
    slowest = max(ended, key=snapshot.took_ns)
    mine = {o.number for o in snapshot.operations if o.trace == slowest.trace}
    parts: list[Operation | Span] = [o for o in snapshot.operations if o.number in mine]
    parts += [s for s in snapshot.spans if s.operation in mine]
    parts = [p for p in parts if p.begin_ns is not None and p.end_ns is not None]
    # one that begins later and ends earlier is inside
    parts.sort(key=lambda p: (p.begin_ns or 0, -(p.end_ns or 0)))
    leaves = [p for p in parts if isinstance(p, Span)]
    waited = max(
        leaves, key=lambda s: (snapshot.took_ns(s) > snapshot.took_ns(slowest) // 2, s.begin_ns or 0), default=None
    )
    return Story(tuple(_steps(snapshot, parts)), _culprit(snapshot, waited, mine) if waited is not None else None)


def _steps(snapshot: Snapshot, parts: list[Operation | Span]) -> Iterator[Step]:
    ends: list[int] = []
    for part in parts:
        while ends and ends[-1] < (part.end_ns or 0):
            ends.pop()
        yield Step(len(ends), part.name, snapshot.processes[part.process].name, snapshot.took_ns(part))
        ends.append(part.end_ns or 0)


def _culprit(snapshot: Snapshot, waited: Span, mine: set[int]) -> Step | None:
    def overlap_ns(span: Span) -> int:
        begin_ns, end_ns = span.begin_ns or 0, span.end_ns or snapshot.end_ns
        return min(end_ns, waited.end_ns or 0) - max(begin_ns, waited.begin_ns or 0)

    others = [s for s in snapshot.spans if s.operation not in mine and s.name != waited.name and s.depth == 0]
    others = [s for s in others if s.operation is not None and not snapshot.operations[s.operation].remote_parent]
    found = max(others, key=overlap_ns, default=None)
    if found is None or found.operation is None or overlap_ns(found) <= 0:
        return None
    name = f"{snapshot.operations[found.operation].name}: {found.name}"
    return Step(0, name, snapshot.processes[found.process].name, overlap_ns(found))
