"""``frzmq demo``: a small shop of services under load, and what its recorder caught."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from frzmq.cli.common import Subparsers, add_force, command

NEEDED = ("flask", "starlette", "uvicorn")
FORMATS = {"demo.pftrace.gz": "perfetto", "demo.svg": "svg", "demo.txt": "text"}


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(subparsers, "demo", summary, "  frzmq demo\n  frzmq demo -o /tmp/demo --seconds 20")
    parser.add_argument(
        "-o", "--output", metavar="DIR", default="frzmq-demo", help="where the files go (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", metavar="N", type=float, default=4.0, help="how long customers come (default: %(default)s)"
    )
    add_force(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.cli import main
    from frzmq.errors import ConfigError

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"demo: wanted {', '.join(NEEDED)}, got no {', '.join(missing)}: pip install 'frzmq[demo]'")
    from frzmq.analysis.trees import Forest
    from frzmq.cli.export import export
    from frzmq.demo.shop import run as run_shop
    from frzmq.reader.snapshot import open_snapshot

    directory = Path(args.output)
    if not args.force:
        for name in (*FORMATS, "demo.html"):
            if (directory / name).exists():
                raise FileExistsError(17, "File exists", str(directory / name))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"three services (gateway, orders, inventory) and {args.seconds:g} s of customers ...", flush=True)
    outcome = run_shop(directory, args.seconds)
    if outcome.snapshot is None:
        print(f"{outcome.requests} requests, none of them slow: no trigger, no snapshot. Try more --seconds")
        return 1
    path = str(outcome.snapshot)
    print(f"\n{outcome.requests} requests; the first slow one left {path}\n", flush=True)
    main(["summary", path, "--slowest", "0"])
    print(f"\nfrzmq request {path}\n", flush=True)
    main(["request", path])
    with open_snapshot(path) as snapshot:
        forest = Forest(snapshot)
        [slow, *_] = forest.roots(forest.triggered_by() or "")
        for name, format_ in FORMATS.items():
            export(snapshot, str(directory / name), format_, operation=slow.op, force=args.force)
    main(["report", path, "-o", str(directory / "demo.html"), *(["-f"] if args.force else [])])
    print(f"\nand further, of {path}:\n")
    for line in (
        f"frzmq view {path}              # the timeline, in Perfetto: {directory / 'demo.pftrace.gz'}",
        f"frzmq report {path} -o r.html  # one page for the ticket: {directory / 'demo.html'}",
        f"frzmq export {path} -o s.svg   # the request as a picture: {directory / 'demo.svg'}",
        f"frzmq export {path} -o s.txt   # line by line: {directory / 'demo.txt'}",
    ):
        print(line)
    return 0
