"""The wall clock is stepped, or the host suspended, while programs record: clocks of a preloaded library, which real processes ask."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.places import PlacedRecorder, frzmq, placed_recorder, started, wants_tools
from support.programs import Program

from frzmq.control.client import ControlClient
from frzmq.reader.decode import decode_generation
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import validate
from frzmq.wire.batch import Opening

HOUR_NS = 3600 * 10**9
SOURCE = Path(__file__).parent.parent / "support" / "stepped_clock.c"
WRITER = """
    import sys
    import frzmq

    frzmq.start(service="late", recorder=sys.argv[1])
    n = 0
    while True:
        with frzmq.span("step"):
            for _ in range(100):
                frzmq.event("n", n=n)
                n += 1
        print(frzmq.flush(20), flush=True)
        if sys.stdin.readline() == "end\\n":
            break
"""


class Clocks:
    """Of the processes with ``variables``."""

    def __init__(self, directory: Path) -> None:
        wants_tools("cc")
        library, path = directory / "stepped_clock.so", directory / "clocks"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"cc makes no library here: {made.stderr.strip()}")
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16)
        self.variables = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(path)}

    def set(self, wall_ns: int, boottime_ns: int = 0) -> None:
        """So far ahead from now on."""
        self._memory[:] = struct.pack("=qq", wall_ns, boottime_ns)


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Of the recorder: short, as a socket's path must be."""
    path = Path(f"/tmp/fz{os.urandom(4).hex()}")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def recorder(directory: Path, clocks: Clocks) -> Iterator[PlacedRecorder]:
    """Its clocks are those of its programs: they are of one host."""
    with placed_recorder((), str(directory), "--no-death-snapshots", **clocks.variables) as process:
        yield process


@pytest.fixture
def program(recorder: PlacedRecorder, clocks: Clocks, tmp_path: Path) -> Iterator[Program]:
    with started(tmp_path / "late.py", WRITER, recorder.address, **clocks.variables) as process:
        assert process.line() == "True"
        yield process


def more(program: Program) -> None:
    program.tell("more")
    assert program.line() == "True"


def taken(recorder: PlacedRecorder, path: Path) -> Snapshot:
    """In time, and there is nothing wrong with it."""
    began = time.monotonic()
    with path.open("xb") as file, ControlClient(recorder.address) as client:
        assert client.snapshot(file).missing == ()
        assert [tracer.state for tracer in client.status().tracers] == ["live"]
    assert time.monotonic() - began < 10
    opened = open_snapshot(path)
    assert [str(finding) for finding in validate(opened)] == []
    return opened


def check_order(opened: Snapshot, steps: int) -> None:
    """Every record, in the order in which it was made, and no interval longer than the test."""
    assert [event.attributes["n"] for event in opened.events] == [*range(100 * steps)]
    times = [record.time_ns for record in opened]
    assert times == sorted(times)
    assert times[-1] - times[0] < 60 * 10**9
    spans = [(span.begin_ns or 0, span.end_ns or 0) for span in opened.spans]
    assert len(spans) == steps
    assert all(begin < end < after for (begin, end), (after, _) in pairwise(spans))


def openings(opened: Snapshot) -> list[Opening]:
    """Of its one stream: what relates the clocks, generation by generation."""
    found = []
    for section in opened.file.generations(0):
        opening = decode_generation(opened.file.body(section).data, b"", sealed_by_mark=False).opening
        assert opening is not None
        found.append(opening)
    return found


def about(values: list[int]) -> list[int]:
    """Differences of the first one, in whole seconds, each once."""
    seconds = [round((value - values[0]) / 1e9) for value in values]
    return list(dict.fromkeys(seconds))


def test_wall_clock_that_is_stepped_changes_no_order_and_the_snapshot_tells_of_it(
    recorder: PlacedRecorder, program: Program, clocks: Clocks, tmp_path: Path
) -> None:
    wall_ns = time.time_ns()
    clocks.set(HOUR_NS)
    more(program)
    ahead = taken(recorder, tmp_path / "ahead.frz")
    check_order(ahead, 2)
    assert 0 <= ahead.header.created_wall_ns - wall_ns - HOUR_NS < 60 * 10**9
    clocks.set(-2 * HOUR_NS)
    more(program)
    behind = taken(recorder, tmp_path / "behind.frz")
    check_order(behind, 3)
    clocks.set(0)
    more(program)
    opened = taken(recorder, tmp_path / "again.frz")
    check_order(opened, 4)
    # each generation says what the wall clock was at its begin
    assert about([each.wall_ns - each.monotonic_ns for each in openings(opened)]) == [0, 3600, -7200]
    assert about([each.boottime_ns - each.monotonic_ns for each in openings(opened)]) == [0]
    # times of day are those of the moment when the snapshot was made
    assert 0 <= opened.wall_ns(opened.end_ns) - wall_ns < 60 * 10**9
    program.tell("end")
    program.end()


def test_host_that_is_suspended_loses_nothing_and_nobody_counts_as_silent(
    recorder: PlacedRecorder, program: Program, clocks: Clocks, tmp_path: Path
) -> None:
    # so does a suspend look to a process: the monotonic clock stood still
    clocks.set(HOUR_NS, HOUR_NS)
    opened = taken(recorder, tmp_path / "at once.frz")
    check_order(opened, 1)
    more(program)
    opened = taken(recorder, tmp_path / "later.frz")
    check_order(opened, 2)
    for clock in ("wall_ns", "boottime_ns"):
        assert about([getattr(each, clock) - each.monotonic_ns for each in openings(opened)]) == [0, 3600]
    assert (opened.ledger.lost, opened.ledger.evicted) == (0, 0)
    assert frzmq("validate", str(tmp_path / "later.frz")).returncode == 0
    program.tell("end")
    program.end()
