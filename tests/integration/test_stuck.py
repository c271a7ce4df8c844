"""A tracer that does not answer a flush: its buffer does. When it goes on, nothing is lost and nothing is there twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.programs import DEADLINE_S, Program
from support.until import until

import frzmq
from frzmq.control.client import ControlClient
from frzmq.flight import FlightRecorder
from frzmq.reader.model import Process
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate

pytestmark = pytest.mark.usefixtures("runtime_directory")

STOPPED = """
    import frzmq, mmap, os, sys, time

    file = os.open(sys.argv[1], os.O_RDWR)
    counts = memoryview(mmap.mmap(file, 64)).cast("Q")
    frzmq.event("begin")
    frzmq.flush()
    print("ready", flush=True)
    n = 0
    while True:
        frzmq.event("n", n=n)
        n += 1
        counts[0] = n
        if n % 500 == 0:
            time.sleep(0.005)  # a rest for the agent: what overtakes it is overwritten
"""
HELD = """
    import ctypes, frzmq, os, sys

    held = ctypes.PyDLL(None)  # its calls keep the GIL
    frzmq.event("begin")
    frzmq.flush()
    for n in range(1000):
        frzmq.event("n", n=n)
    sys.setswitchinterval(60)  # nobody else runs between the two calls
    held.write(1, b"held\\n", 5)
    held.read(0, ctypes.create_string_buffer(1), 1)
    sys.setswitchinterval(0.005)
    frzmq.event("n", n=1000)
    assert frzmq.flush()
    print("on", flush=True)
    sys.stdin.buffer.raw.read(1)
"""


def variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("FRZMQ_")}


def opened_of(flight: FlightRecorder, path: Path, pid: int) -> tuple[Snapshot, Process, Sequence[object]]:
    """A snapshot, its process of this pid, and the numbers that it recorded."""
    with path.open("wb") as file:
        flight.write_to(file)
    opened = open_snapshot(path)
    process = next(process for process in opened.processes if process.pid == pid)
    assert (process.ledger.lost, process.ledger.duplicate, process.ledger.balanced) == (0, 0, True)
    assert [f for f in validate(opened) if f.level is Level.ERROR] == []
    assert opened.header.missing == ()
    seen = [e.attributes["n"] for e in opened.events if e.process == process.number and e.name == "n"]
    return opened, process, seen


def incomplete(opened: Snapshot, process: Process) -> list[str]:
    return [gap.detail for gap in opened.gaps if gap.process == process.number and gap.cause == "incomplete"]


def test_stopped_program_is_there_to_its_last_record_and_goes_on(tmp_path: Path) -> None:
    side = tmp_path / "counts"
    side.write_bytes(bytes(64))
    with frzmq.start(service="test", max_bytes=256 << 20) as flight:
        program = Program(tmp_path / "stopped.py", STOPPED, str(side), **variables())
        try:
            assert program.line() == "ready"
            program.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, program.process.pid, os.WSTOPPED)
            [count] = memoryview(side.read_bytes()[:8]).cast("Q")
            opened, process, seen = opened_of(flight, tmp_path / "a.frz", program.process.pid)
            assert seen == [*range(len(seen))]
            assert len(seen) - count in (0, 1)
            assert incomplete(opened, process) == ["sealed by stuck"]
            assert flight.address
            assert len([*Path(flight.address.removeprefix("ipc://")).glob("*.buf")]) >= 1
            program.process.send_signal(signal.SIGCONT)
            opened, process, again = opened_of(flight, tmp_path / "b.frz", program.process.pid)
            assert again == [*range(len(again))]
            assert len(again) >= len(seen)
            assert incomplete(opened, process) == []
            with ControlClient(flight.address) as client:
                assert client.status().errors == ()
        finally:
            program.process.kill()
            program.process.communicate(timeout=DEADLINE_S)


def test_program_whose_gil_is_held_is_there_to_its_last_record_and_goes_on(tmp_path: Path) -> None:
    with frzmq.start(service="test") as flight:
        program = Program(tmp_path / "held.py", HELD, **variables())
        try:
            assert program.line() == "held"
            opened, process, seen = opened_of(flight, tmp_path / "a.frz", program.process.pid)
            assert seen == [*range(1000)]
            assert incomplete(opened, process) == ["sealed by stuck"]
            program.tell("")
            assert program.line() == "on"
            opened, process, seen = opened_of(flight, tmp_path / "b.frz", program.process.pid)
            assert seen == [*range(1001)]
            assert incomplete(opened, process) == []
            program.tell("")
            program.end()
        finally:
            program.process.kill()
            program.process.communicate(timeout=DEADLINE_S)


def test_program_that_is_stopped_for_long_and_silent_is_read_too(tmp_path: Path) -> None:
    with frzmq.start(service="test") as flight:
        program = Program(tmp_path / "held.py", HELD, **variables())
        try:
            assert program.line() == "held"
            assert flight.address
            with ControlClient(flight.address) as client:
                until(lambda: "silent" in [t.state for t in client.status().tracers], "it speaks", DEADLINE_S)
            _, process, seen = opened_of(flight, tmp_path / "a.frz", program.process.pid)
            assert (process.state, seen) == ("silent", [*range(1000)])
        finally:
            program.process.kill()
            program.process.communicate(timeout=DEADLINE_S)
