#!/usr/bin/env python3
"""Fuzzes by coverage what `tests/support/targets.py` lists, with atheris: each target for so long, in a process of its own.

    python scripts/fuzz.py [--seconds S] [--corpus DIR] [TARGET ...]

An input that breaks a target is left in DIR/faults; shortened and named, it belongs into tests/hostile/regressions/TARGET. Exit code 1: there was one. Where
atheris is not installed it says so and does nothing: the same targets are in the tests of tests/hostile, with hypothesis.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
REGRESSIONS = TESTS / "hostile" / "regressions"
ONE = "--one"
MAX_INPUT_BYTES = 16 << 10
TIMEOUT_S = 20
RSS_MB = 2048


def fuzz_one(name: str, options: list[str]) -> None:
    """Ends the process."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=["frzmq"]):
        from support.targets import TARGETS
    run = TARGETS[name].run
    atheris.Setup([sys.argv[0], *options], lambda data: run(bytes(data)))
    atheris.Fuzz()


def names() -> list[str]:
    sys.path.insert(0, str(TESTS))
    from support.targets import TARGETS

    return list(TARGETS)


def seeds(name: str, directory: Path) -> None:
    from support.targets import TARGETS

    directory.mkdir(parents=True, exist_ok=True)
    for n, data in enumerate(TARGETS[name].corpus):
        (directory / f"seed-{n}").write_bytes(data)
    for path in sorted((REGRESSIONS / name).glob("*.bin")):
        (directory / path.name).write_bytes(path.read_bytes())


def fuzz(name: str, seconds: int, corpus: Path) -> bool:
    """True when nothing was found."""
    seeds(name, corpus / name)
    faults = corpus / "faults"
    faults.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={RSS_MB}",
        f"-artifact_prefix={faults}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
        str(corpus / name),
    ]
    done = subprocess.run(
        [sys.executable, __file__, ONE, name, *options],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + 10 * TIMEOUT_S,
        check=False,
    )
    stats = dict(
        line.removeprefix("stat::").split(":", 1) for line in done.stderr.splitlines() if line.startswith("stat::")
    )
    count = stats.get("number_of_executed_units", "?").strip()
    print(
        f"{name:20} {count:>10} inputs in {seconds} s: {'nothing found' if done.returncode == 0 else 'FAULT'}",
        flush=True,
    )
    if done.returncode != 0:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    return done.returncode == 0


def main() -> int:
    if sys.argv[1:2] == [ONE]:
        fuzz_one(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30, help="for each target (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="kept and added to (default: a temporary directory)")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    args = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed here (it has wheels for Linux): nothing is fuzzed by coverage")
        return 0
    unknown = set(args.targets) - set(names())
    if unknown:
        parser.error(f"wanted targets among {' '.join(names())}, got {' '.join(sorted(unknown))}")
    corpus = args.corpus or Path(tempfile.mkdtemp(prefix="frzmq-fuzz-"))
    corpus.mkdir(parents=True, exist_ok=True)
    print(f"corpus and faults: {corpus}")
    found = [fuzz(name, args.seconds, corpus) for name in args.targets or names()]
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
