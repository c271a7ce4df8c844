"""A program, or a recorder, that has no file descriptors left; and has some again."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.peers import dealer_to
from support.places import PlacedRecorder, kill, placed_recorder, recorder_to_kill, started, with_limit
from support.programs import Program
from support.recorder_process import on_tcp, taken
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.errors import ControlError
from frzmq.transport.addresses import parse_address
from frzmq.transport.sockets import Context, Socket, close_all, new_context

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
EMBEDS = """
    import os, resource, sys
    import frzmq, frzmq.embedded, frzmq.flight
    from frzmq.errors import StateError

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = take_all_but(int(sys.argv[1]))
    try:
        frzmq.start(service="few")
    except StateError as error:
        print(error, flush=True)
    give(taken)
    print(len(os.listdir("/proc/self/fd")), flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 3000), hard))
    many = [os.dup(0) for _ in range(min(hard, 3000) - 100)]
    flight = frzmq.start(service="many")
    frzmq.event("with")
    print(frzmq.flush(20), flight.stop(), len(many) > 1024, flush=True)
"""
HONEST = """
    import sys
    import frzmq

    frzmq.start(service="honest", recorder=sys.argv[1])
    for n in range(2000):
        if n == 1000:
            print(frzmq.flush(20), flush=True)
            sys.stdin.readline()
        frzmq.event("n", n=n)
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
    with (
        recorder_to_kill(*where) as first,
        started(tmp_path / "few.py", FILES + RUNS, first.address) as program,
    ):
        assert program.line() == "True"
        program.tell("take all")
        assert program.line() == f"unreachable cannot connect to {first.address}: Too many open files"
        # its connections are there: it answers
        during = taken(first, tmp_path / "during.frz")
        assert [event.name for event in during.events] == ["before", "without"]
        assert (during.header.missing, during.ledger.lost) == ((), 0)
        kill(first.process)
        with placed_recorder((), *where) as second:
            with ControlClient(second.address) as client:
                program.tell("give")
                assert program.line() == "True"
                until(lambda: [t.state for t in client.status().tracers] == ["live"], "the program")
            opened = taken(second, tmp_path / "s.frz")
            # what the first had acknowledged went with it
            assert [event.name for event in opened.events] in (["with"], ["without", "with"])
            assert opened.ledger.duplicate == 0
            let_go(program)


@pytest.mark.parametrize("free", [2, 5])
def test_program_that_cannot_start_a_recorder_of_its_own_hears_of_it_and_one_with_thousands_of_files_can(
    tmp_path: Path, directory: Path, free: int
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
        pytest.skip("wants a hard limit of 2000 file descriptors")
    variables = {"FRZMQ_RUNTIME_DIR": str(directory)}
    with started(tmp_path / "few.py", FILES + EMBEDS, str(free), **variables) as program:
        assert program.line().startswith("embedded recorder: wanted it to start, got ")
        # the standard streams, and the one that looks
        assert program.line() == "4"
        assert program.line() == "True None True"
        program.end()
    assert list(directory.iterdir()) == []


def connect_again_and_again(address: str, count: int) -> tuple[Context, list[Socket]]:
    """So many peers that greet, say nothing, and come back whenever they are cut off."""
    context = new_context()
    endpoint = parse_address(address).control
    return context, [dealer_to(context, endpoint) for _ in range(count)]


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_recorder_whose_descriptors_peers_take_lives_does_not_spin_and_serves_all_once_there_are_some(
    directory: Path, tmp_path: Path, scheme: str
) -> None:
    said = ("wanted ", "no file descriptors")
    with contextlib.ExitStack() as stack:

        def serve(address: str) -> PlacedRecorder:
            limit = with_limit(nofile=64)
            return stack.enter_context(placed_recorder(limit, address, "--no-death-snapshots", said=said))

        recorder = serve(str(directory)) if scheme == "ipc" else on_tcp(serve)
        address = recorder.address
        program = stack.enter_context(started(tmp_path / "honest.py", HONEST, address))
        client = stack.enter_context(ControlClient(address))
        assert program.line() == "True"
        context, peers = connect_again_and_again(address, 60)
        try:
            until(lambda: any("descriptors" in error for error in asked(address)), "that it says so")
            began, before = time.monotonic(), recorder.cpu_s()
            # the attack has a length
            time.sleep(2)
            assert recorder.cpu_s() - before < 0.7 * (time.monotonic() - began)
            assert recorder.process.poll() is None
        finally:
            close_all(context, peers, 0)
        program.tell("more")
        assert program.line() == "True"
        until(lambda: [t.state for t in client.status().tracers] == ["live"], "the honest one")
        opened = taken(recorder, tmp_path / "s.frz")
        assert [event.attributes["n"] for event in opened.events] == [*range(2000)]
        assert (opened.ledger.lost, opened.ledger.balanced) == (0, True)
        let_go(program)


def asked(address: str) -> tuple[str, ...]:
    """Its errors; none, while it does not answer a newcomer."""
    try:
        with ControlClient(address) as client:
            return client.status().errors
    except ControlError:
        return ()
