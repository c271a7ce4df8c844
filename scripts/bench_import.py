"""What frzmq adds to the start and the end of a program: import, start, stop, exit; beside the bare interpreter in the same rounds.

python scripts/bench_import.py [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict

from benchlib import Ratio, Timing, report, timing_rows

IMPORT_LIMIT_MS = 30.0
CASES = {
    "python": "pass",
    "import frzmq": "import frzmq",
    "import frzmq, FRZMQ_RECORDER set": "import frzmq",
    "import logging": "import logging",
    "start, stop, nothing recorded": "import frzmq\nfrzmq.start().stop()",
    "start, 1000 events, exit": "import frzmq\nfrzmq.start()\nfor _ in range(1000): frzmq.event('e')",
}


def run_ms(code: str, directory: str, recorder: bool) -> float:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("FRZMQ_")}
    variables["FRZMQ_RUNTIME_DIR"] = directory
    if recorder:
        variables["FRZMQ_RECORDER"] = directory
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=variables, check=True)
    return (time.perf_counter() - begin) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    took: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory(prefix="fz") as directory:
        for _ in range(arguments.rounds):
            for name, code in CASES.items():
                took[name].append(run_ms(code, directory, "FRZMQ_RECORDER" in name))
    timings = {name: Timing(name, min(times), statistics.median(times)) for name, times in took.items()}
    bare = timings["python"].median
    report(
        "a program's start and end, ms",
        timing_rows(timings),
        ("", "minimum", "median"),
        [
            Ratio(f"{name} over python, median, ms", timings[name].median - bare, IMPORT_LIMIT_MS)
            for name in ("import frzmq", "import frzmq, FRZMQ_RECORDER set")
        ],
        [asdict(timing) for timing in timings.values()],
    )


if __name__ == "__main__":
    main()
