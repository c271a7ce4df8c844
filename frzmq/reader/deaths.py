"""Whom a death touched: operations of other processes whose trace was open in a process when it died."""

from __future__ import annotations

from dataclasses import dataclass

from frzmq.reader.model import Operation, Process
from frzmq.reader.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Death:
    process: Process
    open: tuple[Operation, ...]
    """What it was in the midst of."""
    touched: tuple[Operation, ...]
    """Of other processes, of the same traces; those that had not ended, and those that failed, first."""


def deaths(snapshot: Snapshot) -> list[Death]:
    """One of each process that is dead, in their order."""
    found = []
    for process in snapshot.processes:
        if process.state != "dead":
            continue
        mine = tuple(o for o in snapshot.operations if o.process == process.number and o.end_ns is None)
        traces = {o.trace for o in mine if o.trace}
        touched = [o for o in snapshot.operations if o.trace in traces and o.process != process.number]
        touched.sort(key=lambda o: (o.end_ns is not None and not o.error, o.begin_ns or 0))
        found.append(Death(process, mine, tuple(touched)))
    return found


def touched(snapshot: Snapshot) -> dict[int, str]:
    """By the number of an operation of another process: the name of the dead process in which its trace was open, the last of them if several."""
    return {operation.number: death.process.name for death in deaths(snapshot) for operation in death.touched}
