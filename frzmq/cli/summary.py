"""``frzmq summary``: what a snapshot is about, for the person on call."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from frzmq.cli.common import Subparsers, add_json, command, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from frzmq.analysis.trees import Forest, Node
    from frzmq.reader.model import Call, Log, Operation, Span
    from frzmq.reader.snapshot import Snapshot

SLOWEST = 3
MAX_OPEN = 20
MAX_ERRORS = 20
MAX_LOGS = 20
MAX_STATS = 30
MAX_FUNCTIONS = 20
MAX_GAPS = 10


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(
        subparsers, "summary", summary, "  frzmq summary slow.frz\n  frzmq summary slow.frz --slowest 10 --json"
    )
    parser.add_argument("file", metavar="FILE", help="a snapshot")
    parser.add_argument(
        "--slowest", type=int, default=SLOWEST, metavar="N", help="so many operations as trees (default: %(default)s)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.analysis.trees import Forest
    from frzmq.export.slowest import slowest
    from frzmq.reader.snapshot import open_snapshot

    with open_snapshot(args.file) as snapshot:
        forest = Forest(snapshot)
        trees = [forest.tree(operation) for operation in slowest(snapshot, max(0, args.slowest))]
        if args.json:
            print_json(_facts(snapshot, trees))
        else:
            _show(forest, trees)
    return 0


def _open(snapshot: Snapshot) -> list[Operation | Span | Call]:
    """What had not ended, longest first; of what is inside of each other only the innermost, where it hangs."""
    around = {o.parent for o in snapshot.operations if o.end_ns is None}
    around_spans = {s.parent for s in snapshot.spans if s.end_ns is None}
    with_spans = {s.operation for s in snapshot.spans if s.end_ns is None}
    found: list[Operation | Span | Call] = [
        o for o in snapshot.operations if o.end_ns is None and o.number not in around | with_spans
    ]
    found += [s for s in snapshot.spans if s.end_ns is None and s.number not in around_spans]
    innermost: dict[int, Call] = {}
    for call in snapshot.calls:
        if call.end_ns is None and (call.track not in innermost or call.depth >= innermost[call.track].depth):
            innermost[call.track] = call
    found += innermost.values()
    return sorted(found, key=snapshot.took_ns, reverse=True)


def _errors(snapshot: Snapshot) -> list[tuple[int, str, str, str]]:
    """``(times, what, error, process)``, the most frequent first."""
    counts: dict[tuple[str, str, str], int] = {}
    for what, items in (("operation", snapshot.operations), ("span", snapshot.spans)):
        for item in items:
            if item.error:
                key = (f"{what} {item.name}", item.error, snapshot.processes[item.process].name)
                counts[key] = counts.get(key, 0) + 1
    for x in snapshot.exceptions:
        key = (f"uncaught ({x.where})", f"{x.type}: {x.message}", snapshot.processes[x.process].name)
        counts[key] = counts.get(key, 0) + 1
    return sorted(((count, *key) for key, count in counts.items()), key=lambda row: (-row[0], row[1:]))


def _logs(snapshot: Snapshot, trees: list[Node]) -> list[Log]:
    """Of the slowest operation."""
    from frzmq.analysis.trees import walk
    from frzmq.reader.model import Operation

    if not trees:
        return []
    mine = {node.item.number for _, node in walk(trees[0]) if isinstance(node.item, Operation)}
    return [log for log in snapshot.logs if log.operation in mine]


def _facts(snapshot: Snapshot, trees: list[Node]) -> dict[str, Any]:
    from frzmq.analysis.services import operation_stats
    from frzmq.cli.tables import node_facts
    from frzmq.export.functions import functions
    from frzmq.reader.deaths import deaths
    from frzmq.wire.ledger import LOST

    header, ledger = snapshot.header, snapshot.ledger
    return {
        "file": snapshot.path,
        "reason": header.reason,
        "created_ns": header.created_wall_ns,
        "horizon_ns": snapshot.wall_ns(snapshot.horizon_ns) if snapshot.horizon_ns else None,
        "missing": list(header.missing),
        "records": {name: getattr(ledger, name) for name in ("recorded", "held", "evicted", "open", *LOST, "rejected")},
        "gaps": [
            {
                "process": snapshot.processes[gap.process].name,
                "thread": gap.writer,
                "cause": gap.cause,
                "count": gap.count,
                "begin_ns": snapshot.wall_ns(gap.begin_ns),
                "end_ns": snapshot.wall_ns(gap.end_ns),
                "detail": gap.detail,
            }
            for gap in snapshot.gaps
        ],
        "slowest": [node_facts(snapshot, tree) for tree in trees],
        "open": [
            {
                "name": item.name,
                "process": snapshot.processes[item.process].name,
                "since_ns": snapshot.wall_ns(item.begin_ns) if item.begin_ns is not None else None,
                "took_ns": snapshot.took_ns(item),
            }
            for item in _open(snapshot)
        ],
        "deaths": [
            {
                "process": death.process.name,
                "error": death.process.error,
                "open": [{"name": o.name, "trace": o.trace} for o in death.open],
                "touched": [
                    {"name": o.name, "process": snapshot.processes[o.process].name, "trace": o.trace, "error": o.error}
                    for o in death.touched
                ],
            }
            for death in deaths(snapshot)
        ],
        "errors": [
            {"count": count, "what": what, "error": error, "process": process}
            for count, what, error, process in _errors(snapshot)
        ],
        "logs": [
            {
                "time_ns": snapshot.wall_ns(log.time_ns),
                "process": snapshot.processes[log.process].name,
                "level": log.level,
                "logger": log.logger,
                "message": log.message,
            }
            for log in _logs(snapshot, trees)
        ],
        "functions": functions(snapshot)[:MAX_FUNCTIONS],
        "services": operation_stats(snapshot),
    }


def _show(forest: Forest, trees: list[Node]) -> None:
    from frzmq.cli.tables import console, show_meanwhile, show_tree

    out, snapshot = console(), forest.snapshot
    _show_head(out, snapshot)
    for n, tree in enumerate(trees, 1):
        out.print()
        out.print(f"slowest {n}: trace {getattr(tree.item, 'trace', '') or '?'}", style="bold")
        show_tree(out, snapshot, tree)
        show_meanwhile(out, forest, tree)
    _show_deaths(out, snapshot)
    _show_open(out, snapshot)
    _show_errors(out, snapshot)
    _show_logs(out, snapshot, trees)
    _show_gaps(out, snapshot)
    _show_services(out, snapshot)
    _show_functions(out, snapshot)


def _show_head(out: Console, snapshot: Snapshot) -> None:
    from frzmq.config import format_duration
    from frzmq.export.text import clean, utc
    from frzmq.wire.ledger import LOST

    header, ledger = snapshot.header, snapshot.ledger
    out.print(f"made {utc(header.created_wall_ns)} on {clean(header.host)}, {len(snapshot.processes)} processes")
    if header.reason:
        out.print(f"reason: {clean(header.reason)}")
    if snapshot.horizon_ns:
        complete = format_duration(max(0, snapshot.end_ns - snapshot.horizon_ns))
        out.print(f"complete for the last {complete}; {ledger.held} records")
    lost = [f"{count} {cause}" for cause in LOST if (count := getattr(ledger, cause))]
    out.print(f"lost: {', '.join(lost)}" if lost else "lost: nothing")
    for name in header.missing:
        out.print(f"missing: the last moments of {clean(name)}")


def _show_gaps(out: Console, snapshot: Snapshot) -> None:
    """Those in which the most is lost first; of unknown size before all."""
    from frzmq.cli.tables import show_table
    from frzmq.config import format_duration
    from frzmq.export.text import clean, lost_text

    found = sorted(snapshot.gaps, key=lambda gap: (gap.count is not None, -(gap.count or 0), gap.begin_ns))
    if not found:
        return
    out.print()
    threads = {(t.process, t.writer): clean(t.name) for t in snapshot.threads}
    rows = [
        (
            f"{lost_text(gap)}{f': {clean(gap.detail)}' if gap.detail else ''}",
            clean(snapshot.processes[gap.process].name),
            "all" if gap.writer is None else threads.get((gap.process, gap.writer)) or f"thread {gap.writer}",
            f"-{format_duration(max(0, snapshot.end_ns - gap.begin_ns))}",
            format_duration(gap.end_ns - gap.begin_ns) if gap.end_ns > gap.begin_ns else "0",
        )
        for gap in found[:MAX_GAPS]
    ]
    show_table(out, ("gap", "process", "thread", "from", "for"), rows, left=3)
    _more(out, len(found) - MAX_GAPS)


def _show_deaths(out: Console, snapshot: Snapshot) -> None:
    from frzmq.cli.tables import show_table
    from frzmq.export.text import clean
    from frzmq.reader.deaths import deaths

    found = deaths(snapshot)
    if not found:
        return
    out.print()
    rows = []
    for death in found:
        name, error = clean(death.process.name), clean(death.process.error)
        rows.append((name, error, ", ".join(clean(o.name) or "?" for o in death.open[:MAX_OPEN])))
        rows += [
            ("", f"touched: {clean(snapshot.processes[o.process].name)}", clean(o.name) or "?")
            for o in death.touched[:MAX_OPEN]
        ]
    show_table(out, ("died", "how", "in the midst of"), rows[:MAX_OPEN], left=3)
    _more(out, len(rows) - MAX_OPEN)


def _show_open(out: Console, snapshot: Snapshot) -> None:
    from frzmq.cli.tables import show_table
    from frzmq.config import format_duration
    from frzmq.export.text import clean

    found = _open(snapshot)
    if not found:
        return
    out.print()
    rows = [
        (clean(item.name) or "?", clean(snapshot.processes[item.process].name), format_duration(snapshot.took_ns(item)))
        for item in found[:MAX_OPEN]
    ]
    show_table(out, ("had not ended", "process", "for"), rows, left=2)
    _more(out, len(found) - MAX_OPEN)


def _show_errors(out: Console, snapshot: Snapshot) -> None:
    from frzmq.cli.tables import show_table
    from frzmq.export.text import clean

    found = _errors(snapshot)
    if not found:
        return
    out.print()
    rows = [(clean(what), clean(error), clean(process), str(n)) for n, what, error, process in found[:MAX_ERRORS]]
    show_table(out, ("failed", "error", "process", "times"), rows, left=3)
    _more(out, len(found) - MAX_ERRORS)


def _show_logs(out: Console, snapshot: Snapshot, trees: list[Node]) -> None:
    from frzmq.cli.tables import show_table
    from frzmq.config import format_duration
    from frzmq.export.text import clean, level_name

    found = _logs(snapshot, trees)
    if not found:
        return
    out.print()
    rows = [
        (
            f"+{format_duration(max(0, log.time_ns - trees[0].begin_ns))}",
            level_name(log.level),
            clean(f"{log.logger}: {log.message}"),
        )
        for log in found[:MAX_LOGS]
    ]
    show_table(out, ("log of the slowest", "", ""), rows, left=3)
    _more(out, len(found) - MAX_LOGS)


def _show_services(out: Console, snapshot: Snapshot) -> None:
    from frzmq.analysis.services import operation_stats
    from frzmq.cli.tables import show_table
    from frzmq.config import format_duration
    from frzmq.export.text import clean

    found = operation_stats(snapshot)
    if not found:
        return
    out.print()

    def shown(took_ns: int | None) -> str:
        return "" if took_ns is None else format_duration(took_ns)

    rows = [
        (
            clean(s.service),
            clean(s.name) or "?",
            str(s.count),
            str(s.errors or ""),
            *map(shown, (s.p50_ns, s.p99_ns, s.longest_ns)),
        )
        for s in found[:MAX_STATS]
    ]
    show_table(out, ("service", "operation", "count", "errors", "p50", "p99", "longest"), rows, left=2)
    _more(out, len(found) - MAX_STATS)


def _show_functions(out: Console, snapshot: Snapshot) -> None:
    from frzmq.cli.tables import show_table
    from frzmq.config import format_duration
    from frzmq.export.functions import filter_text, functions, quiet_text
    from frzmq.export.text import clean

    for each in snapshot.call_filters:
        out.print(f"\n{clean(filter_text(snapshot, each))}", highlight=False, markup=False)
    found = functions(snapshot)
    if not found:
        return
    rows = [
        (
            clean(f.code.name),
            clean(snapshot.processes[f.process].name),
            str(f.count),
            quiet_text(f),
            str(f.errors or ""),
            format_duration(max(0, f.self_ns)),
            format_duration(f.total_ns),
        )
        for f in found[:MAX_FUNCTIONS]
    ]
    headings = ("function", "process", "calls", "not recorded", "errors", "in it", "with its calls")
    show_table(out, headings, rows, left=2)
    _more(out, len(found) - MAX_FUNCTIONS)


def _more(out: Console, count: int) -> None:
    if count > 0:
        out.print(f"... and {count} more")
