"""Operations as trees over processes: what was inside of what, where the time went, and which parts the end had to wait for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, TypeAlias

from frzmq.reader.model import Operation, Span
from frzmq.reader.snapshot import Snapshot

Item: TypeAlias = Operation | Span
_TRACE: Final = re.compile(r"trace ([0-9a-f]{32})")
MAX_NODES: Final = 10_000
"""Of one tree; what is beyond is left out, and counted by the node around it."""


@dataclass(slots=True)
class Node:
    """An operation or a span. Times are ns; one whose begin is lost stands where its first child does, or at its end."""

    item: Item
    process: int
    begin_ns: int
    end_ns: int
    """Of what had not ended: the end of the snapshot."""
    children: list[Node] = field(default_factory=list)
    """In the order of their begins."""
    self_ns: int = 0
    """Of its time, in which no child ran."""
    critical: bool = False
    """On the way from its root's end back to its begin: had this been shorter, the root would have been."""
    left_out: int = 0
    """Children that are not here: the tree is too large."""

    @property
    def took_ns(self) -> int:
        return max(0, self.end_ns - self.begin_ns)

    @property
    def ended(self) -> bool:
        return self.item.end_ns is not None


def walk(root: Node) -> Iterator[tuple[int, Node]]:
    """``(depth, node)``, a parent before its children."""
    stack = [(0, root)]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        stack += [(depth + 1, child) for child in reversed(node.children)]


class Forest:
    """The trees of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._senders = {(o.trace, o.op): o.number for o in snapshot.operations}
        """By trace and parent id of a traceparent: the operation that it was made in."""
        self._senders |= {(f.trace, f.id): f.from_operation for f in snapshot.flows if f.from_operation is not None}
        self._spans: dict[int, list[Span]] = defaultdict(list)
        for span in snapshot.spans:
            if span.operation is not None:
                self._spans[span.operation].append(span)
        self._parent = {o.number: parent for o in snapshot.operations if (parent := self._around(o)) is not None}
        self._parts: dict[int, list[Operation]] = defaultdict(list)
        for number, parent in self._parent.items():
            self._parts[parent].append(snapshot.operations[number])

    def _around(self, operation: Operation) -> int | None:
        if operation.parent is not None:
            return operation.parent
        return self._senders.get((operation.trace, operation.remote_parent)) if operation.remote_parent else None

    def root_of(self, operation: Operation) -> Operation:
        """The outermost operation that ``operation`` is a part of."""
        seen = {operation.number}
        while (parent := self._parent.get(operation.number)) is not None and parent not in seen:
            seen.add(parent)
            operation = self.snapshot.operations[parent]
        return operation

    def roots(self, trace: str) -> list[Operation]:
        """The outermost operations of a trace, in the order of their begins."""
        mine = [o for o in self.snapshot.operations if o.trace == trace]
        roots = {self.root_of(o).number: self.root_of(o) for o in mine}
        return sorted(roots.values(), key=lambda o: o.begin_ns or 0)

    def triggered_by(self) -> str | None:
        """The trace that the snapshot's reason names, if something of it is here."""
        named = _TRACE.search(self.snapshot.header.reason)
        return named[1] if named and any(o.trace == named[1] for o in self.snapshot.operations) else None

    def tree(self, operation: Operation) -> Node:
        """With all that is inside of it, in every process."""
        root = self._node(operation)
        seen = {operation.number}
        order = [root]
        todo = [root]
        while todo:
            node = todo.pop()
            assert isinstance(node.item, Operation)
            spans, inner = self._inside(node.item, node)
            fresh = [o for o in inner if o.number not in seen]
            if len(order) + len(spans) + len(fresh) > MAX_NODES:
                node.children.clear()
                node.left_out = len(spans) + len(fresh)
                continue
            seen.update(o.number for o in fresh)
            order += spans
            for part in fresh:
                child = self._node(part)
                self._innermost(part, node, spans).children.append(child)
                order.append(child)
                todo.append(child)
        self._measure(order)
        _mark(root)
        return root

    def _node(self, item: Item) -> Node:
        end_ns = self.snapshot.end_ns if item.end_ns is None else item.end_ns
        return Node(item, item.process, end_ns if item.begin_ns is None else item.begin_ns, end_ns)

    def _inside(self, operation: Operation, node: Node) -> tuple[list[Node], list[Operation]]:
        """The spans of an operation, put into each other below ``node``; and the operations within it."""
        nodes = {span.number: self._node(span) for span in self._spans[operation.number]}
        for span in self._spans[operation.number]:
            around = nodes.get(span.parent) if span.parent is not None else None
            (around or node).children.append(nodes[span.number])
        return list(nodes.values()), self._parts[operation.number]

    def _innermost(self, part: Operation, node: Node, spans: Iterable[Node]) -> Node:
        """Where an operation that is within another's stands: in the innermost span that was open when it began, of its own track if it is of the same process."""
        at_ns = part.begin_ns
        if at_ns is None:
            return node
        local = part.process == node.process
        around = [
            span
            for span in spans
            if span.begin_ns <= at_ns <= span.end_ns and (not local or span.item.track == part.track)
        ]
        return max(around, key=attrgetter("begin_ns", "item.depth"), default=node)

    def _measure(self, order: list[Node]) -> None:
        # children are behind their parents in it
        for node in reversed(order):
            if node.item.begin_ns is None and node.children:
                node.begin_ns = min(node.begin_ns, *(child.begin_ns for child in node.children))
        for node in order:
            node.children.sort(key=attrgetter("begin_ns"))
            node.self_ns = node.took_ns - _covered_ns(node)


def _covered_ns(node: Node) -> int:
    """Of its time, in which at least one child ran."""
    covered = 0
    until_ns = node.begin_ns
    for child in node.children:
        begin_ns, end_ns = max(child.begin_ns, until_ns), min(child.end_ns, node.end_ns)
        if end_ns > begin_ns:
            covered += end_ns - begin_ns
            until_ns = end_ns
    return covered


def _mark(root: Node) -> None:
    """From each end back: the child that ended last, then the one that had ended last when that began, and so on."""
    root.critical = True
    stack = [root]
    while stack:
        node = stack.pop()
        at_ns = node.end_ns
        for child in sorted(node.children, key=lambda c: (min(c.end_ns, node.end_ns), c.begin_ns), reverse=True):
            if min(child.end_ns, node.end_ns) <= at_ns and child.begin_ns < at_ns:
                child.critical = True
                stack.append(child)
                at_ns = child.begin_ns
