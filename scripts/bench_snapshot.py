"""What a flush and a snapshot take: flush with idle tracers, single and double; snapshots against a plain copy of as many bytes.

python scripts/bench_snapshot.py [--rounds N] [--sizes MIB ...]
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from bench_recorder import Place, Producer
from benchlib import Ratio, report

from frzmq.control.client import ControlClient
from frzmq.transport.addresses import parse_address

MIB = 1 << 20


@contextmanager
def recorder(max_bytes: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        os.chmod(directory, 0o700)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "frzmq",
                "recorder",
                "--listen",
                f"ipc://{directory}",
                "--max-bytes",
                str(max_bytes),
                "--min-age",
                "1h",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield directory
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


TRACER = """
import sys, frzmq
frzmq.start(service="idle", recorder=sys.argv[1])
frzmq.event("here")
frzmq.flush()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def tracers(directory: str, count: int) -> Iterator[None]:
    """Idle processes that record."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", TRACER, f"ipc://{directory}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        yield
    finally:
        for child in children:
            child.communicate("", timeout=60)


def flushes(rounds: int) -> tuple[list[tuple[str, ...]], list[Ratio], list[object]]:
    rows: list[tuple[str, ...]] = []
    ratios: list[Ratio] = []
    data: list[object] = []
    for count in (1, 8, 64):
        with recorder(64 * MIB) as directory, tracers(directory, count), ControlClient(f"ipc://{directory}") as client:
            for double in (False, True):
                took_ms = []
                for _ in range(rounds):
                    begin = time.perf_counter()
                    missing = client.flush(double=double).missing
                    took_ms.append((time.perf_counter() - begin) * 1e3)
                    assert not missing, missing
                    # a flush right behind another would find the agents awake
                    time.sleep(0.05)
                p50, p99 = statistics.median(took_ms), sorted(took_ms)[int((len(took_ms) - 1) * 0.99)]
                name = f"flush, {count} tracers, {'double' if double else 'single'}"
                rows.append((name, f"{p50:.1f} ms", f"{p99:.1f} ms", ""))
                data.append({"tracers": count, "double": double, "p50_ms": p50, "p99_ms": p99})
                if count == 64 and not double:
                    ratios += [Ratio(f"{name}: p50, ms", p50, 25.0), Ratio(f"{name}: p99, ms", p99, 75.0)]
    return rows, ratios, data


class Load:
    """A producer in a process of its own: fills the ring, then goes on at full speed, or only answers."""

    def __init__(self, directory: str, fill_bytes: int) -> None:
        self._sent = mp.Value("Q", 0)
        self._pause, self._end = mp.Event(), mp.Event()
        self._pause.set()
        arguments = (directory, fill_bytes, self._sent, self._pause, self._end)
        self._process = mp.Process(target=_load, args=arguments)
        self._process.start()
        while self.sent_bytes < fill_bytes:
            time.sleep(0.01)

    @property
    def sent_bytes(self) -> int:
        return int(self._sent.value)

    def resume(self) -> None:
        self._pause.clear()

    def close(self) -> None:
        self._end.set()
        self._process.join(30)


def _load(directory: str, fill_bytes: int, sent: Synchronized[int], pause: Event, end: Event) -> None:
    producer = Producer(Place(parse_address(directory)), 64 << 10)
    producer.hello()
    while not end.is_set():
        if sent.value >= fill_bytes and pause.is_set():
            producer.serve_link()
            time.sleep(0.001)
            continue
        for _ in range(8):
            producer.send()
        sent.value += 8 * len(producer.body)
        producer.serve_link()
    producer.context.destroy(0)


def copy_s(data: bytes, path: Path) -> float:
    begin = time.perf_counter()
    path.write_bytes(data)
    took = time.perf_counter() - begin
    path.unlink()
    return took


def snapshots(sizes_mib: list[int], rounds: int) -> tuple[list[tuple[str, ...]], list[Ratio], list[object]]:
    rows: list[tuple[str, ...]] = []
    ratios: list[Ratio] = []
    data: list[object] = []
    for size_mib in sizes_mib:
        with recorder(2 * size_mib * MIB) as directory, tempfile.TemporaryDirectory() as target:
            load = Load(directory, size_mib * MIB)
            snap_s, flush_s, plain_s, size = [], [], [], 0
            path = Path(target, "snapshot")
            with ControlClient(f"ipc://{directory}", timeout_s=60) as client:
                for _ in range(rounds):
                    begin = time.perf_counter()
                    client.flush()
                    flush_s.append(time.perf_counter() - begin)
                    begin = time.perf_counter()
                    with open(path, "wb") as file:
                        size = client.snapshot(file).size_bytes
                    snap_s.append(time.perf_counter() - begin)
                    plain_s.append(copy_s(path.read_bytes(), path))
                ingest = _ingest_during_snapshots(load, client, path) if size_mib == 64 else None
            load.close()
        # a snapshot begins with a flush, which is no matter of its size
        writing_s = statistics.median(snap_s) - statistics.median(flush_s)
        speed = statistics.median(plain_s) / writing_s
        rows.append(
            (
                f"snapshot of {size / MIB:.0f} MiB",
                f"{min(snap_s) * 1e3:.1f} ms",
                f"{statistics.median(snap_s) * 1e3:.1f} ms",
                f"{speed:.2f}",
            )
        )
        data.append({"bytes": size, "snapshot_s": snap_s, "flush_s": flush_s, "copy_s": plain_s})
        ratios.append(
            Ratio(f"snapshot of {size_mib} MiB: speed behind its flush over a plain copy", speed, 0.5, at_least=True)
        )
        if ingest is not None:
            ratios.append(Ratio("ingest during a snapshot over without", ingest, 0.8, at_least=True))
    return rows, ratios, data


def _ingest_during_snapshots(load: Load, client: ControlClient, path: Path) -> float:
    """Bytes sent per second while snapshots are taken one after the other, over those without."""
    load.resume()
    rates: dict[bool, list[float]] = {False: [], True: []}
    for n in range(10):
        begin, sent = time.perf_counter(), load.sent_bytes
        if n % 2:
            with open(path, "wb") as file:
                client.snapshot(file)
        else:
            time.sleep(0.3)
        rates[bool(n % 2)].append((load.sent_bytes - sent) / (time.perf_counter() - begin))
    return statistics.median(rates[True]) / statistics.median(rates[False])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="flushes of each kind")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 10, 64, 512], metavar="MIB")
    arguments = parser.parse_args()
    rows, ratios, data = flushes(arguments.rounds)
    more_rows, more_ratios, more_data = snapshots(arguments.sizes, max(5, arguments.rounds // 10))
    report(
        "flush and snapshot",
        rows + more_rows,
        ("", "min / p50", "median / p99", "of a copy"),
        ratios + more_ratios,
        data + more_data,
    )


if __name__ == "__main__":
    main()
