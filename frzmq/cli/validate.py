"""``frzmq validate``: check a snapshot file."""

from __future__ import annotations

import argparse

from frzmq.cli.common import Subparsers, add_json, command, print_json


def add_parser(subparsers: Subparsers, summary: str) -> None:
    parser = command(
        subparsers, "validate", f"{summary}: 1 when it contradicts itself or is damaged", "  frzmq validate slow.frz"
    )
    parser.add_argument("file", metavar="FILE")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from frzmq.export.text import clean
    from frzmq.reader.snapshot import open_snapshot
    from frzmq.reader.validate import Level, validate

    with open_snapshot(args.file) as snapshot:
        findings = validate(snapshot)
    if args.json:
        print_json(
            [{"level": f.level.value, "code": f.code, "message": f.message, "process": f.process} for f in findings]
        )
    else:
        for finding in findings:
            print(clean(str(finding)))
        errors = sum(finding.level is Level.ERROR for finding in findings)
        print(f"{args.file}: {errors} errors, {len(findings) - errors} warnings")
    return 1 if any(finding.level is Level.ERROR for finding in findings) else 0
