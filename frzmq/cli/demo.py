"""``frzmq demo``: a small shop of services under load, and what its recorder caught."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from frzmq.cli.common import Subparsers, add_force, command, print_table

if TYPE_CHECKING:
    from frzmq.reader.snapshot import Snapshot

FORMATS = {
    "demo.pftrace.gz": ("perfetto", "the timeline: open it in ui.perfetto.dev"),
    "demo.svg": ("svg", "a picture of the slowest request"),
    "demo.txt": ("text", "line by line"),
}
SLOW = "buy"
"""The operation of a customer."""


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(subparsers, "demo", summary, "  frzmq demo\n  frzmq demo -o /tmp/demo --seconds 20")
    parser.add_argument(
        "-o", "--output", metavar="DIR", default="frzmq-demo", help="where the files go (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", metavar="N", type=float, default=6.0, help="how long customers come (default: %(default)s)"
    )
    add_force(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.cli.export import export
    from frzmq.config import format_size
    from frzmq.demo.shop import run as run_shop
    from frzmq.reader.snapshot import open_snapshot

    directory = Path(args.output)
    files = ["demo.frz", *FORMATS]
    if not args.force:
        for name in files:
            if (directory / name).exists():
                raise FileExistsError(17, "File exists (-f overwrites it)", str(directory / name))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"three services (gateway, orders, inventory) and {args.seconds:g} s of customers ...", flush=True)
    outcome = run_shop(directory, args.seconds, overwrite=args.force)
    with open_snapshot(outcome.snapshot) as snapshot:
        for name, (format_, _) in FORMATS.items():
            export(snapshot, str(directory / name), format_, operation=SLOW, force=args.force)
        _show(snapshot, outcome.requests)
    print()
    for name, (_, what) in {"demo.frz": ("", "the snapshot: frzmq info, validate, export"), **FORMATS}.items():
        path = directory / name
        print(f"{path} ({format_size(path.stat().st_size)}): {what}")
    return 0


def _show(snapshot: Snapshot, requests: int) -> None:
    from frzmq.config import format_duration
    from frzmq.demo.story import tell

    story = tell(snapshot, SLOW)
    ledger = snapshot.ledger
    kinds = f"{len(snapshot.operations)} operations, {len(snapshot.spans)} spans, {len(snapshot.flows)} flows between processes"
    print(f"\ncaught: {requests} requests, {len(snapshot.processes)} processes, {kinds}")
    print(f"records: {ledger.recorded} made, {ledger.held} held, {ledger.lost} lost\n\nthe slowest request")
    rows = [("  " * step.depth + step.name, step.process, format_duration(step.took_ns)) for step in story.steps]
    print_table(("where", "process", "took"), rows, left=2)
    if story.culprit is not None:
        overlap = format_duration(story.culprit.took_ns)
        print(f"\nmeanwhile, for {overlap} of it: {story.culprit.name} in {story.culprit.process} held the database")
