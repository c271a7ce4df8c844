"""``frzmq snapshot``: write what a recorder holds to a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from frzmq.cli.common import STDOUT, Subparsers, add_address, add_force, client, command, note, output


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = "  frzmq snapshot -o slow.frz --reason 'checkout takes 3 s'\n  frzmq snapshot tcp://127.0.0.1:7171 -o last.frz --last 10s"
    parser = command(subparsers, "snapshot", summary, examples)
    add_address(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="where to, such as snapshot.frz; - for standard output"
    )
    parser.add_argument(
        "--last",
        metavar="DURATION",
        default="0s",
        help="only what reaches into the last so many seconds (default: all)",
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="kept in the snapshot")
    add_force(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.config import format_size, parse_duration

    last_ns = parse_duration(args.last, "--last")
    with client(args) as recorder, _progress() as progress, output(args.output, force=args.force) as file:
        end = recorder.snapshot(file, reason=args.reason, last_ns=last_ns, progress=progress)
    for name in end.missing:
        note(f"missing: the last moments of {name}, which did not answer in time")
    if args.output != STDOUT:
        print(f"{args.output}: {format_size(end.size_bytes)}")
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[int], object] | None]:
    """Shows the bytes as they come, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("snapshot"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("snapshot", total=None)
        yield lambda size_bytes: bar.update(task, completed=size_bytes)
