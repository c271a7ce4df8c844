"""The command line: one module of this package for each sub-command, imported when it is asked for.

Exit codes: 0 good; 1 the answer is no, or the recorder's; 2 it could not be asked: wrong usage, a bad file. What goes wrong is one line on standard error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "recorder": "keep the last seconds of the programs that record into it",
    "run": "record a program and its children",
    "status": "what a recorder and its processes do",
    "start": "let a recorder record again",
    "stop": "let a recorder record nothing",
    "flush": "bring everything recorded so far into the recorder",
    "snapshot": "write what a recorder holds to a file",
    "summary": "what a snapshot file is about: the slowest, what hung, what failed",
    "request": "one request of a snapshot file over all its processes, as a tree",
    "info": "what is in a snapshot file",
    "validate": "check a snapshot file",
    "export": "turn a snapshot file into text, or a timeline for Perfetto, or a picture",
    "report": "turn a snapshot file into a page of HTML that needs no network",
    "view": "show a snapshot file in Perfetto, in the browser",
    "keys": "say who may talk to a recorder on tcp, and as what",
    "doctor": "look whether a place is fit to record in",
    "recover": "make a snapshot of what processes left whose recorder died too",
    "demo": "run a small shop of services and catch its slow requests",
    "completion": "say what a shell needs to complete the command line",
}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``frzmq COMMAND ...``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = arguments[0] if arguments and arguments[0] in COMMANDS else None
    parser = _parser(named)
    try:
        args = parser.parse_args(arguments if named != "run" else _split_program(arguments))
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # who read it has enough: the interpreter must not complain about it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  # a bug of ours is raised again
        return _failed(error)


def _parser(named: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="frzmq",
        description="The flight recorder for Python services.",
        epilog="frzmq COMMAND --help says more about each.",
    )
    parser.add_argument("--version", action=_Version)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name == named:
            module = importlib.import_module(f"frzmq.cli.{name}")
            module.add_parser(subparsers, summary)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


class _Version(argparse.Action):
    """``--version``, which is looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="say the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import frzmq

        print(f"frzmq {frzmq.__version__}")
        parser.exit()


def _split_program(arguments: list[str]) -> list[str]:
    """``run OPTIONS PROGRAM...`` with a mark before the program, whose own options are none of ours."""
    from frzmq.cli.run import program_start

    at = program_start(arguments)
    return [*arguments[:at], "--", *arguments[at:]]


def _failed(error: Exception) -> int:
    """One line for what people can do something about; a traceback for a bug of ours."""
    from frzmq.cli.common import note
    from frzmq.errors import ControlError, FrzmqError, os_error_text

    if isinstance(error, OSError):
        message = os_error_text(error)
    elif isinstance(error, FrzmqError):
        message = str(error)
    else:
        raise error
    note(message)
    return 1 if isinstance(error, ControlError) else 2
