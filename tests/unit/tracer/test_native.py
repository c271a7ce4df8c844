"""What only the native buffer has to prove: that it says what the reference says, and that nothing of Python can meet it in the middle of an append."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ctypes
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import Record, Strings, decode, recording, take

import frzmq
from frzmq.tracer import choice, hub
from frzmq.wire import chunk

pytestmark = pytest.mark.skipif(choice.native is None, reason=f"no native buffer: {choice.missing}")

# --- it says what the reference says

NAMES = st.sampled_from(["a", "b", "password", "naïve", "", "x" * 255, "y" * 300, "\ud800", "token.id"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.binary(max_size=20),
    st.sampled_from(["z" * 1024, "z" * 1025, "ü" * 600, "\udc80", b"b" * 2000, [1], object]),
)
ATTRIBUTES = st.dictionaries(NAMES, VALUES, max_size=4)
MANY = st.integers(30, 40).map(lambda n: {f"k{i}": i for i in range(n)})
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("event"), NAMES, st.one_of(ATTRIBUTES, MANY)),
        st.tuples(st.just("gauge"), NAMES, VALUES),
        st.tuples(st.just("span"), NAMES, ATTRIBUTES),
        st.tuples(st.just("operation"), NAMES, ATTRIBUTES),
        st.tuples(st.just("exit"), st.sampled_from([None, ValueError, KeyError])),
        st.tuples(st.just("update"), st.one_of(st.none(), NAMES), ATTRIBUTES),
        st.tuples(st.just("inject")),
        st.tuples(st.just("thread"), NAMES),
        st.tuples(st.just("task"), NAMES),
        st.tuples(st.just("cut")),
    ),
    max_size=25,
)


def play(steps: list[tuple[Any, ...]]) -> None:
    """Instructions, as a program would carry them out."""
    entered: list[Any] = []
    generation = 0

    def work(name: str) -> None:
        with frzmq.span(name):
            frzmq.event(name)

    async def task(name: str) -> None:
        with frzmq.span(name):
            await asyncio.sleep(0)
            frzmq.event(name)

    async def tasks(name: str) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(task(name), name=f"task {number}")

    for step in steps:
        match step:
            case "event", name, attributes:
                frzmq.event(name, **attributes)
            case "gauge", name, value:
                frzmq.gauge(name, value)
            case "span", name, attributes:
                entered.append(frzmq.span(name, **attributes).__enter__())
            case "operation", name, attributes:
                entered.append(frzmq.operation(name, **attributes).__enter__())
            case "exit", error if entered:
                entered.pop().__exit__(error, error and error(), None)
            case "update", name, attributes if entered and isinstance(entered[-1], frzmq.tracer.api.Operation):
                entered[-1].update(name, **attributes)
            case ("inject",):
                frzmq.inject()
            case "thread", name:
                thread = threading.Thread(target=work, args=(name,), name="worker")
                thread.start()
                thread.join()
            case "task", name:
                asyncio.run(tasks(name))
            case ("cut",):
                generation += 1
                assert hub.recording is not None
                _cuts.append(hub.recording.cut(generation))
    while entered:
        entered.pop().__exit__(None, None, None)


_cuts: list[Any] = []


def seen(kind: str, steps: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What a reader sees of it, ids and times replaced: each record with the generation, track and operation that it belongs to."""
    _cuts.clear()
    with recording(4 << 20, kind=kind) as buffer:
        play(steps)
        generations = [*(cut.slices for cut in _cuts), buffer.slices(1 << 30)]
        ends = [[(end.writer, end.dropped, end.overwritten) for end in cut.writers] for cut in _cuts]
        strings = Strings()
        strings.take(buffer)
        assert buffer.open_items(time.monotonic_ns()) == ([], 0)
    numbers: dict[object, int] = {0: 0}

    def plain(value: Any) -> Any:
        large = (type(value) is int and value > 1 << 32) or (type(value) is bytes and len(value) == 16)
        return ("id", numbers.setdefault(value, len(numbers))) if large else value

    rows: list[tuple[Any, ...]] = []
    for number, slices in enumerate(generations):
        place: dict[int, tuple[Any, ...]] = {}
        for record in decode(sorted(slices, key=lambda piece: (piece.writer, piece.first_index)), strings):
            if record.name == "context":
                track, label, op = record.args
                place[record.writer] = (track, label, plain(op))
                continue
            args = record.args if record.name not in ("process_begin", "thread_begin") else record.args[:1]
            ids = record.name.startswith("operation") or record.name in ("inject", "extract")
            rows.append((
                number, record.writer, record.name, place.get(record.writer),
                tuple(map(plain, args)) if ids else args,
            ))  # fmt: skip
    return [*rows, ("ends", ends)]


