"""A tracer that is killed: every record that it had committed is in the snapshot, to the last, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from support.programs import DEADLINE_S, Program
from support.recorder_process import until_ended, until_gone
from support.until import until

import frzmq
import frzmq.tracer.runtime
from frzmq.control.client import ControlClient
from frzmq.flight import FlightRecorder
from frzmq.reader.model import Process
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate

pytestmark = pytest.mark.usefixtures("runtime_directory")

WRITER = """
    import frzmq, mmap, os, sys, threading, time

    file = os.open(sys.argv[1], os.O_RDWR)
    counts = memoryview(mmap.mmap(file, 64)).cast("Q")

    def write(thread):
        n = 0
        with frzmq.span(f"thread {thread}"):
            while True:
                frzmq.event("n", n=n, thread=thread, name=f"name {n % 50}")
                n += 1
                counts[thread] = n
                if n % 500 == 0:
                    # a rest for the agent: what overtakes it is overwritten, which is another test's matter
                    time.sleep(0.005 * int(sys.argv[2]))

    frzmq.event("begin")
    frzmq.flush()
    for thread in range(1, int(sys.argv[2])):
        threading.Thread(target=write, args=(thread,), daemon=True).start()
    print("ready", flush=True)
    write(0)
"""


def dead(flight: FlightRecorder, pid: int, path: Path) -> tuple[Snapshot, Process]:
    """A snapshot, once the recorder knows of the death."""
    assert flight.address
    with ControlClient(flight.address) as client:
        until(lambda: [t.state for t in client.status().tracers if t.pid == pid] == ["dead"], "it lives", DEADLINE_S)
    with path.open("wb") as file:
        flight.write_to(file)
    opened = open_snapshot(path)
    return opened, next(process for process in opened.processes if process.pid == pid)


def check_kill(tmp_path: Path, flight: FlightRecorder, number: int, after_s: float, threads: int = 1) -> None:
    side = tmp_path / "counts"
    side.write_bytes(bytes(64))
    variables = {name: value for name, value in os.environ.items() if name.startswith("FRZMQ_")}
    program = Program(tmp_path / "writer.py", WRITER, str(side), str(threads), **variables)
    assert program.line() == "ready"
    time.sleep(after_s)
    program.process.send_signal(number)
    program.process.communicate(timeout=DEADLINE_S)
    opened, process = dead(flight, program.process.pid, tmp_path / "s.frz")
    counts = memoryview(side.read_bytes()).cast("Q")
    for thread in range(threads):
        seen = [
            e.attributes["n"]
            for e in opened.events
            if e.process == process.number and e.attributes.get("thread") == thread
        ]
        # what is gone went by age or size, from the begin; the one that it was in the midst of may be there
        assert seen == [*range(len(seen))]
        assert len(seen) - counts[thread] in (0, 1)
    names = {e.attributes.get("name") for e in opened.events if e.process == process.number and e.name == "n"}
    assert not any(str(name).startswith("?") for name in names)
    spans = [s for s in opened.spans if s.process == process.number]
    assert {(s.name, s.end_ns) for s in spans} <= {(f"thread {thread}", None) for thread in range(threads)}
    ledger = process.ledger
    assert (ledger.lost - ledger.torn, ledger.balanced, ledger.torn <= threads) == (0, True, True)
    assert [f for f in validate(opened) if f.level is Level.ERROR] == []


@pytest.mark.parametrize("n", range(2))
@pytest.mark.parametrize(("number", "threads"), [(signal.SIGKILL, 1), (signal.SIGSEGV, 1), (signal.SIGKILL, 3)])
def test_killed_program_is_there_to_its_last_record(
    tmp_path: Path, runtime_directory: Path, number: int, threads: int, n: int
) -> None:
    with frzmq.start(service="test", max_bytes=256 << 20) as flight:
        for _ in range(2):
            check_kill(tmp_path, flight, number, random.random() * 0.4, threads)
        assert flight.address
        directory = Path(flight.address.removeprefix("ipc://"))
        mine = f"{frzmq.tracer.runtime.stats().uuid.hex()}"  # type: ignore[union-attr]  # it records
        assert {path.stem for path in directory.glob("*.buf")} == {mine}
        assert {path.stem for path in directory.glob("*.lock")} == {mine}


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("n", range(20))
def test_killed_program_is_there_to_its_last_record_200_times(tmp_path: Path, n: int) -> None:
    with frzmq.start(service="test", max_bytes=256 << 20) as flight:
        for _ in range(10):
            check_kill(tmp_path, flight, signal.SIGSEGV if n % 2 else signal.SIGKILL, random.random() * 0.7)


def test_buffer_file_that_was_cut_short_costs_the_tail_and_is_said(tmp_path: Path) -> None:
    with frzmq.start(service="test") as flight:
        variables = {name: value for name, value in os.environ.items() if name.startswith("FRZMQ_")}
        side = tmp_path / "counts"
        side.write_bytes(bytes(64))
        program = Program(tmp_path / "writer.py", WRITER, str(side), "1", **variables)
        assert program.line() == "ready"
        program.process.send_signal(signal.SIGSTOP)
        assert flight.address
        directory = Path(flight.address.removeprefix("ipc://"))
        mine = frzmq.tracer.runtime.stats().uuid.hex()  # type: ignore[union-attr]  # it records
        [path] = [path for path in directory.glob("*.buf") if path.stem != mine]
        os.truncate(path, 100_000)
        program.process.kill()
        program.process.communicate(timeout=DEADLINE_S)
        opened, process = dead(flight, program.process.pid, tmp_path / "s.frz")
        assert process.state == "dead"
        with ControlClient(flight.address) as client:
            [error] = client.status().errors
        assert "its last moments: buffer file: wanted areas inside the file's 100000 bytes" in error
        assert [e.name for e in opened.events if e.process == process.number][:1] == ["begin"]
        until_ended(program.process.pid)


ALONE = """
    import frzmq, ctypes, os, signal, sys

    flight = frzmq.start(service="alone")
    with frzmq.operation("work"):
        for n in range(1000):
            frzmq.event("n", n=n)
        print("ready", flush=True)
        match sys.argv[1]:
            case "abort":
                ctypes.CDLL(None).abort()
            case "exit":
                ctypes.CDLL(None)._exit(3)
            case "wait":
                sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("how", "number", "said"),
    [
        ("wait", signal.SIGKILL, "SIGKILL"),
        ("wait", signal.SIGTERM, None),
        ("abort", None, "SIGABRT"),
        ("exit", None, "exit status 3"),
    ],
)
def test_program_with_a_recorder_of_its_own_leaves_a_snapshot_of_its_death(
    tmp_path: Path, runtime_directory: Path, how: str, number: int | None, said: str | None
) -> None:
    store = tmp_path / "snapshots"
    program = Program(
        tmp_path / "alone.py", ALONE, how, FRZMQ_SNAPSHOTS=str(store), FRZMQ_RUNTIME_DIR=str(runtime_directory)
    )
    assert program.line() == "ready"
    # what it recorded a moment ago may not have made the recorder known to it
    if number is not None:
        time.sleep(0.2)
        program.process.send_signal(number)
    program.process.communicate(timeout=DEADLINE_S)
    for directory in runtime_directory.glob("r*"):
        until_gone(directory)
    if said is None:
        assert not store.exists()
        return
    [path] = store.glob("*.frz")
    assert "-alone-death" in path.name
    opened = open_snapshot(path)
    if sys.platform == "linux":
        assert opened.header.reason == f"death: alone[{program.process.pid}] ended by {said}"
    [process] = opened.processes
    assert process.state == "dead"
    assert [e.attributes["n"] for e in opened.events if e.name == "n"] == [*range(1000)]
    [operation] = opened.operations
    assert (operation.name, operation.end_ns) == ("work", None)
