"""Every call: of programs that record themselves, read back from their snapshots."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest
from support.called import MONITORED, leaf, of, recorder, short, shown, total
from support.flights import taken
from support.programs import DEADLINE_S

import frzmq
from frzmq.export.text import write_text
from frzmq.flight import FlightRecorder
from frzmq.reader.model import Call
from frzmq.reader.snapshot import Snapshot
from frzmq.tracer.choice import native

pytestmark = [
    pytest.mark.usefixtures("runtime_directory"),
    pytest.mark.skipif(native is None, reason="only the native buffer records calls"),
]


def test_calls_nest_as_they_were_made(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()
    total(1)
    snapshot = taken(flight, tmp_path)
    assert shown(snapshot) == [(0, "total"), (1, "leaf"), (1, "total"), (2, "leaf")]
    outer = snapshot.calls[0]
    assert (outer.code.file, outer.code.line) == (total.__code__.co_filename, total.__code__.co_firstlineno)
    assert all(call.begin_held and call.end_held and not call.error for call in snapshot.calls)
    for call in snapshot.calls[1:]:
        assert outer.begin_ns is not None and outer.end_ns is not None
        assert call.begin_ns is not None and call.end_ns is not None
        assert outer.begin_ns <= call.begin_ns <= call.end_ns <= outer.end_ns


def test_calls_nest_in_the_text(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()
    total(0)
    out = io.StringIO()
    write_text(taken(flight, tmp_path), out)
    lines = [line.partition("MainThread  ")[2] for line in out.getvalue().splitlines() if "  call_" in line]
    lines = [re.sub(r"  [0-9.]+[nu]s", "  T", line.replace(f"{total.__module__}.", "")) for line in lines]
    assert lines == [
        "call_begin  total",
        "call_begin    leaf",
        "call_end    leaf  T",
        "call_end  total  T",
    ]


def test_calls_that_an_exception_unwinds_end_with_it(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()

    def fails() -> None:
        raise KeyError

    def passes_it_on() -> None:
        fails()

    def catches() -> None:
        with pytest.raises(KeyError):
            passes_it_on()
        leaf()

    catches()
    snapshot = taken(flight, tmp_path)
    error = "KeyError" if MONITORED else "exception"
    assert [(c.depth, short(c), c.error) for c in snapshot.calls] == [
        (0, "catches", ""),
        (1, "passes_it_on", error),
        (2, "fails", error),
        (1, "leaf", ""),
    ]


def test_calls_of_a_generator_are_the_stretches_in_which_it_runs(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()

    def numbers() -> Iterator[int]:
        yield leaf()
        yield 2

    def uses() -> int:
        found = 0
        for number in numbers():
            found += number + leaf()
        return found

    assert uses() == 5
    snapshot = taken(flight, tmp_path)
    assert [(c.depth, short(c), c.resumed, c.suspended) for c in snapshot.calls] == [
        (0, "uses", False, False),
        (1, "numbers", False, True),
        (2, "leaf", False, False),
        (1, "leaf", False, False),
        (1, "numbers", True, True),
        (1, "leaf", False, False),
        (1, "numbers", True, False),
    ]


def test_calls_what_is_thrown_into_a_generator_resumes_it(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()

    def catching() -> Iterator[int]:
        try:
            yield 1
        except KeyError:
            leaf()

    generator: Any = catching()
    next(generator)
    with pytest.raises(StopIteration):
        generator.throw(KeyError)
    abandoned: Any = catching()
    next(abandoned)
    abandoned.close()
    leaf()
    snapshot = taken(flight, tmp_path)
    stretches = [(c.depth, c.resumed, c.suspended) for c in of(snapshot, "catching")]
    assert stretches[:3] == [(0, False, True), (0, True, False), (0, False, True)]
    assert shown(snapshot)[-1] == (0, "leaf")
    assert not [call for call in snapshot.calls if call.end_ns is None]


def test_calls_of_coroutines_are_on_their_tasks(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()

    async def item() -> int:
        await asyncio.sleep(0)
        return leaf()

    async def order() -> int:
        return await item() + await item()

    async def stream() -> AsyncIterator[int]:
        yield await item()

    async def reads() -> None:
        async for _ in stream():
            leaf()

    async def both() -> None:
        await asyncio.gather(asyncio.create_task(order(), name="one"), asyncio.create_task(reads(), name="two"))

    def runs() -> None:
        asyncio.run(both())

    runs()
    snapshot = taken(flight, tmp_path)
    assert [(c.depth, short(c), c.resumed, c.suspended) for c in snapshot.calls if label(snapshot, c) == "one"] == [
        (0, "order", False, True),
        (1, "item", False, True),
        (0, "order", True, True),
        (1, "item", True, False),
        (2, "leaf", False, False),
        (1, "item", False, True),
        (0, "order", True, False),
        (1, "item", True, False),
        (2, "leaf", False, False),
    ]
    assert [(short(c), c.resumed, c.suspended) for c in snapshot.calls if label(snapshot, c) == "two"][:3] == [
        ("reads", False, True),
        ("stream", False, True),
        ("item", False, True),
    ]
    assert [c.depth for c in of(snapshot, "runs")] == [0]
    assert snapshot.tracks[of(snapshot, "runs")[0].track].task == 0


def label(snapshot: Snapshot, call: Call) -> str:
    return snapshot.tracks[call.track].label


def test_calls_belong_to_the_operation_that_is_current(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()
    with frzmq.operation("order"):
        leaf()
    leaf()
    snapshot = taken(flight, tmp_path)
    assert [call.operation for call in of(snapshot, "leaf")] == [snapshot.operations[0].number, None]


def test_calls_are_timed_by_the_clock_of_all_records(tmp_path: Path) -> None:
    around = []
    with recorder(calls_per_second=0) as flight:
        for _ in range(20_000):  # some of the ticks' rates and looks at the clock
            before_ns = monotonic_ns()
            leaf()
            around.append((before_ns, monotonic_ns()))
        snapshot = taken(flight, tmp_path)
    times = [(call.begin_ns or 0, call.end_ns or 0) for call in of(snapshot, "leaf")]
    assert len(times) == len(around)
    late = [(after, end) for (_, after), (_, end) in zip(around, times, strict=True) if end > after]
    assert late == []
    early_ns = [before - begin for (before, _), (begin, _) in zip(around, times, strict=True) if begin < before]
    assert max(early_ns, default=0) < 1_000_000
    assert sum(early > 1000 for early in early_ns) < 200


def test_calls_of_threads_that_start_later_are_recorded(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()

    def work() -> None:
        total(0)

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join()
    assert shown(taken(flight, tmp_path), "worker") == [(0, "work"), (1, "total"), (2, "leaf")]


def test_calls_that_are_open_are_said_by_each_generation(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()
    entered, leave = threading.Event(), threading.Event()

    def waits() -> None:
        leaf()
        entered.set()
        leave.wait(DEADLINE_S)

    thread = threading.Thread(target=waits, name="waiting")
    thread.start()
    entered.wait(DEADLINE_S)
    taken(flight, tmp_path)  # which begins a generation
    snapshot = taken(flight, tmp_path)
    leave.set()
    thread.join()
    after = taken(flight, tmp_path)
    (call,) = of(snapshot, "waits")
    assert (call.begin_held, call.end_ns) == (True, None)
    said = [r for r in snapshot if r.name == "call_open" and "waits" in str(r.fields["code"])]
    assert len(said) >= 1
    assert {r.time_ns - int(str(r.fields["age"])) for r in said} == {call.begin_ns}
    (call,) = of(after, "waits")
    assert (call.begin_held, call.end_held, call.error) == (True, True, "")


def test_calls_open_when_the_recording_began_leave_no_end(tmp_path: Path) -> None:
    def begins_it() -> FlightRecorder:
        flight = recorder()
        flight.start()
        leaf()
        return flight

    def around() -> FlightRecorder:
        return begins_it()

    flight = around()
    leaf()
    snapshot = taken(flight, tmp_path)
    flight.stop()
    assert shown(snapshot) == [(0, "leaf"), (0, "leaf")]


def test_calls_go_on_in_a_second_recording_and_end_with_it(tmp_path: Path) -> None:
    for _ in range(2):
        with recorder() as flight:
            total(0)
            assert shown(taken(flight, tmp_path)) == [(0, "total"), (1, "leaf")]
    with recorder(calls=False) as flight:
        total(0)
        assert taken(flight, tmp_path).calls == ()


def test_calls_of_deep_recursion_are_whole(tmp_path: Path) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(6000)
    try:
        with recorder(calls_per_second=0) as flight:
            total(3000)
            snapshot = taken(flight, tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert max(call.depth for call in snapshot.calls) == 3001
    assert len(snapshot.calls) == 6002
    assert not [call for call in snapshot.calls if call.end_ns is None]
