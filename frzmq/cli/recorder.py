"""``frzmq recorder``: serve until told to end."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import Any

from frzmq.cli.common import Subparsers, command
from frzmq.config import RecorderConfig, StoreConfig, parse_count, parse_duration, parse_size, runtime_dir
from frzmq.errors import ConfigError
from frzmq.triggers import parse_triggers

_STDIN = 0


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = "  frzmq recorder\n  frzmq recorder --listen tcp://127.0.0.1:7171 --min-age 5m --max-bytes 512M"
    parser = command(subparsers, "recorder", summary, examples)
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="a runtime directory, ipc://DIRECTORY or tcp://HOST:PORT (default: the user's runtime directory)",
    )
    parser.add_argument(
        "--min-age",
        default="60s",
        metavar="DURATION",
        help="how long to keep what was recorded, if max-bytes allows it (default: %(default)s)",
    )
    parser.add_argument(
        "--max-bytes",
        default="64M",
        metavar="SIZE",
        help="how much to keep at the most; wins over min-age (default: %(default)s)",
    )
    parser.add_argument(
        "--max-generation-bytes",
        default="0",
        metavar="SIZE",
        help="a generation that grows past it is ended early (default: an eighth of max-bytes)",
    )
    parser.add_argument(
        "--trigger",
        action="append",
        default=[],
        metavar="TRIGGER",
        help="leave a snapshot when this is so in a process, such as 'slow 500ms' or 'error' (again for more; docs/triggers.md)",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file with triggers, and where their snapshots go (docs/triggers.md)"
    )
    parser.add_argument(
        "--snapshots",
        metavar="DIR",
        help="where triggers leave snapshots (default: frzmq in the user's state directory)",
    )
    parser.add_argument(
        "--no-death-snapshots",
        action="store_true",
        help="leave none when a process dies; by default one is left unless it was ended by SIGTERM, SIGINT or SIGHUP",
    )
    parser.add_argument("--keep-count", metavar="N", help="of these so many stay at the most (default: 50)")
    parser.add_argument("--keep-age", metavar="DURATION", help="they stay no longer (default: 7d)")
    parser.add_argument("--keep-bytes", metavar="SIZE", help="they take no more (default: 1G)")
    parser.add_argument(
        "--metrics",
        metavar="ADDRESS",
        help="HOST:PORT, or PORT of this host, where Prometheus may ask (needs frzmq[metrics]; docs/running.md)",
    )
    parser.add_argument(
        "--keys",
        metavar="DIR",
        help="on tcp: take only those whose keys are in this directory (frzmq keys; docs/keys.md)",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="listen on tcp without keys, and for --metrics, beyond this host: anybody can read, and forge what is not metrics",
    )
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="end when standard input does; for a program that starts its own recorder",
    )
    parser.add_argument(
        "--remove-dir", action="store_true", help="with --embedded: remove the runtime directory at the end"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 after a graceful end, 2 when it cannot serve."""
    from frzmq.recorder.log import log
    from frzmq.recorder.serve import run_recorder
    from frzmq.transport.addresses import parse_address

    try:
        address = args.listen or str(runtime_dir())
        endpoints = parse_address(address)
        if args.remove_dir and not (args.embedded and args.listen and endpoints.directory):
            raise ConfigError("--remove-dir: wanted --embedded and --listen with a directory")
        run_recorder(
            _config(args),
            address,
            ready=lambda: _say_ready(endpoints.address),
            parent_fd=_STDIN if args.embedded else None,
            siblings=args.remove_dir,
            metrics=args.metrics,
        )
    except ConfigError as error:
        log(str(error))
        return 2
    if args.remove_dir and endpoints.directory is not None:
        shutil.rmtree(endpoints.directory, ignore_errors=True)
    return 0


def _config(args: argparse.Namespace) -> RecorderConfig:
    return RecorderConfig(
        min_age_ns=parse_duration(args.min_age, "--min-age"),
        max_bytes=parse_size(args.max_bytes, "--max-bytes"),
        max_generation_bytes=parse_size(args.max_generation_bytes, "--max-generation-bytes"),
        mode="embedded" if args.embedded else "service",
        keys=args.keys,
        insecure=args.insecure,
        on_death=not args.no_death_snapshots,
        **_triggers(args),
    )


def _triggers(args: argparse.Namespace) -> dict[str, Any]:
    """The options win over the file; of triggers both count."""
    from frzmq.recorder.file import read_file

    file = read_file(args.config) if args.config else {}
    given = {
        "directory": args.snapshots,
        "keep_count": args.keep_count and parse_count(args.keep_count, "--keep-count"),
        "keep_age_s": args.keep_age and parse_duration(args.keep_age, "--keep-age") / 1e9,
        "keep_bytes": args.keep_bytes and parse_size(args.keep_bytes, "--keep-bytes"),
    }
    for trigger in args.trigger:
        parse_triggers(trigger, "--trigger")
    store = {**file.get("store", {}), **{name: value for name, value in given.items() if value is not None}}
    return {
        "triggers": "; ".join([*file.get("triggers", ()), *args.trigger]),
        "store": StoreConfig(**store),
    }


def _say_ready(address: str) -> None:
    """Whoever started it may wait for this line, and need not stay to read it."""
    try:
        print(f"ready {address}", flush=True)
    except OSError:
        # else the interpreter complains about it once more at its end
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the rest of the process
