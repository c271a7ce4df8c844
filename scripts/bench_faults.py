"""Whether a program notices that its recorder is stopped: what one record takes, p50 and p99, while it runs and while it does not.

python scripts/bench_faults.py [--rounds N] [--seconds S]

A round: the recorder runs, is stopped (SIGSTOP) for as long, is killed and not there for as long. The program records bursts of 100 events with rests of 2 ms, so
that its buffer of 4 MiB is full, and overwritten, in most of the time without a recorder. Of the rounds the median counts.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec

from benchlib import Ratio, report

LIMIT = 2.0
BUFFERS = {"c": "native", "py": "pure Python"}
PHASES = ("running", "stopped", "gone")
PROGRAM = """
import sys, time
import frzmq

clock, event = time.perf_counter_ns, frzmq.event

def measure(seconds):
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for n in range(100):
            begin = clock()
            event("measured", n=n)
            took.append(clock() - begin)
        time.sleep(0.002)
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100], took[-1], len(took)

event("begin")
assert frzmq.flush(10)
measure(0.5)
for line in sys.stdin:
    print(*measure(float(line)), flush=True)
"""


@dataclass(frozen=True)
class Took:
    """Nanoseconds for one record, the clock around it with it."""

    p50: int
    p99: int
    longest: int
    records: int


class Recorder:
    def __init__(self, address: str) -> None:
        command = [sys.executable, "-m", "frzmq", "recorder", "--listen", address, "--no-death-snapshots"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(b"ready")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Also one that is killed already."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def program(address: str, buffer: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "FRZMQ_RECORDER": address, "FRZMQ_BUFFER": buffer}
    command = [sys.executable, "-c", PROGRAM]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def measure(process: subprocess.Popen[str], seconds: float) -> Took:
    assert process.stdin is not None
    assert process.stdout is not None
    print(seconds, file=process.stdin, flush=True)
    return Took(*map(int, process.stdout.readline().split()))


def one_round(buffer: str, seconds: float) -> dict[str, Took]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        os.chmod(directory, 0o700)
        recorder = Recorder(directory)
        try:
            with program(directory, buffer) as process:
                took = {"running": measure(process, seconds)}
                recorder.signal(signal.SIGSTOP)
                took["stopped"] = measure(process, seconds)
                recorder.kill()
                took["gone"] = measure(process, seconds)
                return took
        finally:
            recorder.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    ratios: list[Ratio] = []
    data: list[object] = []
    skipped: list[str] = []
    for buffer, name in BUFFERS.items():
        if buffer == "c" and find_spec("frzmq.tracer._buffer") is None:
            skipped.append(f"{name}: it is not installed")
            continue
        rounds = [one_round(buffer, args.seconds) for _ in range(args.rounds)]
        p99 = {phase: statistics.median(took[phase].p99 for took in rounds) for phase in PHASES}
        for phase in PHASES:
            p50 = statistics.median(took[phase].p50 for took in rounds)
            longest = statistics.median(took[phase].longest for took in rounds)
            rows.append((f"{name}, recorder {phase}", f"{p50:.0f}", f"{p99[phase]:.0f}", f"{longest / 1e3:.0f}"))
        ratios += [
            Ratio(f"{name}: p99 with the recorder {phase} / running", p99[phase] / p99["running"], LIMIT)
            for phase in PHASES[1:]
        ]
        data.append({"buffer": name, "rounds": [{k: asdict(v) for k, v in took.items()} for took in rounds]})
    header = ("", "p50 ns", "p99 ns", "longest us")
    report("one record while the recorder is stopped", rows, header, ratios, data, skipped)


if __name__ == "__main__":
    main()
