"""``frzmq recover``: a snapshot of what processes left whose recorder died too."""

from __future__ import annotations

import argparse

from frzmq.cli.common import Subparsers, add_force, command, note, output


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = "  frzmq recover /run/frzmq -o last.frz"
    parser = command(subparsers, "recover", summary, examples)
    parser.add_argument("directory", metavar="DIR", help="a runtime directory in which no recorder runs")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="where to; - for standard output")
    add_force(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; 1 when nothing was left. What is in the file is removed from the directory."""
    from frzmq.clock import machine_id
    from frzmq.recorder.leftovers import recover

    found = recover(args.directory, lambda: output(args.output, force=args.force), machine_id())
    for problem in found.problems:
        note(problem)
    if not found.leftovers:
        note(f"{args.directory}: wanted buffers that dead processes left, got none")
        return 1
    for left in found.leftovers:
        note(f"{left.hello.service}[{left.hello.pid}]: {sum(run.count for run in left.tail.runs)} records")
    return 0
