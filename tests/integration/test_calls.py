"""Every call: of programs that record themselves, read back from their snapshots."""

from __future__ import annotations

import asyncio
import bdb
import cProfile
import io
import os
import re
import signal
import subprocess
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest
from support.flights import taken
from support.programs import DEADLINE_S, Program, environment

import frzmq
from frzmq.errors import ConfigError
from frzmq.export.text import write_text
from frzmq.flight import FlightRecorder
from frzmq.reader.model import Call
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate
from frzmq.tracer import calls
from frzmq.tracer.choice import native

pytestmark = [
    pytest.mark.usefixtures("runtime_directory"),
    pytest.mark.skipif(native is None, reason="only the native buffer records calls"),
]
MONITORED = sys.version_info >= (3, 12)


def recorder(**options: Any) -> FlightRecorder:
    return FlightRecorder(**{"service": "calls", "calls": True, "calls_include": (__name__,), **options})


@pytest.fixture
def flight() -> Iterator[FlightRecorder]:
    """Off: a test that starts it is not itself among the calls."""
    flight = recorder()
    yield flight
    if flight.enabled:
        flight.stop()


def shown(snapshot: Snapshot, track: str | None = None) -> list[tuple[int, str]]:
    """Depth and name of each call (on the track with this label), in the order of their begins."""
    found = [c for c in snapshot.calls if track is None or snapshot.tracks[c.track].label == track]
    return [(call.depth, short(call)) for call in found]


def short(call: Call) -> str:
    """Without its module, and the function around it."""
    return call.name.rpartition("<locals>.")[2].removeprefix(f"{__name__}.")


def of(snapshot: Snapshot, name: str) -> list[Call]:
    return [call for call in snapshot.calls if short(call) == name]


def leaf() -> int:
    return 1


def total(depth: int) -> int:
    return leaf() + (total(depth - 1) if depth else 0)


# --- what is recorded


