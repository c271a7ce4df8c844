"""``frzmq info``: what is in a snapshot file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from frzmq.cli.common import Subparsers, add_json, command, print_json, print_table

if TYPE_CHECKING:
    from frzmq.reader.model import Operation, Process
    from frzmq.reader.snapshot import Snapshot

LEDGER = (
    "recorded",
    "held",
    "evicted",
    "overwritten",
    "missing",
    "late",
    "open",
    "dropped",
    "duplicate",
    "rejected",
    "torn",
)
COUNTED = ("threads", "operations", "spans", "calls", "events", "logs", "exceptions", "gauges", "flows", "gaps")


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
        print()
        print_table(("process", "program", "state", *LEDGER), [_row(process) for process in snapshot.processes], left=3)
        _show_identity(snapshot)
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


def _show_certificate(snapshot: Snapshot) -> None:
    from frzmq.reader.certificate import certificate

    found = certificate(snapshot.header)
    parts = (("answered", found.answered), ("read from their buffers", found.read), ("missing", found.missing))
    answers = ", ".join(f"{len(names)} {what}" for what, names in parts if names)
    dead = f"; {len(found.dead)} dead" if found.dead else ""
    print(f"processes: {len(found.expected)} expected{f' ({answers})' if answers else ''}{dead}")
    print(f"lost: {', '.join(f'{count} {cause}' for cause, count in found.lost.items()) or 'nothing'}")


def _show_identity(snapshot: Snapshot) -> None:
    from frzmq.export.text import clean

    wrong = [clean(process.name) for process in snapshot.processes if not process.ledger.balanced]
    total = snapshot.ledger
    print(
        f"recorded {total.recorded} = held {total.held} + evicted {total.evicted} + overwritten {total.overwritten}"
        f" + missing {total.missing} + late {total.late} + open {total.open}"
        + (f": WRONG for {', '.join(wrong)}" if wrong else "")
    )


def _row(process: Process) -> tuple[str, ...]:
    from frzmq.export.text import clean

    return (
        clean(process.name),
        clean(process.program),
        process.state,
        *(str(getattr(process.ledger, name)) for name in LEDGER),
    )


def _operation_row(snapshot: Snapshot, operation: Operation) -> tuple[str, str, str]:
    from frzmq.config import format_duration
    from frzmq.export.text import clean

    took = format_duration(snapshot.took_ns(operation)) + (
        "" if operation.end_ns is not None else ", and had not ended"
    )
    failed = f" ({clean(operation.error)})" if operation.error else ""
    return clean(operation.name) + failed, clean(snapshot.processes[operation.process].name), took
