"""What else went on while a request waited: often its cause."""

from __future__ import annotations

from dataclasses import dataclass

from frzmq.analysis.trees import Forest, Node, walk
from frzmq.reader.model import Operation, Span
from frzmq.reader.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """``item`` ran during ``overlap_ns`` of the time of ``waited``. ``name``: with its operation's, of a span."""

    waited: Node
    item: Operation | Span
    name: str
    overlap_ns: int


def meanwhile(forest: Forest, root: Node, most: int = 3) -> list[Meanwhile]:
    """Of the part of the critical path that took longest by itself: what overlapped it most, of at least half of it.

    Not other requests of the kind, which wait as it does: what is a part of an operation that is called like one of this tree. A span stands for its operation.
    """
    snapshot = forest.snapshot
    nodes = [node for _, node in walk(root)]
    mine = {node.item.number for node in nodes if isinstance(node.item, Operation)}
    names = {node.item.name for node in nodes}
    waited = max((node for node in nodes if node.critical), key=lambda node: node.self_ns)
    alike = mine | {o.number for o in snapshot.operations if o.name in names or forest.root_of(o).name in names}
    with_spans = set()
    found = []
    for span in snapshot.spans:
        if span.parent is not None or span.operation in alike or span.name in names:
            continue
        around = snapshot.operations[span.operation].name if span.operation is not None else ""
        overlap_ns = _overlap_ns(snapshot, span, waited)
        if 2 * overlap_ns >= waited.took_ns > 0:
            with_spans.add(span.operation)
            found.append(Meanwhile(waited, span, f"{around}: {span.name}" if around else span.name, overlap_ns))
    for other in snapshot.operations:
        overlap_ns = _overlap_ns(snapshot, other, waited)
        if other.number not in alike | with_spans and 2 * overlap_ns >= waited.took_ns > 0:
            found.append(Meanwhile(waited, other, other.name, overlap_ns))
    return sorted(found, key=lambda each: (-each.overlap_ns, each.name))[:most]


def _overlap_ns(snapshot: Snapshot, item: Operation | Span, waited: Node) -> int:
    if item.begin_ns is None:
        return 0
    end_ns = snapshot.end_ns if item.end_ns is None else item.end_ns
    return min(end_ns, waited.end_ns) - max(item.begin_ns, waited.begin_ns)
