"""A program, or a recorder, that has no file descriptors left; and has some again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import PlacedRecorder, ended, placed_recorder, started
from support.programs import DEADLINE_S, Program
from support.servers import until

from frzmq.control.client import ControlClient
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate

FILES = """
    import os, resource

    def take_all_but(free):
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for _ in range(free):
            os.close(taken.pop())
        return taken

    def give(taken):
        for fd in taken:
            os.close(fd)
"""
STARTS = """
    import sys
    import frzmq, frzmq.flight
    from frzmq.errors import StateError

    taken = take_all_but(int(sys.argv[2]))
    try:
        flight = frzmq.start(service="few", recorder=sys.argv[1])
    except StateError as error:
        print(error, flush=True)
        give(taken)
        flight = frzmq.start(service="few", recorder=sys.argv[1])
    else:
        print("started", flush=True)
        frzmq.event("without")
        print(frzmq.flush(0.1), flush=True)
        give(taken)
    frzmq.event("with")
    print(frzmq.flush(20), flush=True)
    sys.stdin.readline()
"""
RECORDS_BY_ITSELF = """
    import sys
    import frzmq, frzmq.flight, frzmq.tracer.runtime, time

    taken = take_all_but(int(sys.argv[1]))
    began = time.process_time()
    for n in range(1000):
        frzmq.event("without")
    cost_s = time.process_time() - began
    give(taken)
    deadline = time.monotonic() + 20
    while frzmq.tracer.runtime.stats() is None and time.monotonic() < deadline:
        frzmq.event("soon")
        time.sleep(0.01)
    frzmq.event("with")
    print(cost_s < 0.5, frzmq.flush(20), flush=True)
    sys.stdin.readline()
"""
RUNS = """
    import sys
    import frzmq
    from frzmq.control.client import ControlClient
    from frzmq.errors import ControlError

    frzmq.start(service="few", recorder=sys.argv[1])
    frzmq.event("before")
    print(frzmq.flush(20), flush=True)
    sys.stdin.readline()
    taken = take_all_but(0)
    frzmq.event("without")
    with ControlClient(sys.argv[1]) as client:
        try:
            client.status()
        except ControlError as error:
            print(error.code.value, error, flush=True)
    sys.stdin.readline()
    give(taken)
    frzmq.event("with")
    print(frzmq.flush(20), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Of the recorder: short, as a socket's path must be."""
    path = Path(f"/tmp/fz{os.urandom(4).hex()}")
    yield path
    if path.exists():
        shutil.rmtree(path)


@pytest.fixture
def recorder(directory: Path) -> Iterator[PlacedRecorder]:
    with placed_recorder((), str(directory), "--no-death-snapshots") as process:
        yield process


def taken(recorder: PlacedRecorder, path: Path) -> Snapshot:
    with path.open("xb") as file, ControlClient(recorder.address) as client:
        client.snapshot(file)
    opened = open_snapshot(path)
    assert [str(finding) for finding in validate(opened) if finding.level is Level.ERROR] == []
    return opened


def let_go(program: Program) -> None:
    program.tell("end")
    program.end()


def check_start(recorder: PlacedRecorder, tmp_path: Path, free: int) -> None:
    with started(tmp_path / f"few{free}.py", FILES + STARTS, recorder.address, str(free)) as program:
        said = program.line()
        names = ["with"]
        if said == "started":
            names = ["without", "with"]
            # a few more than zmq needs: whether that is enough is not to be seen from outside
            assert program.line() in ("True", "False")
        else:
            assert said == "start: wanted file descriptors, got none: Too many open files"
        assert program.line() == "True"
        opened = taken(recorder, tmp_path / f"{free}.frz")
        process = next(process for process in opened.processes if process.pid == program.process.pid)
        assert [event.name for event in opened.events if event.process == process.number] == names
        assert process.ledger.lost == 0
        let_go(program)


def test_program_that_starts_to_record_without_descriptors_lives_and_records_once_there_are_some(
    recorder: PlacedRecorder, tmp_path: Path
) -> None:
    # 5 to 7: zmq has a context, and aborts for want of an epoll
    for free in (1, 3, 6, 12):
        check_start(recorder, tmp_path, free)


@pytest.mark.long
def test_program_that_starts_to_record_with_any_number_of_descriptors_lives(
    recorder: PlacedRecorder, tmp_path: Path
) -> None:
    for free in range(1, 24):
        check_start(recorder, tmp_path, free)


@pytest.mark.parametrize("free", [0, 6])
def test_program_that_records_by_itself_begins_once_there_are_descriptors(
    recorder: PlacedRecorder, tmp_path: Path, free: int
) -> None:
    variables = {"FRZMQ_RECORDER": recorder.address, "FRZMQ_SERVICE": "few"}
    with started(tmp_path / "few.py", FILES + RECORDS_BY_ITSELF, str(free), **variables) as program:
        assert program.line() == "True True"
        opened = taken(recorder, tmp_path / "s.frz")
        names = [event.name for event in opened.events]
        assert names[-1] == "with"
        # where there were descriptors for the buffer nothing is lost
        assert names.count("without") == (1000 if free else 0)
        let_go(program)


def test_program_without_descriptors_whose_recorder_is_killed_joins_the_next(directory: Path, tmp_path: Path) -> None:
    where = (str(directory), "--no-death-snapshots")
    first = PlacedRecorder((), *where)
    with started(tmp_path / "few.py", FILES + RUNS, first.address) as program:
        assert program.line() == "True"
        program.tell("take all")
        assert program.line() == f"unreachable cannot connect to {first.address}: Too many open files"
        # its connections are there: it answers
        during = taken(first, tmp_path / "during.frz")
        assert [event.name for event in during.events] == ["before", "without"]
        assert (during.header.missing, during.ledger.lost) == ((), 0)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(DEADLINE_S)
        ended(first.process)
        with placed_recorder((), *where) as second:
            with ControlClient(second.address) as client:
                assert client.status().tracers == ()
                program.tell("give")
                assert program.line() == "True"
                until(lambda: [t.state for t in client.status().tracers] == ["live"], "the program")
            opened = taken(second, tmp_path / "s.frz")
            # what the first had acknowledged went with it
            assert [event.name for event in opened.events] == ["with"]
            assert opened.ledger.duplicate == 0
            let_go(program)
