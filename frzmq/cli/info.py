"""``frzmq info``: what is in a snapshot file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from frzmq.cli.common import LEDGER_HEADINGS, Subparsers, add_json, command, ledger_row, print_json, print_table

if TYPE_CHECKING:
    from frzmq.reader.model import Operation
    from frzmq.reader.snapshot import Snapshot

COUNTED = ("threads", "operations", "spans", "calls", "events", "logs", "exceptions", "gauges", "flows", "gaps")
MAX_RANGES = 4


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(subparsers, "info", summary, "  frzmq info slow.frz\n  frzmq info slow.frz --json")
    parser.add_argument("file", metavar="FILE")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.reader.snapshot import open_snapshot

    with open_snapshot(args.file) as snapshot:
        if args.json:
            print_json(_facts(snapshot))
        else:
            _show(snapshot)
    return 0


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    from frzmq.export.slowest import slowest
    from frzmq.reader.certificate import certificate

    header = snapshot.header
    return {
        "file": snapshot.path,
        "size_bytes": snapshot.size_bytes,
        "reason": header.reason,
        "recorder_version": header.recorder_version,
        "host": header.host,
        "created_wall_ns": header.created_wall_ns,
        "created_monotonic_ns": header.created_monotonic_ns,
        "begin_ns": snapshot.begin_ns,
        "end_ns": snapshot.end_ns,
        "horizon_ns": snapshot.horizon_ns,
        "min_age_ns": header.min_age_ns,
        "max_bytes": header.max_bytes,
        "missing": header.missing,
        "certificate": certificate(header),
        "problems": snapshot.problems,
        "processes": snapshot.processes,
        "ledger": snapshot.ledger,
        "counts": {name: len(getattr(snapshot, name)) for name in COUNTED},
        "call_filters": snapshot.call_filters,
        "quiet_calls": snapshot.quiet_calls,
        "slowest_operations": slowest(snapshot),
        "gaps": snapshot.gaps,
    }


def _show(snapshot: Snapshot) -> None:
    from frzmq.config import format_duration, format_size
    from frzmq.export.functions import filter_text
    from frzmq.export.slowest import slowest
    from frzmq.export.text import clean, utc

    header = snapshot.header
    print(
        f"{snapshot.path}: {format_size(snapshot.size_bytes)}, made {utc(header.created_wall_ns)} on {clean(header.host)}"
    )
    if header.reason:
        print(f"reason: {clean(header.reason)}")
    if snapshot.horizon_ns:
        print(
            f"complete for the last {format_duration(max(0, snapshot.end_ns - snapshot.horizon_ns))} of its {len(snapshot.processes)} processes"
        )
    else:
        print(f"holds no records of its {len(snapshot.processes)} processes")
    _show_certificate(snapshot)
    print(", ".join(f"{len(getattr(snapshot, name))} {name}" for name in COUNTED))
    if snapshot.processes:
        _show_processes(snapshot)
    if operations := slowest(snapshot):
        print("\nslowest operations")
        print_table(("operation", "process", "took"), [_operation_row(snapshot, o) for o in operations], left=2)
    for process in snapshot.processes:
        if process.clock.source != "same machine":
            error = "" if process.clock.error_ns is None else f" +- {format_duration(process.clock.error_ns)}"
            print(
                f"clock of {clean(process.name)}: {process.clock.source}, {format_duration(process.clock.offset_ns)}{error}"
            )
        if process.error:
            print(f"{clean(process.name)}: {clean(process.error)}")
    for each in snapshot.call_filters:
        print(clean(filter_text(snapshot, each)))
    quiet = {(each.process, each.code) for each in snapshot.quiet_calls}
    if quiet:
        print(f"calls of {len(quiet)} functions were too frequent to be recorded, and counted")
    for name in header.missing:
        print(f"missing: the last moments of {clean(name)}")
    for problem in snapshot.problems:
        print(f"problem: {clean(problem)}")


def _show_processes(snapshot: Snapshot) -> None:
    """What is certified of each, then where its records are."""
    from frzmq.config import format_duration
    from frzmq.export.text import clean
    from frzmq.reader.certificate import certificate
    from frzmq.wire.ledger import writers_disagree

    rows = []
    for process, about in zip(snapshot.processes, certificate(snapshot.header).streams, strict=True):
        ago_ns = max(0, snapshot.end_ns - about.horizon_ns)
        complete = f"the last {format_duration(ago_ns)}" if about.horizon_ns else "nothing"
        name, program = clean(process.name), clean(process.program)
        rows.append((name, program, about.state, about.answer or "not asked", complete, _batches(about.tseqs)))
    print()
    print_table(("process", "program", "state", "flush", "complete", "batches"), rows, left=6)
    print()
    print_table(
        ("process", *LEDGER_HEADINGS),
        [(clean(process.name), *ledger_row(process.ledger)) for process in snapshot.processes],
    )
    print(snapshot.ledger.equation)
    for process in snapshot.processes:
        wrong = "" if process.ledger.balanced else process.ledger.equation
        if wrong := wrong or writers_disagree(process.ledger, process.writers, process.other_writers):
            print(f"WRONG: {clean(process.name)}: {wrong}")


def _batches(tseqs: tuple[tuple[int, int], ...]) -> str:
    """``1..9, 12..40``, with the first ones left out where there are many."""
    shown = ", ".join(f"{start}..{end - 1}" for start, end in tseqs[-MAX_RANGES:])
    return f"... {shown}" if len(tseqs) > MAX_RANGES else shown or "none"


def _show_certificate(snapshot: Snapshot) -> None:
    from frzmq.reader.certificate import certificate

    found = certificate(snapshot.header)
    parts = (("answered", found.answered), ("read from their buffers", found.read), ("missing", found.missing))
    answers = ", ".join(f"{len(names)} {what}" for what, names in parts if names)
    dead = f"; {len(found.dead)} dead" if found.dead else ""
    print(f"processes: {len(found.expected)} expected{f' ({answers})' if answers else ''}{dead}")
    print(f"lost: {', '.join(f'{count} {cause}' for cause, count in found.lost.items()) or 'nothing'}")


def _operation_row(snapshot: Snapshot, operation: Operation) -> tuple[str, str, str]:
    from frzmq.config import format_duration
    from frzmq.export.text import clean

    took = format_duration(snapshot.took_ns(operation)) + (
        "" if operation.end_ns is not None else ", and had not ended"
    )
    failed = f" ({clean(operation.error)})" if operation.error else ""
    return clean(operation.name) + failed, clean(snapshot.processes[operation.process].name), took
