"""``frzmq status``: what a recorder and its processes do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from frzmq.cli.common import (
    LEDGER_HEADINGS,
    Subparsers,
    add_address,
    add_json,
    client,
    command,
    ledger_row,
    plain,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from frzmq.wire.messages import Status, TracerStatus


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(subparsers, "status", summary, "  frzmq status\n  frzmq status tcp://127.0.0.1:7171 --json")
    add_address(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with client(args) as recorder:
        status = recorder.status(writers=args.json)
    if args.json:
        print_json(status)
    else:
        _show(status)
    return 0


def _show(status: Status) -> None:
    from frzmq.config import format_duration, format_size

    def since(time_ns: int) -> str:
        return format_duration(max(0, status.now_ns - time_ns))

    print(
        f"recorder {status.pid}, version {plain(status.version)}, {plain(status.state)}, up {since(status.started_ns)}"
    )
    held = "nothing" if not status.horizon_ns else f"the last {since(status.horizon_ns)}"
    print(
        f"holds {held} of {len(status.tracers)} processes in {format_size(status.held_bytes)}"
        f" (wanted: {format_duration(status.min_age_ns)} in at most {format_size(status.max_bytes)})"
    )
    print(f"takes {status.records_per_s} records, {format_size(status.bytes_per_s)} a second")
    if status.rejected_frames:
        print(f"rejected {status.rejected_frames} frames that no known process can have sent")
    if status.reports:
        last = f", the last {plain(status.stored_last)}" if status.stored_last else ""
        print(
            f"triggers: {status.reports} reports, {status.suppressed} suppressed, {status.stored} snapshots left{last}"
        )
    if status.tracers:
        print()
        headings = (
            "process",
            "state",
            "buffer",
            "horizon",
            *LEDGER_HEADINGS,
            "size",
            "agent CPU",
        )
        print_table(headings, [_row(tracer, status) for tracer in status.tracers], left=3)
    for tracer in status.tracers:
        if not tracer.ledger.balanced:
            print(plain(f"WRONG: {name_of(tracer)}: {tracer.ledger.equation}"))
        if tracer.error:
            print(plain(f"{name_of(tracer)}: {tracer.error}"))
        if tracer.agent_errors:
            print(plain(f"{name_of(tracer)}: {tracer.agent_errors} faults of its agent"))
        if tracer.trigger_problem:
            print(plain(f"{name_of(tracer)}: trigger: {tracer.trigger_problem}"))
    for error in status.errors:
        print(plain(f"error: {error}"))


def name_of(tracer: TracerStatus) -> str:
    return f"{tracer.service}[{tracer.pid}]"


def _row(tracer: TracerStatus, status: Status) -> tuple[str, ...]:
    from frzmq.config import format_duration, format_size

    age_ns = max(1, status.now_ns - tracer.joined_ns)
    return (
        name_of(tracer),
        tracer.state,
        f"{tracer.buffer_kind or '?'} {format_size(tracer.buffer_bytes)}",
        format_duration(max(0, status.now_ns - tracer.horizon_ns)) if tracer.horizon_ns else "nothing",
        *ledger_row(tracer.ledger),
        format_size(tracer.held_bytes),
        f"{100 * tracer.agent_cpu_ns / age_ns:.2f}%",
    )
