"""Nothing is lost silently: in every state what was recorded is held, evicted or lost by a named cause, by writer, held against a count that is not the recorder's."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.counted_tracer import CountedTracer
from support.programs import DEADLINE_S, Program
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.errors import ControlError
from frzmq.reader.certificate import certificate
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate
from frzmq.wire.ledger import PLACES, Ledger, Places, WriterLedger, writers_disagree
from frzmq.wire.messages import TracerStatus

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecorderProcess]:
    """One for all: tracers have nothing to do with each other."""
    with recorder_process(f"ipc://{tmp_path_factory.mktemp('r')}") as process:
        yield process


@pytest.fixture
def client(recorder: RecorderProcess) -> Iterator[ControlClient]:
    with ControlClient(recorder.address, timeout_s=10) as made:
        yield made


@pytest.fixture
def tracer(recorder: RecorderProcess) -> Iterator[CountedTracer]:
    made = CountedTracer(recorder.address)
    yield made
    if made.stopped is None:
        # else the next test's flush waits for it
        made.goodbye()
    made.close()


def counts(places: Places) -> dict[str, int]:
    """Those that are not 0."""
    names = ("recorded", *PLACES, "dropped", "duplicate", "rejected", "torn")
    return {name: value for name in names if (value := getattr(places, name, 0))}


def status_of(client: ControlClient, uuid: bytes) -> TracerStatus:
    """What ``frzmq status`` tells, which adds up."""
    status = next(each for each in client.status(writers=True).tracers if each.uuid == uuid)
    assert status.ledger.balanced, status.ledger.equation
    assert writers_disagree(status.ledger, status.writers, status.other_writers) == ""
    return status


def taken(client: ControlClient, path: Path, *tracers: CountedTracer) -> Snapshot:
    """A snapshot that does not contradict itself, while the tracers go on."""
    with path.open("wb") as file:
        thread = threading.Thread(target=lambda: client.snapshot(file), daemon=True)
        thread.start()
        for tracer in tracers:
            tracer.until(lambda: not thread.is_alive())
        thread.join(DEADLINE_S)
    opened = open_snapshot(path)
    assert [f for f in validate(opened) if f.level is Level.ERROR] == []
    assert certificate(opened.header).unbalanced == ()
    return opened


def flush(client: ControlClient, tracer: CountedTracer) -> None:
    """What it recorded is in sealed generations, or lost."""
    generation = tracer.generation
    thread = threading.Thread(target=client.flush, daemon=True)
    thread.start()
    tracer.until(lambda: not thread.is_alive())
    assert tracer.generation > generation


def another(tracer: CountedTracer) -> None:
    """Generation; a gap holds up the seal of the one before, until a third is open."""
    generation = tracer.generation
    tracer.until(lambda: tracer.generation > generation)


# --- each way to be lost


def sent(tracer: CountedTracer, _: ControlClient) -> None:
    tracer.write(1, 5)
    tracer.write(2, 7)


def overwritten(tracer: CountedTracer, client: ControlClient) -> None:
    tracer.write(1, 3)
    tracer.write(1, 40, "overwritten")
    tracer.write(2, 2)
    flush(client, tracer)
    tracer.write(2, 9, "overwritten")


def emptied(tracer: CountedTracer, _: ControlClient) -> None:
    tracer.write(1, 3)
    tracer.write(1, 6, "emptied")
    tracer.write(2, 4, "emptied")


def lost(tracer: CountedTracer, _: ControlClient) -> None:
    tracer.write(1, 3)
    tracer.write(1, 6, "lost")
    tracer.write(2, 8, "lost")
    for _turn in range(3):
        another(tracer)
    tracer.write(2, 1)


def late(tracer: CountedTracer, _: ControlClient) -> None:
    batches = [tracer.write(1, 6, "lost"), tracer.write(2, 8, "lost")]
    tracer.write(1, 1)
    for _turn in range(3):
        another(tracer)
    tracer.send(batches[1])


def duplicate(tracer: CountedTracer, _: ControlClient) -> None:
    tracer.send(tracer.write(1, 6))
    tracer.write(2, 1)


def rejected(tracer: CountedTracer, _: ControlClient) -> None:
    tracer.write(1, 6)
    tracer.forge(1, 3)


def dropped(tracer: CountedTracer, client: ControlClient) -> None:
    tracer.write(1, 6)
    tracer.write(1, 3, "dropped")
    tracer.write(2, 4, "dropped")
    flush(client, tracer)
    tracer.write(1, 2, "dropped")
    tracer.heartbeat()


def switched_off(tracer: CountedTracer, client: ControlClient) -> None:
    tracer.write(1, 6)
    flush(client, tracer)
    tracer.write(2, 2)
    tracer.flush_mark()
    with contextlib.suppress(ControlError):
        # of another test's tracer
        client.stop()
    tracer.write(1, 100)
    tracer.write(3, 100)
    tracer.flush_mark()
    generation = tracer.generation
    client.start()
    tracer.until(lambda: tracer.generation > generation)
    tracer.write(1, 3)


def stopped(tracer: CountedTracer, _: ControlClient) -> None:
    tracer.write(1, 6)
    tracer.write(2, 4, "lost")
    tracer.write(1, 2)
    tracer.flush_mark()
    tracer.send(tracer.write(2, 1, "lost") + b"fz")
    tracer.until(lambda: tracer.stopped is not None)


WAYS: list[tuple[Callable[[CountedTracer, ControlClient], None], dict[str, int], dict[int, dict[str, int]]]] = [
    (sent, {}, {1: {"held": 5}, 2: {"held": 7}}),
    (overwritten, {}, {1: {"held": 3, "overwritten": 40}, 2: {"held": 2, "overwritten": 9}}),
    (emptied, {}, {1: {"held": 3, "overwritten": 6}, 2: {"overwritten": 4}}),
    (lost, {}, {1: {"held": 3, "missing": 6}, 2: {"held": 1, "missing": 8}}),
    (late, {}, {1: {"held": 1, "missing": 6}, 2: {"late": 8}}),
    (duplicate, {"duplicate": 6}, {1: {"held": 6}, 2: {"held": 1}}),
    (rejected, {"rejected": 3}, {1: {"held": 6}}),
    (dropped, {"dropped": 9}, {1: {"held": 6, "dropped": 5}, 2: {"dropped": 4}}),
    (switched_off, {}, {1: {"held": 3, "evicted": 6}, 2: {"evicted": 2}}),
    # what was lost of another writer nobody told of: the next incarnation's indices would (tests/unit/recorder/test_machine.py)
    (stopped, {}, {1: {"held": 8}}),
]


@pytest.mark.parametrize(("do", "beside", "wanted"), WAYS, ids=[way[0].__name__ for way in WAYS])
def test_ledger_of_each_way_to_be_lost_is_exact_by_writer(
    client: ControlClient,
    tracer: CountedTracer,
    tmp_path: Path,
    do: Callable[[CountedTracer, ControlClient], None],
    beside: dict[str, int],
    wanted: dict[int, dict[str, int]],
) -> None:
    do(tracer, client)
    status_of(client, tracer.uuid)
    opened = taken(client, tmp_path / "s.frz", tracer)
    process = next(process for process in opened.processes if process.uuid == tracer.uuid.hex())
    found = {row.writer: counts(row) for row in process.writers}
    assert found == {writer: counts(WriterLedger(_recorded(row), **row)) for writer, row in wanted.items()}
    total: Counter[str] = Counter(beside)
    for row in found.values():
        total.update({name: count for name, count in row.items() if name != "dropped"})
    assert counts(process.ledger) == total
    # what the status tells and what a snapshot tells are one
    status = status_of(client, tracer.uuid)
    assert {name: count for name, count in counts(status.ledger).items() if name != "open"} == counts(process.ledger)
    held = Counter(record.writer for record in opened if record.process == process.number)
    assert dict(held) == {writer: row["held"] for writer, row in found.items() if "held" in row}
    told = {gap.cause: gap.count for gap in opened.gaps if gap.process == process.number and gap.count is not None}
    assert set(told) <= {"overwritten", "missing", "dropped"}


def _recorded(row: dict[str, int]) -> int:
    return sum(count for place, count in row.items() if place in PLACES)


def test_ledger_of_what_was_evicted_is_exact_by_writer(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    arguments = ("--max-bytes", "256k", "--max-generation-bytes", "64k")
    with (
        recorder_process(f"ipc://{tmp_path_factory.mktemp('r')}", *arguments) as process,
        ControlClient(process.address) as client,
    ):
        tracer = CountedTracer(process.address)
        for n in range(12):
            tracer.write(1, 10_000)
            tracer.write(2, 100 + n)
            flush(client, tracer)
        opened = taken(client, tmp_path / "s.frz", tracer)
        tracer.close()
    rows = {row.writer: row for row in opened.processes[0].writers}
    held = Counter(record.writer for record in opened)
    assert {writer: (row.recorded, row.held) for writer, row in rows.items()} == {
        1: (120_000, held[1]),
        2: (sum(range(100, 112)), held[2]),
    }
    assert all(row.evicted == row.recorded - row.held > 0 for row in rows.values())


# --- the tracer itself

THREADS = """
    import frzmq, json, os, signal, sys, threading

    def work(name, number):
        for n in range(number):
            frzmq.event(name, n=n)

    def burst(number):
        threads = [threading.Thread(target=work, args=(name, number)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    frzmq.event("begin")
    assert frzmq.flush(20)
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "end\\n":
            break
        burst(int(line))
        print("done", flush=True)
    frzmq.stop()
"""


@pytest.fixture
def program(tmp_path: Path, directory: Path) -> Iterator[Callable[..., Program]]:
    made: list[Program] = []

    def start(**variables: str) -> Program:
        values = {"FRZMQ_RECORDER": str(directory), "FRZMQ_RUNTIME_DIR": str(directory), **variables}
        made.append(Program(tmp_path / "threads.py", THREADS, **values))
        assert made[-1].line() == "ready"
        return made[-1]

    yield start
    for each in made:
        each.process.kill()
        each.process.communicate()


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


def burst(program: Program, number: int) -> None:
    """Of two new threads, so many events each."""
    program.tell(str(number))
    assert program.line() == "done"


def until_settled(client: ControlClient, of: Callable[[TracerStatus], bool]) -> TracerStatus:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        client.flush()
        (status,) = client.status(writers=True).tracers
        # also in the midst of it
        assert status.ledger.balanced, status.ledger.equation
        assert writers_disagree(status.ledger, status.writers, status.other_writers) == ""
        if of(status):
            return status
        assert time.monotonic() < deadline, status.ledger.equation


def by_index(opened: Snapshot) -> dict[int, tuple[int, int]]:
    """By writer: the first of its records that is held, and the end of its indices, as the records say."""
    found: dict[int, tuple[int, int]] = {}
    for record in opened:
        first, end = found.get(record.writer, (record.writer_index, 0))
        found[record.writer] = min(first, record.writer_index), max(end, record.writer_index + 1)
    return found


def test_ledger_of_a_program_that_overtakes_its_stopped_recorder_is_exact(
    tmp_path: Path, directory: Path, program: Callable[..., Program]
) -> None:
    with recorder_process(f"ipc://{directory}") as recorder, ControlClient(recorder.address) as client:
        running = program(FRZMQ_BUFFER_BYTES="256k")
        recorder.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, recorder.process.pid, os.WSTOPPED)
        burst(running, 60_000)
        recorder.process.send_signal(signal.SIGCONT)
        burst(running, 10)
        until_settled(client, lambda status: status.recorded >= 120_020)
        opened = taken(client, tmp_path / "s.frz")
        ledger = opened.processes[0].ledger
        recorded = {row.writer: row.recorded for row in opened.processes[0].writers}
        ends = {writer: end for writer, (_, end) in by_index(opened).items()}
        assert all(recorded[writer] >= end for writer, end in ends.items())
        # of the first two the end may be gone, or all; each says as much of itself as the last two, of which all is here
        own = ends[max(ends)] - 10
        assert sorted(recorded.values())[1:] == [10 + own, 10 + own, 60_000 + own, 60_000 + own]
        assert ledger.overwritten + ledger.dropped > 0
        assert ledger.missing == ledger.late == ledger.evicted == 0
        assert ledger.held == sum(1 for _ in opened)
        assert {gap.cause for gap in opened.gaps if gap.count} <= {"overwritten", "dropped"}
        told = sum(gap.count for gap in opened.gaps if gap.count and gap.cause == "overwritten")
        assert told == ledger.overwritten


def test_ledger_of_a_program_that_was_killed_is_exact(
    tmp_path: Path, directory: Path, program: Callable[..., Program]
) -> None:
    with (
        recorder_process(f"ipc://{directory}", "--no-death-snapshots") as recorder,
        ControlClient(recorder.address) as client,
    ):
        running = program()
        burst(running, 3000)
        running.process.kill()
        until_settled(client, lambda status: status.state == "dead")
        opened = taken(client, tmp_path / "s.frz")
        ledger = opened.processes[0].ledger
        assert sum(event.name in ("a", "b") for event in opened.events) == 6000
        assert {row.writer: row.recorded for row in opened.processes[0].writers} == {
            writer: end for writer, (_, end) in by_index(opened).items()
        }
        assert dataclasses.replace(ledger, torn=0) == Ledger(ledger.recorded, held=ledger.recorded)
        assert certificate(opened.header).dead == (opened.processes[0].name,)


def test_ledger_of_a_recorder_that_was_restarted_begins_at_the_first_that_it_is_told(
    tmp_path: Path, directory: Path, program: Callable[..., Program]
) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(recorder_process(f"ipc://{directory}"))
        running = program()
        with ControlClient(first.address) as client:
            client.flush()
            (before,) = client.status().tracers
        first.process.kill()
        first.process.wait()
        burst(running, 3000)
        second = stack.enter_context(recorder_process(f"ipc://{directory}"))
        client = stack.enter_context(ControlClient(second.address))
        until(lambda: client.status().tracers, "it does not come again", DEADLINE_S)
        until_settled(client, lambda status: status.recorded >= 6000)
        opened = taken(client, tmp_path / "s.frz")
        events = Counter(event.name for event in opened.events)
        assert (events["a"], events["b"]) == (3000, 3000)
        ledger = opened.processes[0].ledger
        assert dataclasses.replace(ledger, missing=0, recorded=ledger.held) == Ledger(ledger.held, held=ledger.held)
        # the end mark of what the first had, if the tracer does not know yet that it came: nobody has that any more
        assert ledger.missing in (0, before.ledger.held)
        assert {row.writer: row.recorded - row.missing for row in opened.processes[0].writers} == {
            writer: end - first for writer, (first, end) in by_index(opened).items()
        }
