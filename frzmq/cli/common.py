"""What the sub-commands share: how they are told of a recorder or a file, and how they show what they found."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:
    from frzmq.control.client import ControlClient
    from frzmq.wire.ledger import Ledger

STDOUT = "-"
MAX_CHARS = 2000
"""Of one thing that a peer says."""
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(subparsers: Subparsers, name: str, summary: str, examples: str = "") -> argparse.ArgumentParser:
    """A sub-command's parser; ``examples``: lines that ``--help`` ends with."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        nargs="?",
        help="of the recorder: a runtime directory, ipc://DIRECTORY or tcp://HOST:PORT (default: $FRZMQ_RECORDER, else the user's runtime directory)",
    )
    add_key(parser)


def add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", metavar="FILE", help="the key file for a recorder on tcp that has keys (default: $FRZMQ_KEY)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON; times in ns, sizes in bytes")


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="overwrite the file if it is there")


def client(args: argparse.Namespace, timeout_s: float = 5.0) -> ControlClient:
    """Of the recorder that the command was told of."""
    from frzmq.config import runtime_dir
    from frzmq.control.client import ControlClient

    address = args.address or os.environ.get("FRZMQ_RECORDER") or runtime_dir()
    return ControlClient(address, timeout_s, key=args.key or os.environ.get("FRZMQ_KEY") or None)


def print_json(value: Any) -> None:
    """A frozen dataclass or plain values; bytes as hex."""
    print(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


LEDGER_HEADINGS = ("recorded", "held", "evicted", "open", "lost")


def ledger_row(ledger: Ledger) -> tuple[str, ...]:
    """Cells under `LEDGER_HEADINGS`: what is lost, and what came and was not taken, by cause."""
    causes = ("overwritten", "missing", "late", "dropped", "torn", "duplicate", "rejected")
    lost = ", ".join(f"{count} {cause}" for cause in causes if (count := getattr(ledger, cause)))
    return (str(ledger.recorded), str(ledger.held), str(ledger.evicted), str(ledger.open), lost or "0")


def plain(text: str) -> str:
    """What a peer or a file says, on one line, with nothing in it that a terminal obeys."""
    from frzmq.export.text import clean

    return clean(text, MAX_CHARS)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """The first ``left`` columns to the left, the others, which are numbers, to the right."""
    rows = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for n, heading in enumerate(headings):
            table.add_column(Text(heading), justify="left" if n < left else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = [
            cell.ljust(w) if n < left else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


@contextmanager
def output(path: str, *, force: bool, durable: bool = True) -> Iterator[BinaryIO]:
    """Standard output for STDOUT, else a file that is there whole or not at all, and overwrites one only by ``force``."""
    from frzmq.snapfile.writer import atomic_file, named

    if path == STDOUT:
        with named("standard output"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    with atomic_file(path, overwrite=force, durable=durable) as file:
        yield file


def note(message: str) -> None:
    """A line for people, on standard error."""
    print(f"frzmq: {plain(message)}", file=sys.stderr)
