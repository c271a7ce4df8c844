"""``frzmq start``: let a recorder record again."""

from __future__ import annotations

import argparse

from frzmq.cli.common import Subparsers, add_address, client, command


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(subparsers, "start", summary)
    add_address(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with client(args) as recorder:
        recorder.start()
    print("recording")
    return 0