@given(STEPS)
def test_native_buffer_says_what_the_reference_says(steps: list[tuple[Any, ...]]) -> None:
    assert seen("c", steps) == seen("py", steps)


def test_native_layout_is_that_of_the_wire() -> None:
    constants = choice.native.LAYOUT  # type: ignore[union-attr]  # it is there
    assert len(constants) > 15
    assert {name: getattr(chunk, name) for name in constants if name != "MAX_STRINGS_BYTES"} == {
        name: value for name, value in constants.items() if name != "MAX_STRINGS_BYTES"
    }


# --- nothing meets it in the middle


def events(records: list[Record]) -> list[Record]:
    return [record for record in records if record.name in ("event", "span_begin", "span_end")]


def test_finalizers_the_collector_and_signals_that_record_lose_nothing() -> None:
    made = [0]

    class Noisy:
        """Part of a cycle: goes when the collector comes, wherever that is."""

        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            frzmq.event("finalizer", n=made[0])
            made[0] += 1

    def handler(*_: object) -> None:
        frzmq.event("signal", at=time.time())
        made[0] += 1

    before = signal.signal(signal.SIGALRM, handler)
    thresholds = gc.get_threshold()
    gc.set_threshold(5)
    try:
        with recording(32 << 20) as buffer:
            # where a thread is, its first record asks Python: what met it there would be dropped, and counted
            frzmq.event("first")
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            for n in range(20_000):
                Noisy()
                frzmq.event("plain")
                with frzmq.span("span", n=n, text="ü"):
                    frzmq.event(f"name {n % 100}", value=object)
            signal.setitimer(signal.ITIMER_REAL, 0, 0)
            gc.collect()
            total = made[0]
            records = events(decode(buffer.slices(1 << 30)))
            assert len(records) == 1 + total + 4 * 20_000
            assert buffer.totals().dropped == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0, 0)
        gc.set_threshold(*thresholds)
        signal.signal(signal.SIGALRM, before)


def test_eight_threads_and_an_agent_lose_and_double_nothing() -> None:
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    done: list[int] = []
    start = threading.Barrier(9)

    def work(number: int) -> None:
        start.wait()
        for n in range(3000):
            with frzmq.span("span"), frzmq.span(f"s{n % 10}", n=n):
                frzmq.event("e")
            if n % 100 == 0:
                time.sleep(0.001)
        done.append(5 * 3000)

    try:
        with recording(16 << 20) as buffer:
            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            start.wait()
            taken, generation = [], 0
            while any(thread.is_alive() for thread in threads):
                generation += 1
                taken += buffer.slices(1 << 16)
                taken += buffer.cut(generation).slices
                for piece in taken:
                    if piece.final:
                        buffer.release(piece.chunk, piece.serial)
            for thread in threads:
                thread.join()
            taken += buffer.cut(generation + 1).slices
            records = decode(taken)
            assert len({(record.writer, record.index) for record in records}) == len(records)
            assert len(events(records)) == sum(done)
            assert buffer.open_items(time.monotonic_ns()) == ([], 0)
    finally:
        sys.setswitchinterval(switch)


def record_as_child() -> NoReturn:
    try:
        frzmq.event("child")
        with frzmq.span("child"), frzmq.operation("child"):
            frzmq.gauge("child", 1)
    finally:
        os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 and later, where threads run
def test_fork_in_the_middle_of_writing_corrupts_neither_side() -> None:
    with recording(16 << 20) as buffer:
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                with frzmq.span("s", n=1):
                    frzmq.event("e")

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                record_as_child()
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        strings = Strings()
        pieces = buffer.cut(1).slices
        strings.take(buffer)
        names = {record.args[0] for record in decode(pieces, strings) if record.name in ("event", "span_begin")}
        assert names == {"e", "s"}


