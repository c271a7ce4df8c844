"""A tracer is killed, suspended, forks or execs, under load and while a snapshot is made."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import support.quick_recorder
from support.loads import FLUSH_S, Aside, Load, numbers, process_of, taken, tracer_of, truthful, until_state, written
from support.programs import DEADLINE_S, Program
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.reader.snapshot import Snapshot

LARGE = ("--max-bytes", "1G", "--min-age", "1h", "--no-death-snapshots")
"""Of recorders: nothing is evicted."""


@pytest.fixture
def recorder(directory: Path) -> Iterator[RecorderProcess]:
    with recorder_process(str(directory), *LARGE) as process:
        yield process


def check_suspended(tmp_path: Path, address: str) -> None:
    load = Load(tmp_path, address)
    try:
        with ControlClient(address) as client:
            until_state(client, load.pid, "live")
            load.until_more()
            load.send(signal.SIGSTOP)
            until_state(client, load.pid, "silent")
            during = written(address, tmp_path, within_s=FLUSH_S + 5)
            counts = load.counts()
            load.send(signal.SIGCONT)
            load.until_more()
        ends = load.finish()
        after = written(address, tmp_path)
    finally:
        load.close()
    opened = truthful(during)
    assert (process_of(opened, load.pid).state, opened.header.missing) == ("silent", ())
    for found, count in zip(numbers(opened, load.pid, load.threads), counts, strict=True):
        assert found in ([*range(count)], [*range(count - 1)])
    opened = truthful(after)
    assert numbers(opened, load.pid, load.threads) == [[*range(end)] for end in ends]
    ledger = process_of(opened, load.pid).ledger
    assert (ledger.lost, ledger.late, ledger.duplicate) == (0, 0, 0)
    assert [gap for gap in opened.gaps if gap.process == process_of(opened, load.pid).number] == []


def test_tracer_suspended_for_longer_than_silence_goes_on_without_a_loss(tmp_path: Path, directory: Path) -> None:
    program = (str(Path(support.quick_recorder.__file__)), "1.5", "60", "30")
    with recorder_process(str(directory), *LARGE, program=program) as recorder:
        check_suspended(tmp_path, recorder.address)


@pytest.mark.long
def test_tracer_suspended_for_ten_seconds_and_more_goes_on_without_a_loss(
    tmp_path: Path, recorder: RecorderProcess
) -> None:
    check_suspended(tmp_path, recorder.address)


def check_to_the_last(found: list[list[int]], counts: list[int]) -> None:
    """All of it; of the record that each thread was in the midst of nothing, or all."""
    for numbers_, count in zip(found, counts, strict=True):
        assert numbers_ in ([*range(count)], [*range(count - 1)])


def test_tracer_killed_under_load_while_a_snapshot_waits_for_it_is_there_to_its_last_record(
    tmp_path: Path, recorder: RecorderProcess
) -> None:
    killed, other = Load(tmp_path, recorder.address), Load(tmp_path, recorder.address)
    try:
        with ControlClient(recorder.address) as client:
            for load in (killed, other):
                until_state(client, load.pid, "live")
                load.until_more()
            # so that the snapshot waits
            killed.send(signal.SIGSTOP)
            asked = Aside(lambda: written(recorder.address, tmp_path, within_s=FLUSH_S + 5))
            until(lambda: waits(client, other.pid), "nobody was told to flush")
            killed.send(signal.SIGKILL)
            during = asked.result()
            until_state(client, killed.pid, "dead")
        other.until_more()
        ends = other.finish()
        after = written(recorder.address, tmp_path)
    finally:
        for load in (killed, other):
            load.close()
    for path in (during, after):
        opened = truthful(path)
        assert opened.header.missing == ()
        check_to_the_last(numbers(opened, killed.pid, killed.threads), killed.counts())
        ledger = process_of(opened, killed.pid).ledger
        assert (ledger.lost - ledger.torn, ledger.duplicate) == (0, 0)
    assert process_of(opened, killed.pid).state == "dead"
    assert numbers(opened, other.pid, other.threads) == [[*range(end)] for end in ends]


def waits(client: ControlClient, pid: int) -> bool:
    """It has sealed more than it would have by itself: a flush is under way."""
    before = tracer_of(client, pid)
    time.sleep(0.3)
    now = tracer_of(client, pid)
    assert before is not None and now is not None
    return now.generation > before.generation


def test_tracers_stopped_under_load_are_read_for_a_snapshot_and_go_on(
    tmp_path: Path, recorder: RecorderProcess
) -> None:
    loads = [Load(tmp_path, recorder.address) for _ in range(3)]
    try:
        with ControlClient(recorder.address) as client:
            for load in loads:
                until_state(client, load.pid, "live")
                load.until_more()
        for load in loads:
            load.send(signal.SIGSTOP)
        during = written(recorder.address, tmp_path, within_s=FLUSH_S + 5)
        counts = [load.counts() for load in loads]
        for load in loads:
            load.send(signal.SIGCONT)
        ends = [load.finish() for load in loads]
        after = written(recorder.address, tmp_path)
    finally:
        for load in loads:
            load.close()
    opened = truthful(during)
    assert opened.header.missing == ()
    for load, count in zip(loads, counts, strict=True):
        check_to_the_last(numbers(opened, load.pid, load.threads), count)
    opened = truthful(after)
    for load, end in zip(loads, ends, strict=True):
        assert numbers(opened, load.pid, load.threads) == [[*range(n)] for n in end]
    assert (opened.ledger.lost, opened.ledger.duplicate, opened.gaps) == (0, 0, ())


AFTER = """
import frzmq, sys
for n in range(200):
    frzmq.event("after", n=n)
