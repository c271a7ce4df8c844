"""Thread exit in great numbers, threads at once, exec: every record has its place, and the buffer stays as large as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.programs import DEADLINE_S, Program
from support.until import until

import frzmq
from frzmq.control.client import ControlClient
from frzmq.flight import FlightRecorder
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate

pytestmark = pytest.mark.usefixtures("runtime_directory")

SHORT = """
    import frzmq, sys, threading

    def short(n):
        frzmq.event("n", n=n)

    for start in range(0, 10_000, 50):
        threads = [threading.Thread(target=short, args=(n,)) for n in range(start, start + 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert frzmq.flush(20)  # what ended is acknowledged, and its chunks are free
    print("done", flush=True)
    sys.stdin.read(1)
"""
AT_ONCE = """
    import frzmq, sys, threading

    threading.stack_size(256 << 10)
    started, end = threading.Semaphore(0), threading.Event()

    def wait(n):
        frzmq.event("n", n=n)
        started.release()
        end.wait()

    threads = [threading.Thread(target=wait, args=(n,)) for n in range(2000)]
    for thread in threads:
        thread.start()
    for _ in threads:
        started.acquire()
    assert frzmq.flush(20)
    print("done", flush=True)
    sys.stdin.read(1)
    end.set()
"""
EXEC = """
    import frzmq, os, sys

    after = sys.argv[1:] == ["after"]
    for n in range(1000):
        frzmq.event("after" if after else "before", n=n)
    if not after:
        frzmq.flush(20)  # the recorder knows of it
        for n in range(1000, 2000):
            frzmq.event("before", n=n)
        os.execv(sys.executable, [sys.executable, sys.argv[0], "after"])
    assert frzmq.flush(20)
    print("done", flush=True)
    sys.stdin.read(1)
"""


def variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("FRZMQ_")}


def opened_now(flight: FlightRecorder, path: Path) -> Snapshot:
    with path.open("wb") as file:
        flight.write_to(file)
    opened = open_snapshot(path)
    assert opened.ledger.balanced
    assert [f for f in validate(opened) if f.level is Level.ERROR] == []
    return opened


def numbers(opened: Snapshot, name: str) -> list[object]:
    return [event.attributes["n"] for event in opened.events if event.name == name]


def buffer_sizes(flight: FlightRecorder) -> set[int]:
    assert flight.address
    return {path.stat().st_size for path in Path(flight.address.removeprefix("ipc://")).glob("*.buf")}


@pytest.mark.timeout(240)
def test_ten_thousand_short_threads_are_all_there_in_the_same_memory(tmp_path: Path) -> None:
    with frzmq.start(service="test", min_age=600) as flight:
        program = Program(tmp_path / "short.py", SHORT, **variables())
        try:
            assert program.line() == "done"
            opened = opened_now(flight, tmp_path / "s.frz")
            assert sorted(numbers(opened, "n"), key=str) == sorted(range(10_000), key=str)
            assert opened.ledger.lost == 0
            assert buffer_sizes(flight) == {4 << 20}
        finally:
            program.process.kill()
            program.process.communicate(timeout=DEADLINE_S)


def test_two_thousand_threads_at_once_are_there_or_counted_in_the_same_memory(tmp_path: Path) -> None:
    with frzmq.start(service="test") as flight:
        program = Program(tmp_path / "at_once.py", AT_ONCE, **variables())
        try:
            assert program.line() == "done"
            opened = opened_now(flight, tmp_path / "s.frz")
            seen = numbers(opened, "n")
            assert len(seen) == len(set(seen))
            # who found no chunk has dropped what it recorded, and that is counted
            assert 2000 - len(seen) <= opened.ledger.dropped
            assert (opened.ledger.missing, opened.ledger.late, opened.ledger.overwritten) == (0, 0, 0)
            assert len(seen) >= 100
            assert buffer_sizes(flight) == {4 << 20}
        finally:
            program.process.kill()
            program.process.communicate(timeout=DEADLINE_S)


def test_exec_ends_one_stream_to_its_last_record_and_begins_another(tmp_path: Path) -> None:
    with frzmq.start(service="test") as flight:
        program = Program(tmp_path / "exec.py", EXEC, **variables())
        try:
            assert program.line() == "done"
            assert flight.address
            pid = program.process.pid
            with ControlClient(flight.address) as client:
                until(lambda: {t.state for t in client.status().tracers if t.pid == pid} == {"dead", "live"})
            opened = opened_now(flight, tmp_path / "s.frz")
            assert numbers(opened, "before") == [*range(2000)]
            assert numbers(opened, "after") == [*range(1000)]
            assert opened.ledger.lost == 0
        finally:
            program.process.kill()
            program.process.communicate(timeout=DEADLINE_S)