def test_fork_of_a_library_that_python_does_not_hear_of_writes_nothing_either() -> None:
    with recording() as buffer:
        frzmq.event("parent")
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            record_as_child()
        assert os.waitpid(pid, 0)[1] == 0
        assert take(buffer) == [("event", "parent", None)]


def test_signal_handler_that_raises_where_python_code_of_ours_runs_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alarm(Exception):  # noqa: N818  # a name of the program's
        pass

    def handler(*_: object) -> None:
        raise Alarm

    def type_name(_: object) -> str:
        signal.raise_signal(signal.SIGUSR1)
        return "never"

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with recording() as buffer:
            frzmq.event("e")
            monkeypatch.setattr("frzmq.tracer.attributes.type_name", type_name)
            for step in (lambda: frzmq.event("e", value=object()), lambda: frzmq.gauge("g", object())):  # type: ignore[arg-type]  # as programs do
                with pytest.raises(Alarm):
                    step()  # type: ignore[no-untyped-call]
            monkeypatch.undo()
            frzmq.event("e")
            assert take(buffer) == [("event", "e", None), ("event", "e", None)]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_fault_of_ours_is_counted_and_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording() as buffer:
        frzmq.event("e")
        monkeypatch.setattr("frzmq.tracer.attributes.type_name", None)
        frzmq.event("e", value=object())
        with frzmq.span("s", value=object()):
            pass
        monkeypatch.undo()
        frzmq.event("e")
        assert buffer.errors == 3
        buffer.errors = 0
        assert buffer.totals().dropped == 3
        assert take(buffer) == [("event", "e", None), ("event", "e", None)]


