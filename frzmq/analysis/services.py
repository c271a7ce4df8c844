"""How long the operations of each service took, by name."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from frzmq.reader.model import Operation
from frzmq.reader.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class OperationStats:
    """Of one name in one service. Times are ns, of those that have ended; None: none has."""

    service: str
    name: str
    count: int
    errors: int
    open: int
    """Had not ended."""
    p50_ns: int | None
    p99_ns: int | None
    longest_ns: int | None


def operation_stats(snapshot: Snapshot) -> list[OperationStats]:
    """By service, in each the name with the most time in it first. An operation whose begin is lost counts, and has no time."""
    found: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in snapshot.operations:
        found[snapshot.processes[operation.process].service, operation.name].append(operation)
    rows = [(sum(_took(operations)), _stats(*key, operations)) for key, operations in found.items()]
    rows.sort(key=lambda row: (row[1].service, -row[0], row[1].name))
    return [stats for _, stats in rows]


def _stats(service: str, name: str, operations: list[Operation]) -> OperationStats:
    took = sorted(_took(operations))
    errors = sum(bool(o.error) for o in operations)
    unended = sum(o.end_ns is None for o in operations)
    at = (quantile(took, 50), quantile(took, 99), took[-1]) if took else (None, None, None)
    return OperationStats(service, name, len(operations), errors, unended, *at)


def _took(operations: list[Operation]) -> list[int]:
    return [o.end_ns - o.begin_ns for o in operations if o.end_ns is not None and o.begin_ns is not None]


def quantile(ordered: list[int], percent: int) -> int:
    """The least value that so much of them does not pass."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
