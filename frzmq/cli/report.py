"""``frzmq report``: a snapshot file as a page to read and to send."""

from __future__ import annotations

import argparse

from frzmq.cli.common import Subparsers, add_force, command, output


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(subparsers, "report", summary, "  frzmq report slow.frz -o slow.html")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="where to; - for standard output")
    add_force(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.export.report import write_report
    from frzmq.reader.snapshot import open_snapshot

    with open_snapshot(args.file) as snapshot, output(args.output, force=args.force, durable=False) as file:
        write_report(snapshot, file.write)
    return 0