def test_calls_nest_as_they_were_made(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()
    total(1)
    snapshot = taken(flight, tmp_path)
    assert shown(snapshot) == [(0, "total"), (1, "leaf"), (1, "total"), (2, "leaf")]
    outer = snapshot.calls[0]
    assert (outer.code.file, outer.code.line) == (__file__, total.__code__.co_firstlineno)
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
    lines = [re.sub(r"  [0-9.]+[nu]s", "  T", line.replace(f"{__name__}.", "")) for line in lines]
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


# --- filters


def module(name: str, file: str = "<string>") -> Callable[[], int]:
    """A function of a module of this name."""
    found = types.ModuleType(name)
    exec(compile("def f():\n    return 1\n", file, "exec"), found.__dict__)
    made: Callable[[], int] = found.__dict__["f"]
    return made


def recorded(tmp_path: Path, names: list[str], **options: Any) -> list[str]:
    """Of a function in a module of each name those that are recorded."""
    functions = [module(name) for name in names]
    with recorder(**{"calls_include": (), **options}) as flight:
        for function in functions:
            function()
        snapshot = taken(flight, tmp_path)
    found = {call.name for call in snapshot.calls}
    return [name for name in names if f"{name}.f" in found]


def test_calls_include_and_exclude_are_patterns_of_modules(tmp_path: Path) -> None:
    names = ["shop", "shop.orders", "shop.orders.db", "shopping", "other", "frzmq.inner", "zmq"]
    assert recorded(tmp_path, names) == ["shop", "shop.orders", "shop.orders.db", "shopping", "other"]
    assert recorded(tmp_path, names, calls_include=("shop",)) == ["shop", "shop.orders", "shop.orders.db"]
    assert recorded(tmp_path, names, calls_include=("shop*",), calls_exclude=("shop.orders",)) == ["shop", "shopping"]
    assert recorded(tmp_path, names, calls_include=("zmq", "frzmq")) == ["zmq"]


def test_calls_leave_out_the_standard_library_unless_it_is_included(tmp_path: Path) -> None:
    with recorder(calls_include=(__name__,)) as flight:
        os.path.normcase("a")
        os.path.join("a", "b")
        assert taken(flight, tmp_path).calls == ()
    with recorder(calls_include=("posixpath",)) as flight:
        os.path.join("a", "b")
        assert "posixpath.join" in {call.name for call in taken(flight, tmp_path).calls}
    judge = calls._Judge((), ())
    assert judge.judge(os.path.join.__code__, {"__name__": "posixpath"}) is None
    assert judge.judge(leaf.__code__, {"__name__": "shop"}) == f"shop.leaf ({__file__}:{leaf.__code__.co_firstlineno})"


def test_calls_the_snapshot_says_which_are_recorded(tmp_path: Path) -> None:
    with recorder(calls_include=("a", "b.*"), calls_exclude=("a.c",), calls_per_second=7) as flight:
        frzmq.event("something")
        (said,) = taken(flight, tmp_path).call_filters
    assert (said.process, said.include, said.exclude, said.limit) == (0, "a,b.*", "a.c", 7)


def test_calls_a_name_is_short_enough_for_the_table() -> None:
    long = calls.call_name("m." + "f" * 500, "/dir/" * 100 + "é" * 100 + "/last.py", 1234567)
    assert len(long.encode()) <= 256
    assert long.startswith("m.ffff") and long.endswith("/last.py:1234567)")
    assert calls.call_name("m.f", "/x.py", 3) == "m.f (/x.py:3)"


# --- quiet


def hot(times: int) -> None:
    for _ in range(times):
        leaf()


def test_calls_of_hot_code_are_counted(tmp_path: Path) -> None:
    with recorder(calls_per_second=100) as flight:
        hot(5000)
        snapshot = taken(flight, tmp_path)
    assert 100 <= len(of(snapshot, "leaf")) <= 200  # a second may have ended in the middle
    told = [quiet for quiet in snapshot.quiet_calls if quiet.code.name == f"{__name__}.leaf"]
    assert told[0].count == 0
    if MONITORED:
        assert told[-1].at_least
    else:
        assert len(of(snapshot, "leaf")) + sum(quiet.count for quiet in told) == 5000
    assert [call.end_held for call in of(snapshot, "hot")] == [True]


def test_calls_of_hot_code_are_counted_beside_another_tool(tmp_path: Path, other_tool: int) -> None:
    with recorder(calls_per_second=100) as flight:
        hot(5000)
        snapshot = taken(flight, tmp_path)
    told = [quiet for quiet in snapshot.quiet_calls if quiet.code.name == f"{__name__}.leaf"]
    assert not [quiet for quiet in told if quiet.at_least]
    assert len(of(snapshot, "leaf")) + sum(quiet.count for quiet in told) == 5000


def test_calls_of_code_that_became_quiet_inside_of_itself_end_once(tmp_path: Path) -> None:
    with recorder(calls_per_second=100) as flight:
        total(300)
        total(300)
        snapshot = taken(flight, tmp_path)
    begun = of(snapshot, "total")
    assert 100 <= len(begun) <= 200
    assert all(call.begin_held and call.end_held for call in begun)
    assert [call.depth for call in begun[:100]] == [*range(100)]


def test_calls_of_code_that_is_calm_again_are_recorded_again(tmp_path: Path) -> None:
    calm = threading.Event()
    with recorder(calls_per_second=100) as flight:
        hot(1000)
        for _ in range(40):
            snapshot = taken(flight, tmp_path)  # each begins a generation, which looks whether a second is over
            if any(quiet.calm for quiet in snapshot.quiet_calls):
                break
            calm.wait(0.1)
        before = len(of(snapshot, "leaf"))
        hot(3)
        after = taken(flight, tmp_path)
    assert len(of(after, "leaf")) == before + 3


def test_calls_beyond_the_table_of_names_are_counted(tmp_path: Path) -> None:
    functions = [module(f"many{n}{'x' * 200}") for n in range(1000)]
    with recorder(calls_include=("many*",), buffer_bytes=256 << 10) as flight:
        for function in functions:
            function()
        snapshot = taken(flight, tmp_path)
    (told,) = [quiet for quiet in snapshot.quiet_calls if quiet.code.name == "code beyond the table of names"]
    assert 50 < len(snapshot.calls) < 1000
    assert len(snapshot.calls) + told.count == 1000


# --- beside others


@pytest.fixture
def other_tool() -> Iterator[int]:
    """A tool that wants no events; on 3.11, where there is no such thing, nothing."""
    if sys.version_info < (3, 12):
        yield 0
        return
    sys.monitoring.use_tool_id(1, "other")
    yield 1
    sys.monitoring.free_tool_id(1)


def test_calls_beside_cprofile_both_see_them(tmp_path: Path) -> None:
    if not MONITORED:
        pytest.skip("3.11 has one hook for both")
    profile = cProfile.Profile()
    with recorder() as flight:
        profile.enable()
        total(2)
        profile.disable()
        total(2)
        snapshot = taken(flight, tmp_path)
    profile.create_stats()
    stats: Any = profile
    assert {key[2]: row[0] for key, row in stats.stats.items()}["leaf"] == 3
    assert len(of(snapshot, "leaf")) == 6


COVERED = """
    import coverage

    measured = coverage.Coverage(data_file=None, include=["*helper.py"])
    measured.start()
    import frzmq
    import helper

    with frzmq.start(service="s", calls=True, calls_include=("helper",), calls_per_second=50):
        helper.work()
        frzmq.snapshot("s.frz")
    measured.stop()
    print(sorted(measured.get_data().lines(helper.__file__)))
"""
HELPER = "def leaf(n):\n    if n == 900:\n        return 2\n    return 1\n\ndef work():\n    for n in range(1000):\n        leaf(n)\n"


@pytest.mark.parametrize("core", ["ctrace", "sysmon"])
def test_calls_beside_coverage_both_see_them(tmp_path: Path, core: str) -> None:
    pytest.importorskip("coverage")
    if not MONITORED and core == "sysmon":
        pytest.skip("sys.monitoring came with 3.12")
    (tmp_path / "helper.py").write_text(HELPER)
    variables = {"FRZMQ_RUNTIME_DIR": os.environ["FRZMQ_RUNTIME_DIR"], "COVERAGE_CORE": core}
    said = Program(tmp_path / "program.py", COVERED, **variables).end()
    assert said == "[1, 2, 3, 4, 6, 7, 8]\n"
    snapshot = open_snapshot(tmp_path / "s.frz")
    assert validate(snapshot) == []
    assert [call.end_held for call in snapshot.calls if call.name == "helper.work"] == [True]
    recorded = sum(call.name == "helper.leaf" for call in snapshot.calls)
    counted = [quiet for quiet in snapshot.quiet_calls if quiet.code.name == "helper.leaf"]
    assert 50 <= recorded < 200
    if core == "sysmon":
        # its lines are not to come back each second: quiet code is counted beside it
        assert recorded + sum(quiet.count for quiet in counted) == 1000


def test_calls_beside_a_debugger_both_see_them(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()

    class Debugger(bdb.Bdb):
        seen: list[str] = []  # noqa: RUF012

        def user_call(self, frame: types.FrameType, arguments: object) -> None:
            self.seen.append(frame.f_code.co_name)
            self.set_step()

    debugger = Debugger()
    before = sys.gettrace()
    debugger.runcall(total, 1)
    sys.settrace(before)
    snapshot = taken(flight, tmp_path)
    assert debugger.seen[:3] == ["leaf", "total", "leaf"]  # the first is where it stands
    assert [name for _, name in shown(snapshot) if name in ("total", "leaf")] == ["total", "leaf", "total", "leaf"]


def test_calls_beside_a_tool_that_disables_leave_it_alone(tmp_path: Path, other_tool: int) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    monitoring = sys.monitoring
    lines: list[int] = []

    def on_line(code: types.CodeType, line: int) -> object:
        lines.append(line)
        return monitoring.DISABLE

    monitoring.register_callback(other_tool, monitoring.events.LINE, on_line)
    with recorder(calls_per_second=100) as flight:
        monitoring.set_local_events(other_tool, leaf.__code__, monitoring.events.LINE)
        hot(1000)
        monitoring.set_local_events(other_tool, leaf.__code__, 0)
        snapshot = taken(flight, tmp_path)
    monitoring.register_callback(other_tool, monitoring.events.LINE, None)
    # quiet code was not disabled, so nothing was revived: its line was seen once
    assert lines == [leaf.__code__.co_firstlineno + 1]
    assert not [quiet for quiet in snapshot.quiet_calls if quiet.at_least]


def test_calls_take_a_tool_id_that_is_nobodys_and_give_it_back() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    monitoring = sys.monitoring
    monitoring.use_tool_id(3, "another")
    try:
        with recorder():
            assert [monitoring.get_tool(n) for n in range(6)].index("frzmq") == 4
        assert "frzmq" not in [monitoring.get_tool(n) for n in range(6)]
    finally:
        monitoring.free_tool_id(3)


def test_calls_leave_nothing_disabled_for_the_next_tool(tmp_path: Path) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    monitoring = sys.monitoring
    with recorder(calls_per_second=10) as flight:
        hot(100)
        snapshot = taken(flight, tmp_path)
    assert any(quiet.at_least for quiet in snapshot.quiet_calls)
    seen: list[str] = []
    monitoring.use_tool_id(3, "next")
    try:
        monitoring.register_callback(3, monitoring.events.PY_START, lambda code, _: seen.append(code.co_name))
        monitoring.set_events(3, monitoring.events.PY_START)
        leaf()
        monitoring.set_events(3, 0)
        monitoring.register_callback(3, monitoring.events.PY_START, None)
    finally:
        monitoring.free_tool_id(3)
    assert seen == ["leaf"]


def test_calls_without_a_free_tool_id_are_an_error() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    taken_ids = [n for n in range(6) if sys.monitoring.get_tool(n) is None]
    for n in taken_ids:
        sys.monitoring.use_tool_id(n, "another")
    try:
        with pytest.raises(ConfigError, match="wanted a free tool id"):
            recorder().start()
    finally:
        for n in taken_ids:
            sys.monitoring.free_tool_id(n)
    with recorder() as flight:
        assert flight.enabled


# --- of programs


def test_calls_in_the_pure_python_buffer_are_an_error() -> None:
    with pytest.raises(ConfigError, match="wanted the native buffer, which alone can record them"):
        recorder(buffer_kind="py").start()


def test_calls_that_the_environment_asks_for_in_vain_are_said(tmp_path: Path) -> None:
    code = """
        import frzmq, logging, queue

        class Said(logging.Handler):
            def emit(self, record):
                lines.put(record.getMessage())

        lines = queue.Queue()
        logging.getLogger("frzmq").addHandler(Said())
        try:
            frzmq.snapshot("s.frz")
        except Exception as error:
            print(type(error).__name__, error)
        print(lines.get(timeout=20))
    """
    directory = os.environ["FRZMQ_RUNTIME_DIR"]
    variables = {"FRZMQ_RECORDER": directory, "FRZMQ_RUNTIME_DIR": directory, "FRZMQ_CALLS": "1", "FRZMQ_BUFFER": "py"}
    said = Program(tmp_path / "program.py", code, **variables).end()
    error, line = said.splitlines()
    assert error.startswith(
        "StateError snapshot: wanted a process that records, got one that is off: ConfigError: calls: "
    )
    assert line.startswith("nothing is recorded: ConfigError: calls: ")


def cli(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables = {"FRZMQ_RUNTIME_DIR": os.environ["FRZMQ_RUNTIME_DIR"], **variables}
    return subprocess.run(
        [sys.executable, "-m", "frzmq", *arguments],
        env=environment(**variables),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


PROGRAM = """
import subprocess, sys, threading
import helper

def main():
    thread = threading.Thread(target=helper.work)
    thread.start()
    thread.join()
    if sys.argv[1:]:
        subprocess.run([sys.executable, __file__], check=True)

main()
"""


def test_run_with_calls_records_the_program_and_its_children(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "helper.py").write_text("def work():\n    return 1\n")
    done = cli(tmp_path, "run", "--calls", "-o", "s.frz", "program.py", "again")
    assert (done.returncode, done.stderr) == (0, "")
    snapshot = open_snapshot(tmp_path / "s.frz")
    assert [finding for finding in validate(snapshot) if finding.level is Level.ERROR] == []
    found = [(c.process, c.name) for c in snapshot.calls]
    assert sorted(found) == sorted(
        (p, name) for p in (0, 1) for name in ("helper.<module>", "__main__.main", "helper.work")
    )
    done = cli(tmp_path, "run", "--calls-include", "helper", "-o", "t.frz", "program.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert {c.name for c in open_snapshot(tmp_path / "t.frz").calls} == {"helper.<module>", "helper.work"}
    done = cli(tmp_path, "info", "t.frz")
    assert "calls of program[" in done.stdout and "of helper; beyond 1000 a second they are counted" in done.stdout
    done = cli(tmp_path, "summary", "t.frz")
    assert re.search(r"helper\.work +program\[\d+\] +1 ", done.stdout)


def test_run_with_calls_where_they_cannot_be_recorded_says_why(tmp_path: Path) -> None:
    done = cli(tmp_path, "run", "--calls", "-c", "print(1)", FRZMQ_BUFFER="py")
    assert (done.returncode, done.stdout) == (2, "")
    assert "calls: wanted the native buffer, which alone can record them, got none: FRZMQ_BUFFER is py" in done.stderr


FORKS = """
    import os, sys
    import frzmq

    def child():
        return 1

    def parent():
        pid = os.fork()
        if pid == 0:
            child()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    with frzmq.start(service="forks", calls=True):
        parent()
        frzmq.snapshot("s.frz")
"""


def test_calls_go_on_in_a_forked_child(tmp_path: Path) -> None:
    Program(tmp_path / "program.py", FORKS, FRZMQ_RUNTIME_DIR=os.environ["FRZMQ_RUNTIME_DIR"]).end()
    snapshot = open_snapshot(tmp_path / "s.frz")
    assert [finding for finding in validate(snapshot) if finding.level is Level.ERROR] == []
    assert {(c.process, c.name) for c in snapshot.calls} == {(0, "__main__.parent"), (1, "__main__.child")}


def test_calls_that_a_killed_process_was_in_are_in_the_snapshot(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import os, signal, frzmq\nfrzmq.flush()\n"
        "def inner():\n    os.kill(os.getpid(), signal.SIGKILL)\ndef outer():\n    inner()\nouter()\n"
    )
    done = cli(tmp_path, "run", "--calls", "-o", "s.frz", "program.py")
    assert done.returncode == -signal.SIGKILL
    snapshot = open_snapshot(tmp_path / "s.frz")
    assert [(c.depth, c.name, c.end_ns) for c in snapshot.calls] == [
        (0, "__main__.outer", None),
        (1, "__main__.inner", None),
    ]


def test_calls_an_interrupt_reaches_the_program(tmp_path: Path) -> None:
    code = """
        import frzmq, os, signal, sys

        def handler(number, frame):
            raise KeyError("mine")

        def work():
            os.kill(os.getpid(), signal.SIGUSR1)
            for n in range(1000):
                leaf()

        def leaf():
            pass

        signal.signal(signal.SIGUSR1, handler)
        with frzmq.start(service="s", calls=True):
            try:
                work()
            except KeyError as error:
                print(error.args[0])
            frzmq.snapshot("s.frz")
    """
    said = Program(tmp_path / "program.py", code, FRZMQ_RUNTIME_DIR=os.environ["FRZMQ_RUNTIME_DIR"]).end()
    assert said == "mine\n"
    snapshot = open_snapshot(tmp_path / "s.frz")
    assert [call.error for call in snapshot.calls if call.name == "__main__.work"] == [
        "KeyError" if MONITORED else "exception"
    ]
    assert validate(snapshot) == []
