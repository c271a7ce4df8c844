"""``frzmq export``: a snapshot file in another format."""

from __future__ import annotations

import argparse
import io
from typing import IO, TYPE_CHECKING

from frzmq.cli.common import Subparsers, add_force, command, output

if TYPE_CHECKING:
    from frzmq.reader.snapshot import Snapshot

SUFFIXES = {
    ".txt": "text",
    ".pftrace": "perfetto",
    ".pftrace.gz": "perfetto",
    ".perfetto-trace": "perfetto",
    ".svg": "svg",
}


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = "  frzmq export slow.frz -o slow.pftrace.gz     (opens in ui.perfetto.dev)\n  frzmq export slow.frz -o - --format text | less"
    parser = command(subparsers, "export", summary, examples)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="where to; - for standard output")
    parser.add_argument(
        "--format",
        choices=sorted(set(SUFFIXES.values())),
        help=f"default: by the suffix of OUT ({', '.join(SUFFIXES)})",
    )
    parser.add_argument(
        "--operation",
        metavar="NAME",
        help="svg: one operation of this name or id over all its processes, the slowest of several",
    )
    parser.add_argument("--no-align", action="store_true", help="leave the times of other hosts as they were recorded")
    add_force(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.errors import ConfigError
    from frzmq.reader.snapshot import open_snapshot

    format_ = args.format or next((f for suffix, f in SUFFIXES.items() if args.output.endswith(suffix)), None)
    if format_ is None:
        raise ConfigError(f"export: wanted --format, or a name that ends in {', '.join(SUFFIXES)}, got {args.output!r}")
    if args.operation and format_ != "svg":
        raise ConfigError(f"export: --operation is of svg, got {format_}")
    with open_snapshot(args.file, align=not args.no_align) as snapshot:
        export(snapshot, args.output, format_, operation=args.operation, force=args.force)
    return 0


def export(snapshot: Snapshot, path: str, format_: str, *, operation: str | None = None, force: bool = False) -> None:
    """Writes ``path``, packed when its name ends in .gz; ``format_``: one of those of SUFFIXES."""
    with output(path, force=force, durable=False) as file:
        if format_ == "svg":
            _svg(snapshot, file, operation)
        elif format_ == "perfetto":
            _perfetto(snapshot, file, zipped=path.endswith(".gz"))
        else:
            _text(snapshot, file)


def _perfetto(snapshot: Snapshot, file: IO[bytes], *, zipped: bool) -> None:
    import gzip

    from frzmq.export.perfetto import write_perfetto

    if zipped:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            write_perfetto(snapshot, packed.write)
    else:
        write_perfetto(snapshot, file.write)


def _svg(snapshot: Snapshot, file: IO[bytes], operation: str | None) -> None:
    from frzmq.export.svg import write_svg

    write_svg(snapshot, file.write, operation=operation)


def _text(snapshot: Snapshot, file: IO[bytes]) -> None:
    from frzmq.export.text import write_text

    out = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace")
    write_text(snapshot, out)
    out.detach()