def test_record_is_timed_by_the_monotonic_clock_whatever_the_processors_counter_does() -> None:
    clock = time.monotonic_ns
    with recording(8 << 20) as buffer:
        frzmq.event("first")
        brackets = []
        for n in range(20_000):
            if n % 4000 == 0:
                time.sleep(0.02)
            before = clock()
            frzmq.event("e")
            brackets.append((before, clock()))
        times = [r.time_ns for r in decode(buffer.slices(1 << 30)) if r.name == "event"][1:]
    late = [t - after for t, (_, after) in zip(times, brackets, strict=True) if t > after]
    early = [before - t for t, (before, _) in zip(times, brackets, strict=True) if t < before]
    assert times == sorted(times)
    # 0 and 200 ns, says docs/design/005; but for a machine whose counter is bad, which is seen within 200 us
    assert max(late, default=0) < 10_000
    assert sorted(early)[: len(early) * 99 // 100][-1:] < [10_000]


# --- bounds


def rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_a_million_records_and_names_that_never_come_back_stay_within_a_fixed_memory() -> None:
    with recording(1 << 20) as buffer:

        def work(count: int) -> None:
            for n in range(count):
                name = f"never again {n} {count}"
                frzmq.event(name)
                with frzmq.span(name):
                    frzmq.event("e", n=n, name=name)
            buffer.slices(1 << 30)

        work(20_000)
        gc.collect()
        before = rss_bytes()
        work(240_000)
        gc.collect()
        assert rss_bytes() - before < 4 << 20
        assert buffer.totals().recorded == 3 + 4 * 260_000


def test_buffers_one_after_the_other_give_their_memory_back() -> None:
    counts = []
    for n in range(60):
        with recording(4 << 20):
            with frzmq.operation("o"), frzmq.span("s", n=n):
                frzmq.event("e")
            thread = threading.Thread(target=frzmq.event, args=("t",))
            thread.start()
            thread.join()
        if n in (20, 59):
            gc.collect()
            counts.append(rss_bytes())
    assert counts[1] - counts[0] < 8 << 20


# --- the ways in which a span is entered


def test_kept_span_is_entered_in_every_way_that_python_knows() -> None:
    class Holder:
        span = frzmq.span("held")

    with recording() as buffer:
        with contextlib.ExitStack() as stack:
            for kept in (frzmq.span("a"), frzmq.span("a"), frzmq.span("a")):
                assert stack.enter_context(kept) is kept
            stack.enter_context(frzmq.span("b", n=1))
        manual = frzmq.span("c")
        assert manual.__enter__() is manual
        manual.__exit__(None, None, None)
        with Holder.span, Holder().span:
            pass
        names = [row[1] for row in take(buffer)]
    assert names == ["a", "a", "a", "b", "b", "a", "a", "a", "c", "c", "held", "held", "held", "held"]
    assert isinstance(manual, choice.native.Span)  # type: ignore[union-attr]  # it is there


def test_wrong_calls_say_so() -> None:
    for call in (
        frzmq.span,
        lambda: frzmq.event("a", "b"),  # type: ignore[call-arg]
        lambda: frzmq.gauge("a"),  # type: ignore[call-arg]
        lambda: frzmq.span("a").__exit__(None),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            call()  # type: ignore[call-arg]  # that is what is tried


def test_span_hook_is_told_name_and_duration() -> None:
    told: list[tuple[str, int]] = []
    with recording():
        frzmq.tracer.api.watch_spans(lambda name, took_ns: told.append((name, took_ns)))
        try:
            with frzmq.span("outer"), frzmq.span("inner", n=1):
                time.sleep(0.001)
        finally:
            frzmq.tracer.api.watch_spans(None)
        with frzmq.span("after"):
            pass
    assert [name for name, _ in told] == ["inner", "outer"]
    assert 1_000_000 <= told[0][1] <= told[1][1]


def test_another_interpreter_is_refused(tmp_path: Any) -> None:
    code = """
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        made = interpreters.create()
        interpreters.run_string(made, "import sys; sys.path[:] = %r\\nfrom frzmq.tracer import choice\\nassert choice.native is None\\nprint(choice.missing)" % (__import__('sys').path,))
    """
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "nterpreter" in done.stdout


@frzmq.span("decorated")
def decorated(first: int, *rest: int, key: str = "k") -> tuple[int, tuple[int, ...], str]:
    """What it says."""
    return first, rest, key


class Decorated:
    @frzmq.span("method")
    def method(self, n: int = 1) -> tuple[Decorated, int]:
        return self, n

    @classmethod
    @frzmq.span("of the class")
    def of_class(cls) -> type:
        return cls

    @staticmethod
    @frzmq.span("static")
    def static(n: int) -> int:
        return n

    @property
    @frzmq.span("property")
    def one(self) -> int:
        return 1


def test_decorated_function_is_called_bound_copied_pickled_and_looked_at_like_a_function() -> None:
    made = Decorated()
    with recording() as buffer:
        assert decorated(1, 2, 3, key="x") == (1, (2, 3), "x")
        assert decorated(*[1], key="y") == (1, (), "y")
        assert made.method(n=2) == (made, 2)
        assert Decorated.method(made) == (made, 1)
        assert (Decorated.of_class(), made.static(3), made.one) == (Decorated, 3, 1)
        names = [row[1] for row in take(buffer) if row[0] == "span_begin"]
    assert names == ["decorated", "decorated", "method", "method", "of the class", "static", "property"]
    assert (decorated.__name__, decorated.__doc__, decorated.__module__) == ("decorated", "What it says.", __name__)
    assert str(inspect.signature(decorated)).startswith("(first: 'int', *rest: 'int', key: 'str' = 'k')")
    assert str(inspect.signature(made.method)) == "(n: 'int' = 1) -> 'tuple[Decorated, int]'"
    assert decorated.__wrapped__.__code__ is decorated.__code__  # type: ignore[attr-defined]
    assert copy.deepcopy(decorated) is decorated
    assert weakref.ref(decorated)() is decorated
    decorated.mark = 1  # type: ignore[attr-defined]
    assert decorated.__dict__["mark"] == 1


def test_decorated_function_that_raises_notes_the_type_and_lets_it_pass() -> None:
    error = KeyError("k")

    @frzmq.span("s")
    def fails() -> None:
        raise error

    with recording() as buffer:
        with pytest.raises(KeyError) as caught:
            fails()
        assert caught.value is error
        assert take(buffer) == [("span_begin", "s", None), ("span_end", "s", "KeyError")]
    with pytest.raises(KeyError):
        fails()
