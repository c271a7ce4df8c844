"""``frzmq flush``: bring everything recorded so far into the recorder."""

from __future__ import annotations

import argparse

from frzmq.cli.common import Subparsers, add_address, add_json, client, command, note, print_json


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(subparsers, "flush", summary, "  frzmq flush --timeout 2s")
    add_address(parser)
    add_json(parser)
    parser.add_argument(
        "--double", action="store_true", help="advance twice, also where the processes announce the end of a generation"
    )
    parser.add_argument(
        "--timeout", metavar="DURATION", default="5s", help="wait no longer for a process (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.config import parse_duration

    timeout_s = parse_duration(args.timeout, "--timeout") / 1e9
    with client(args) as recorder:
        reply = recorder.flush(timeout_s, double=args.double)
    if args.json:
        print_json(reply)
    else:
        print("flushed")
        for name in reply.missing:
            note(f"missing: {name} did not answer within {args.timeout}")
    return 0
