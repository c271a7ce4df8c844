"""``frzmq stop``: let a recorder record nothing."""

from __future__ import annotations

import argparse

from frzmq.cli.common import Subparsers, add_address, client, command


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(subparsers, "stop", f"{summary}; what it held is gone, and it goes on serving")
    add_address(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1, too, when an error had stopped the recording of a process before: it says which."""
    with client(args) as recorder:
        recorder.stop()
    print("stopped")
    return 0
