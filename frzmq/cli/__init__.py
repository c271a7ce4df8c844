"""The command line: one module of this package for each sub-command, imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = ("recorder",)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``frzmq COMMAND ...``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="frzmq", description="The flight recorder for Python services.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    named = [arguments[0]] if arguments and arguments[0] in COMMANDS else COMMANDS
    for name in named:
        importlib.import_module(f"frzmq.cli.{name}").add_parser(subparsers)
    args = parser.parse_args(arguments)
    code: int = args.run(args)
    return code
