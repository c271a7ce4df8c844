"""What an incident is about: the operations that took longest."""

from __future__ import annotations

from frzmq.reader.model import Operation
from frzmq.reader.snapshot import Snapshot


def slowest(snapshot: Snapshot, count: int = 5) -> list[Operation]:
    """Those that took longest, those that had not ended among them, but for what is a part of another operation of the snapshot."""
    asked_for = {(flow.trace, flow.id) for flow in snapshot.flows if flow.from_operation is not None}
    whole = [o for o in snapshot.operations if o.parent is None and (o.trace, o.remote_parent) not in asked_for]
    return sorted((o for o in whole if o.begin_ns is not None), key=snapshot.took_ns, reverse=True)[:count]
