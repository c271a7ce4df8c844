"""``frzmq request``: one operation over all processes, as a tree with its critical path."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from frzmq.cli.common import Subparsers, add_json, command, note, print_json

if TYPE_CHECKING:
    from frzmq.analysis.trees import Forest, Node
    from frzmq.reader.model import Operation
    from frzmq.reader.snapshot import Snapshot

MAX_LINES = 100


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = "  frzmq request slow.frz\n  frzmq request slow.frz 0af7651916cd\n  frzmq request slow.frz --slowest 3"
    parser = command(subparsers, "request", summary, examples)
    parser.add_argument("file", metavar="FILE", help="a snapshot")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "trace",
        metavar="TRACE_ID",
        nargs="?",
        help="of the operation, or its begin (default: what triggered the snapshot, else the slowest)",
    )
    which.add_argument("--slowest", type=int, metavar="N", help="the N-th of the slowest")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.analysis.trees import Forest
    from frzmq.reader.snapshot import open_snapshot

    with open_snapshot(args.file) as snapshot:
        forest = Forest(snapshot)
        try:
            roots = _asked_for(snapshot, forest, args.trace, args.slowest)
        except LookupError as error:
            note(f"request: {error}")
            return 1
        trees = [forest.tree(root) for root in roots]
        if args.json:
            print_json([_facts(forest, tree) for tree in trees])
        else:
            for tree in trees:
                _show(forest, tree)
    return 0


def _asked_for(snapshot: Snapshot, forest: Forest, trace: str | None, slowest: int | None) -> list[Operation]:
    """Raises LookupError."""
    if trace is None and slowest is None:
        trace = forest.triggered_by()
    if trace is not None:
        return _of_trace(snapshot, forest, trace)
    return [_slowest(snapshot, 1 if slowest is None else slowest)]


def _slowest(snapshot: Snapshot, number: int) -> Operation:
    from frzmq.export.slowest import slowest

    found = slowest(snapshot, number) if number > 0 else []
    if len(found) < number or not found:
        raise LookupError(f"wanted the operation number {number} of the slowest, got {len(found)} operations")
    return found[number - 1]


def _of_trace(snapshot: Snapshot, forest: Forest, begin: str) -> list[Operation]:
    traces = {o.trace for o in snapshot.operations if o.trace.startswith(begin.lower())}
    if len(traces) != 1:
        got = "none" if not traces else f"{len(traces)}, such as {' and '.join(sorted(traces)[:2])}"
        raise LookupError(f"wanted one trace that begins with {begin!r:.80}, got {got}")
    return forest.roots(traces.pop())


def _facts(forest: Forest, tree: Node) -> dict[str, Any]:
    from frzmq.analysis.meanwhile import meanwhile
    from frzmq.cli.tables import node_facts
    from frzmq.reader.model import Operation

    snapshot = forest.snapshot
    assert isinstance(tree.item, Operation)
    return {
        "trace": tree.item.trace,
        "tree": node_facts(snapshot, tree),
        "meanwhile": [
            {"name": m.name, "process": snapshot.processes[m.item.process].name, "overlap_ns": m.overlap_ns}
            for m in meanwhile(forest, tree)
        ],
        "lines": [
            {"time_ns": snapshot.wall_ns(at), "process": snapshot.processes[process].name, "kind": kind, "text": text}
            for at, process, kind, text in _said(snapshot, tree)
        ],
    }


def _show(forest: Forest, tree: Node) -> None:
    from frzmq.cli.tables import console, show_meanwhile, show_table, show_tree
    from frzmq.config import format_duration
    from frzmq.export.text import clean, utc
    from frzmq.reader.model import Operation

    out, snapshot = console(), forest.snapshot
    assert isinstance(tree.item, Operation)
    out.print(f"trace {tree.item.trace or '?'}, begun {utc(snapshot.wall_ns(tree.begin_ns))}")
    show_tree(out, snapshot, tree, critical=True)
    show_meanwhile(out, forest, tree)
    lines = _said(snapshot, tree)
    if lines:
        out.print()
        rows = [
            (
                f"+{format_duration(max(0, at - tree.begin_ns))}",
                clean(snapshot.processes[process].name),
                kind,
                clean(text),
            )
            for at, process, kind, text in lines[:MAX_LINES]
        ]
        show_table(out, ("at", "process", "", ""), rows, left=4)
    if len(lines) > MAX_LINES:
        out.print(f"... and {len(lines) - MAX_LINES} more")


def _said(snapshot: Snapshot, tree: Node) -> list[tuple[int, int, str, str]]:
    """``(time, process, kind, text)`` of its logs, events and exceptions, in the order of time."""
    from frzmq.analysis.trees import walk
    from frzmq.export.text import level_name
    from frzmq.reader.model import Operation

    mine = {node.item.number for _, node in walk(tree) if isinstance(node.item, Operation)}
    lines = [
        (log.time_ns, log.process, level_name(log.level), f"{log.logger}: {log.message}")
        for log in snapshot.logs
        if log.operation in mine
    ]
    for event in snapshot.events:
        if event.operation in mine:
            attributes = "".join(f" {name}={value!s}" for name, value in event.attributes.items())
            lines.append((event.time_ns, event.process, "event", event.name + attributes))
    lines += [
        (x.time_ns, x.process, "exception", f"{x.type}: {x.message}")
        for x in snapshot.exceptions
        if x.operation in mine
    ]
    return sorted(lines)
