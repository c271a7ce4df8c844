"""``frzmq doctor``: is this place fit to record in?"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from frzmq.cli.common import Subparsers, add_json, add_key, command, plain, print_json

if TYPE_CHECKING:
    from frzmq.doctor.checks import Finding


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = "  frzmq doctor\n  frzmq doctor --recorder tcp://127.0.0.1:7171 --processes 32"
    parser = command(subparsers, "doctor", summary, examples)
    parser.add_argument(
        "--recorder",
        metavar="ADDRESS",
        help="to be reached from here (default: $FRZMQ_RECORDER, else the user's runtime directory)",
    )
    parser.add_argument(
        "--processes", metavar="N", help="so many are to record here (default: one for each processor, and one)"
    )
    add_key(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when nothing is a problem, else 1."""
    from frzmq.config import parse_count
    from frzmq.doctor.checks import findings
    from frzmq.doctor.look import look

    processes = parse_count(args.processes, "--processes") if args.processes else (os.cpu_count() or 1) + 1
    found = findings(look(args.recorder, args.key, processes, os.environ))
    if args.json:
        print_json({"findings": found})
    else:
        _show(found)
    return 1 if any(finding.level == "problem" for finding in found) else 0


def _show(found: list[Finding]) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        print(f"{finding.level:8} {finding.check:{width}}  {plain(finding.found)}")
        if finding.level != "ok":
            print(f"{'':8} {'':{width}}  {finding.advice}")
