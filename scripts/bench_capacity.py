"""How much the ring holds and takes: bytes of a record, a million of them to a file, and records a second with nothing lost; beside VizTracer in the same run.
``pip install viztracer flask starlette uvicorn`` brings it, and what the demo needs.

python scripts/bench_capacity.py [--rounds N] [--records N] [--seconds S]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchlib import Ratio, buffer_kind, report

import frzmq
from frzmq.control.client import ControlClient
from frzmq.wire.messages import TracerStatus

MIB = 1 << 20
FLUSH_S = 60.0
Part = tuple[list[tuple[str, ...]], list[Ratio], list[object], list[str]]


@contextmanager
def recorder() -> Iterator[str]:
    """Its address. What it is given it keeps."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        os.chmod(directory, 0o700)
        address = f"ipc://{directory}"
        options = ["--listen", address, "--max-bytes", str(1024 * MIB), "--min-age", "1h"]
        # of the demo's triggers
        options += ["--snapshots", f"{directory}/s"]
        command = [sys.executable, "-m", "frzmq", "recorder", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield address
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


def lost(tracer: TracerStatus) -> int:
    return tracer.dropped + tracer.overwritten + tracer.missing + tracer.late + tracer.torn + tracer.evicted


# --- bytes of a record

SHOP = (
    "import sys; from pathlib import Path; from frzmq.demo.shop import run; run(Path(sys.argv[1]), float(sys.argv[2]))"
)
LEAF = """
from viztracer import VizTracer

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def leaf():
    pass

def calls(number):
    for _ in range(number):
        leaf()

tracer = VizTracer(tracer_entries=600_000, verbose=0, ignore_c_function=True)
tracer.start()
calls(1000)
before = resident()
calls(500_000)
after = resident()
tracer.stop()
print((after - before) / 500_000)
"""


def sizes(seconds: float) -> Part:
    """Of the demo's recording. VizTracer's entry in memory is that of a call without arguments, the least that it keeps; in its file, of the same demo."""
    with tempfile.TemporaryDirectory() as directory:
        shop = Path(directory, "shop.py")
        shop.write_text(SHOP)
        with recorder() as address:
            environment = {**os.environ, "FRZMQ_RECORDER": address}
            subprocess.run([sys.executable, str(shop), directory, str(seconds)], env=environment, check=True)
            path = Path(directory, "shop.frz")
            with ControlClient(address) as client, open(path, "wb") as file:
                client.flush()
                status = client.status()
                client.snapshot(file)
        records = sum(tracer.held for tracer in status.tracers)
        held = sum(tracer.held_bytes for tracer in status.tracers) / records
        filed = path.stat().st_size / records
        rows: list[tuple[str, ...]] = [
            (f"frzmq, bytes a record, the demo: {records} records", f"{held:.1f}", f"{filed:.1f}")
        ]
        data: list[object] = [{"records": records, "held_bytes": held, "file_bytes": filed}]
        leaf = subprocess.run([sys.executable, "-c", LEAF], stdout=subprocess.PIPE, text=True, check=False)
        if leaf.returncode:
            return rows, [], data, ["bytes per record / VizTracer's (at most 0.125): no viztracer"]
        trace = Path(directory, "shop.json")
        command = [sys.executable, "-m", "viztracer", "--quiet", "-o", str(trace), str(shop), directory, str(seconds)]
        environment = {**os.environ, "FRZMQ_DISABLE": "1"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        # names of processes and threads are no entries
        entries = sum(event["ph"] != "M" for event in json.loads(trace.read_text())["traceEvents"])
        peer_held, peer_filed = float(leaf.stdout), trace.stat().st_size / entries
    rows.append(("VizTracer, calls without arguments", f"{peer_held:.1f}", ""))
    rows.append((f"VizTracer, the demo: {entries} entries", "", f"{peer_filed:.1f}"))
    data.append({"entries": entries, "held_bytes": peer_held, "file_bytes": peer_filed})
    ratios = [
        Ratio("bytes per record held / VizTracer's per entry in memory", held / peer_held, 1 / 8),
        Ratio("bytes per record in the file / VizTracer's per entry in its file", filed / peer_filed, 1 / 8),
    ]
    return rows, ratios, data, []


# --- a million records to a file


def _leaf() -> None:
    pass


def _calls(number: int) -> None:
    for _ in range(number):
        _leaf()


def _synced(path: Path) -> float:
    """Milliseconds until ``path`` is on the disk; then it is removed."""
    begin = time.monotonic()
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    took_ms = (time.monotonic() - begin) * 1e3
    path.unlink()
    return took_ms


def dumps(records: int, rounds: int) -> Part:
    """To the page cache of one directory, in turn."""
    try:
        from viztracer import VizTracer
    except ImportError:
        tracer = None
    else:
        tracer = VizTracer(tracer_entries=records + 1000, verbose=0, ignore_c_function=True)
    ours: list[float] = []
    synced: list[float] = []
    theirs: list[float] = []
    theirs_synced: list[float] = []
    with tempfile.TemporaryDirectory() as directory, recorder() as address:
        path = Path(directory, "file")
        with frzmq.start(service="bench", recorder=address, logging=False) as flight:
            for _ in range(records // 10_000):
                for _ in range(10_000):
                    frzmq.event("bench")
                assert flight.flush(FLUSH_S)
            for _ in range(rounds):
                # the last of them are still in the tracer
                for _ in range(1000):
                    frzmq.event("bench")
                begin = time.monotonic()
                with open(path, "wb") as file:
                    size_bytes = flight.write_to(file)
                ours.append((time.monotonic() - begin) * 1e3)
                synced.append(_synced(path))
                if tracer is not None:
                    tracer.start()
                    _calls(records)
                    tracer.stop()
                    begin = time.monotonic()
                    tracer.dump(str(path))
                    theirs.append((time.monotonic() - begin) * 1e3)
                    assert path.stat().st_size > 50 * records, "VizTracer has lost entries"
                    theirs_synced.append(_synced(path))
            with ControlClient(address) as client:
                client.flush()
                [status] = client.status().tracers
        assert status.held >= records + rounds * 1000, status
        assert lost(status) == 0, status
    median = statistics.median
    rows: list[tuple[str, ...]] = [
        (
            f"flush, and a snapshot of {status.held} records, {size_bytes / MIB:.1f} MiB: ms",
            f"{min(ours):.0f}",
            f"{median(ours):.0f}",
        ),
        ("its fsync, ms", f"{min(synced):.0f}", f"{median(synced):.0f}"),
    ]
    data: list[object] = [{"snapshot_ms": ours, "fsync_ms": synced, "bytes": size_bytes, "records": status.held}]
    if tracer is None:
        return rows, [], data, ["flush and snapshot / VizTracer's dump() (at most 0.0833): no viztracer"]
    rows.append((f"VizTracer's dump() of {records} calls, ms", f"{min(theirs):.0f}", f"{median(theirs):.0f}"))
    rows.append(("its fsync, ms", f"{min(theirs_synced):.0f}", f"{median(theirs_synced):.0f}"))
    data.append({"dump_ms": theirs, "fsync_ms": theirs_synced})
    ratio = Ratio(
        f"{records} records: flush and snapshot / VizTracer's dump()",
        min(ours) / min(theirs),
        1 / 12,
        of_medians=median(ours) / median(theirs),
    )
    return rows, [ratio], data, []


# --- records a second

BUSY = """
import sys, time, frzmq
event = frzmq.event
frzmq.start(service="busy", recorder=sys.argv[1], logging=False)
event("bench")
assert frzmq.flush(30)
rate, seconds = float(sys.argv[2]), float(sys.argv[3])
count = 0
begin = now = time.monotonic()
while now - begin < seconds:
    for _ in range(1000):
        event("bench")
    count += 1000
    now = time.monotonic()
    if rate and count > (now - begin) * rate:
        time.sleep(count / rate - (now - begin))
        now = time.monotonic()
assert frzmq.flush(60)
print(count, time.monotonic() - begin, flush=True)
sys.stdin.read()
"""


def _busy(address: str, rate: float, seconds: float) -> tuple[float, int]:
    """Records a second until all of them were in the ring, and how many were lost. ``rate``: 0 for as fast as it goes."""
    command = [sys.executable, "-c", BUSY, address, str(rate), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        count, took_s = process.stdout.readline().split()
        with ControlClient(address) as client:
            client.flush()
            [status] = [tracer for tracer in client.status().tracers if tracer.pid == process.pid]
        process.communicate("", timeout=FLUSH_S)
    if not lost(status):
        assert status.held >= int(count), status
    return int(count) / float(took_s), lost(status)


def sustained(rounds: int, seconds: float) -> Part:
    """The highest of falling rates at which no round loses a record."""
    rows: list[tuple[str, ...]] = []
    data: list[object] = []
    full = 0.0
    for part in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        rates, losses = [], 0
        for _ in range(rounds):
            with recorder() as address:
                rate, missing = _busy(address, full * part if full else 0.0, seconds)
            rates.append(rate)
            losses += missing
            if losses:
                break
        full = full or max(rates)
        name = "as fast as it goes" if part == 1.0 else f"{part:.0%} of that"
        rows.append(
            (f"one thread, {name}: thousand records/s; lost", f"{statistics.median(rates) / 1e3:.0f}", str(losses))
        )
        data.append({"of_full": part, "rates": rates, "lost": losses})
        if not losses:
            value = statistics.median(rates) / 1e6
            return rows, [Ratio("records per second with none lost, million", value, 5.0, at_least=True)], data, []
    return rows, [Ratio("records per second with none lost, million", 0.0, 5.0, at_least=True)], data, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of the million; a fifth of it at each rate")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    parts = [
        sizes(arguments.seconds),
        dumps(arguments.records, arguments.rounds),
        sustained(max(1, arguments.rounds // 5), arguments.seconds),
    ]
    report(
        f"what the ring holds and takes, {buffer_kind()} buffer",
        [row for part in parts for row in part[0]],
        ("", "held / minimum", "file / median"),
        [ratio for part in parts for ratio in part[1]],
        [each for part in parts for each in part[2]],
        [line for part in parts for line in part[3]],
    )


if __name__ == "__main__":
    main()