assert frzmq.flush(30)
print("on", flush=True)
sys.stdin.readline()
"""
FORKS = """
    import frzmq, os, sys, threading, warnings
    from frzmq.tracer import runtime

    runtime.END_S = 20.0  # a busy machine may hold the recorder for longer than a child waits at its end
    warnings.simplefilter("ignore")  # Python 3.12 and later warn of a fork beside a thread: this one is the program's
    ends = threading.Event()
    recorded = []

    def load():
        n = 0
        while not ends.wait(0.005):
            for n in range(n, n + 10):
                frzmq.event("parent", n=n)
            n += 1
        recorded.append(n)

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(int(sys.argv[1])):
        pid = os.fork()
        if pid == 0:
            for n in range(200):
                frzmq.event("child", n=n)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(pid, flush=True)
    ends.set()
    thread.join()
    assert frzmq.flush(30)
    print("done", *recorded, flush=True)
    sys.stdin.readline()
    for n in range(200):
        frzmq.event("before", n=n)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""


def of_name(opened: Snapshot, pid: int, name: str) -> list[object]:
    pids = {process.number: process.pid for process in opened.processes}
    return [e.attributes["n"] for e in opened.events if e.name == name and pids[e.process] == pid]


def test_tracer_that_forks_and_execs_under_load_while_snapshots_are_made_loses_nothing(
    tmp_path: Path, recorder: RecorderProcess
) -> None:
    program = Program(tmp_path / "forks.py", FORKS, "5", AFTER, FRZMQ_RECORDER=recorder.address)
    try:
        children = []
        while (said := program.line().split())[0] != "done":
            children.append(int(said[0]))
            opened = taken(recorder.address, tmp_path, within_s=FLUSH_S + 5)
            assert of_name(opened, children[-1], "child") == [*range(200)]
        asked = Aside(lambda: written(recorder.address, tmp_path, within_s=FLUSH_S + 5))
        program.tell("")
        assert program.line() == "on"
        truthful(asked.result())
        with ControlClient(recorder.address) as client:
            until(
                lambda: (
                    sorted(t.state for t in client.status().tracers if t.pid == program.process.pid) == ["dead", "live"]
                ),
                "the exec was not noticed",
            )
        opened = taken(recorder.address, tmp_path, within_s=FLUSH_S + 5)
    finally:
        program.process.kill()
        program.process.communicate(timeout=DEADLINE_S)
    assert len(children) == 5
    for child in children:
        assert of_name(opened, child, "child") == [*range(200)]
    pid = program.process.pid
    assert of_name(opened, pid, "parent") == [*range(int(said[1]))]
    assert of_name(opened, pid, "before") == of_name(opened, pid, "after") == [*range(200)]
    assert (opened.ledger.lost, opened.ledger.duplicate) == (0, 0)
