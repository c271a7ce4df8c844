from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from support.records import Strings, decode, recording, take

import frzmq
from frzmq.tracer import _api_py, api, hub
from frzmq.wire.kinds import Kind


def test_span_nested_and_kept_records_each_begin_and_end() -> None:
    kept = frzmq.span("kept")
    with recording() as buffer:
        with kept, kept, frzmq.span("other", n=1):
            pass
        assert take(buffer) == [
            ("span_begin", "kept", None),
            ("span_begin", "kept", None),
            ("span_begin", "other", {"n": 1}),
            ("span_end", "other", None),
            ("span_end", "kept", None),
            ("span_end", "kept", None),
        ]
        assert buffer.open_items(time.monotonic_ns() + 1) == ([], 0)


def test_span_body_raises_notes_type_and_propagates() -> None:
    error = KeyError("k")
    with recording() as buffer:
        with pytest.raises(KeyError) as caught, frzmq.span("s"):
            raise error
        assert caught.value is error
        assert take(buffer) == [("span_begin", "s", None), ("span_end", "s", "KeyError")]
        assert buffer.open_items(time.monotonic_ns() + 1) == ([], 0)


def test_span_kept_over_two_buffers_interns_anew() -> None:
    kept = frzmq.span("kept", a=True)
    for first in ("x", "y"):
        with recording() as buffer:
            frzmq.event(first)
            with kept:
                pass
            assert take(buffer) == [
                ("event", first, None),
                ("span_begin", "kept", {"a": True}),
                ("span_end", "kept", None),
            ]


def test_span_off_records_nothing_and_decorator_made_then_works_later() -> None:
    @frzmq.span("made off")
    def double(n: int) -> int:
        """Twice."""
        return 2 * n

    assert double(2) == 4
    frzmq.event("off")
    frzmq.gauge("off", 1)
    assert frzmq.inject() is None
    with recording() as buffer:
        assert double(n=3) == 6
        assert take(buffer) == [("span_begin", "made off", None), ("span_end", "made off", None)]
    assert (double.__name__, double.__doc__, str(inspect.signature(double))) == (
        "double",
        "Twice.",
        "(n: 'int') -> 'int'",
    )


def test_span_generator_is_one_span_of_the_whole_iteration() -> None:
    @frzmq.span("iteration")
    def numbers() -> Iterator[int]:
        got = yield 1
        assert got == "sent"
        try:
            yield 2
        except ValueError:
            yield 3

    with recording() as buffer:
        iteration = numbers()
        assert next(iteration) == 1
        assert iteration.send("sent") == 2  # type: ignore[attr-defined]
        with frzmq.span("consumer"):
            assert iteration.throw(ValueError()) == 3  # type: ignore[attr-defined]
            assert list(iteration) == []
            assert [item.name for item in buffer.open_items(time.monotonic_ns() + 1)[0]] == [buffer.name_id("consumer")]
        assert take(buffer) == [
            ("span_begin", "iteration", None),
            ("span_begin", "consumer", None),
            ("span_end", "iteration", None),
            ("span_end", "consumer", None),
        ]
        assert buffer.open_items(time.monotonic_ns() + 1) == ([], 0)


def test_operation_generator_closed_early_ends_and_leaves_the_consumer_alone() -> None:
    @frzmq.operation("op")
    def numbers() -> Iterator[int]:
        frzmq.event("inside")
        yield 1

    with recording() as buffer:
        iteration = numbers()
        next(iteration)
        assert frzmq.inject() is None
        iteration.close()  # type: ignore[attr-defined]
        kinds = [record[0] for record in take(buffer)]
        assert kinds == ["operation_begin", "event", "operation_end"]


def test_operation_async_generator_and_coroutine_keep_their_kind() -> None:
    @frzmq.operation("stream")
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    @frzmq.span("coroutine")
    async def main() -> list[int]:
        return [n async for n in numbers()]

    assert inspect.iscoroutinefunction(main)
    assert inspect.isasyncgenfunction(numbers)
    with recording() as buffer:
        assert asyncio.run(main()) == [1, 2]
        assert [record[0] for record in take(buffer)] == ["span_begin", "operation_begin", "operation_end", "span_end"]
        assert buffer.open_items(time.monotonic_ns() + 1) == ([], 0)


def test_operation_nested_has_parent_and_trace() -> None:
    with recording() as buffer:
        with frzmq.operation("outer", user="u"), frzmq.operation("inner"):
            [item.op for item in buffer.open_items(time.monotonic_ns() + 1)[0]]
        outer, inner, inner_end, outer_end = take(buffer)
        assert (outer[1], outer[3], outer[5], outer[6]) == ("outer", 0, 0, {"user": "u"})
        assert (inner[1], inner[3], inner[4]) == ("inner", outer[2], outer[4])
        assert (inner_end, outer_end) == (("operation_end", inner[2], None), ("operation_end", outer[2], None))


def test_operation_of_a_traceparent_continues_it() -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with recording() as buffer:
        with frzmq.operation("op", traceparent=frzmq.extract({"TraceParent": header})):
            headers: dict[str, str] = {}
            sent = frzmq.inject(headers)
        begin, extracted, injected, _ = take(buffer)
        trace = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
        assert (begin[4], begin[5]) == (trace, 0xB7AD6B7169203331)
        assert extracted == ("extract", begin[2], trace, 0xB7AD6B7169203331)
        assert sent == headers["traceparent"] == f"00-{bytes.hex(trace)}-{injected[3]:016x}-01"  # type: ignore[str-bytes-safe]
        with frzmq.operation("op", traceparent="00-bad"):
            pass
        assert take(buffer)[0][5] == 0


def test_context_of_two_tasks_says_whose_records_follow() -> None:
    async def task(name: str) -> None:
        with frzmq.span(name):
            await asyncio.sleep(0)
            frzmq.event("in " + name)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(task("a"), name="A")
            group.create_task(task("b"), name="B")

    with recording() as buffer:
        asyncio.run(main())
        track, seen = "", []
        for record in take(buffer, without_context=False):
            if record[0] == "context":
                track = str(record[2])
            elif record[0] in ("span_begin", "event", "span_end"):
                seen.append((track, record[0]))
        assert sorted(seen) == sorted((t, k) for t in "AB" for k in ("span_begin", "event", "span_end"))
        assert buffer.tracks == {}


def test_event_names_and_values_that_are_no_exact_builtins_become_their_types() -> None:
    class Loud(str):  # noqa: SLOT000  # a program would not have them
        def __hash__(self) -> int:
            raise AssertionError

        def __repr__(self) -> str:
            raise AssertionError

        __str__ = __repr__

    class Number(int):
        def __index__(self) -> int:
            raise AssertionError

    with recording() as buffer:
        frzmq.event(
            Loud("x"), value=Loud("y"), number=Number(3), big=1 << 70, items=[1], password="p", data=b"d", nothing=None
        )
        frzmq.gauge("g", Number(1))
        assert take(buffer) == [
            (
                "event",
                "Loud",
                {
                    "value": "Loud",
                    "number": "Number",
                    "big": "int",
                    "items": "list",
                    "password": "[redacted]",
                    "data": b"d",
                    "nothing": None,
                },
            ),
            ("gauge", "g", "Number"),
        ]


def test_gauge_values_survive_exactly() -> None:
    values = [0, 1, 127, 128, -1, 2**63, -(2**63), 0.1, True]
    with recording() as buffer:
        for value in values:
            frzmq.gauge("g", value)
        assert take(buffer) == [("gauge", "g", value) for value in values]


def test_append_from_a_signal_handler_inside_of_one_is_dropped_and_counted() -> None:
    with recording() as buffer:
        writer = buffer.writer()
        before = writer.dropped
        writer.busy = True
        frzmq.event("e")
        with frzmq.span("s"):
            pass
        assert not writer.append(Kind.EVENT, b"\xc0\xc0")
        writer.busy = False
        assert (writer.dropped - before, take(buffer)) == (4, [])


def test_signal_handler_that_raises_in_an_append_is_heard_and_the_writer_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Alarm(Exception):  # noqa: N818  # a name of the program's
        pass

    def handler(*_: object) -> None:
        raise Alarm

    def clock() -> int:
        signal.raise_signal(signal.SIGUSR1)
        return time.monotonic_ns()

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        with recording(kind="py") as buffer:
            frzmq.event("e")
            monkeypatch.setattr("frzmq.tracer._api_py._clock", clock)
            with pytest.raises(Alarm):
                frzmq.event("e")
            monkeypatch.undo()
            frzmq.event("e")
            assert take(buffer) == [("event", "e", None), ("event", "e", None)]
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_fault_in_an_append_is_counted_and_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(kind="py") as buffer:
        frzmq.event("e")
        monkeypatch.setattr("frzmq.tracer._api_py._clock", lambda: None)
        frzmq.event("e")
        with frzmq.span("s"):
            pass
        monkeypatch.undo()
        frzmq.event("e")
        assert buffer.errors == 3
        buffer.errors = 0
        assert take(buffer) == [("event", "e", None), ("event", "e", None)]


def test_span_after_a_pause_beyond_32_bits_keeps_its_time() -> None:
    with recording(kind="py") as buffer:
        frzmq.event("e")
        buffer.slices(1 << 30)
        writer = buffer.writer()
        writer.last -= 5_000_000_000
        chunk = getattr(writer, "chunk", None)
        assert chunk is not None
        chunk.taken_ns -= 5_000_000_000
        began = time.monotonic_ns()
        with frzmq.span("s"):
            pass
        strings = Strings()
        pieces = buffer.slices(1 << 30)
        strings.take(buffer)
        records = decode(pieces, strings)
        assert [r.name for r in records] == ["span_begin", "span_end"]
        assert began <= records[0].time_ns <= records[1].time_ns <= time.monotonic_ns()


def test_thread_that_ends_returns_its_chunk_and_reports_its_counts() -> None:
    with recording() as buffer:
        buffer.writer()
        buffer.cut(1)
        free = buffer.free_chunks
        for _ in range(300):
            thread = threading.Thread(target=frzmq.event, args=("e",), name="worker")
            thread.start()
            thread.join()
            for piece in buffer.slices(1 << 30):
                if piece.final:
                    buffer.release(piece.chunk, piece.serial)
        assert buffer.free_chunks == free
        cut = buffer.cut(2)
        assert len(cut.writers) == 300
        assert {(end.first_index, end.next_index, end.dropped) for end in cut.writers} == {(0, 4, 0)}
        assert len(buffer.writer_infos()) == 1
        assert buffer.totals().recorded == 300 * 4 + buffer.writer().next_index


def test_forked_child_writes_nothing_into_the_parents_memory() -> None:
    with recording() as buffer:
        entered, leave = threading.Event(), threading.Event()

        def work() -> None:
            frzmq.event("thread")
            entered.set()
            leave.wait(10)

        thread = threading.Thread(target=work)
        thread.start()
        assert entered.wait(10)
        before = buffer.totals()
        pid = os.fork()
        if pid == 0:
            frzmq.event("child")
            os._exit(0 if hub.recording is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert buffer.totals() == before
        leave.set()
        thread.join()


def test_import_loads_nothing_heavy() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import frzmq; print(sorted({'zmq', 'msgpack', 'asyncio', 'logging', 'threading', 'inspect'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", code, _root()], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _root() -> str:
    return os.path.dirname(os.path.dirname(str(frzmq.__file__)))


def test_operation_updated_while_open_is_renamed_also_where_it_is_listed_as_open() -> None:
    with recording() as buffer:
        with frzmq.operation("GET", path="/a/1") as operation:
            operation.update("GET /a/{id}", status=503)
            operation.fail("HTTP 503")
            [item], _ = buffer.open_items(time.monotonic_ns() + 1)
            strings = Strings()
            strings.take(buffer)
            assert strings.of(item.name) == "GET /a/{id}"
        operation.update("too late")
        strings.take(buffer)
        rows = [row for row in decode(buffer.slices(1 << 20), strings) if row.name.startswith("operation")]
    begin, update, end = rows
    assert update.args == (begin.args[1], "GET /a/{id}", {"status": 503})
    assert end.args == (begin.args[1], "HTTP 503")


def test_operation_that_is_a_root_belongs_to_nothing_around_it_and_leaves_it_as_it_was() -> None:
    with recording() as buffer:
        with frzmq.operation("outer"):
            with api.Operation("request", None, {}, root=True):
                pass
            with frzmq.operation("inner"):
                pass
        outer, request, inner = [row for row in take(buffer) if row[0] == "operation_begin"]
        assert request[3] == 0
        assert request[4] != outer[4]
        assert (inner[3], inner[4]) == (outer[2], outer[4])


def test_event_of_a_thread_that_another_overtakes_with_the_first_record_is_recorded() -> None:
    """The other puts the buffer in place between this one's look at its writer and its next step."""

    class Overtaken:
        @property
        def writer(self) -> object:
            api.install(buffer)
            return object()

    with recording() as buffer:
        _api_py._local = Overtaken()
        _api_py.event("here", n=1)
        assert _api_py._off.busy
        assert take(buffer) == [("event", "here", {"n": 1})]


def test_span_that_is_known_by_its_name_keeps_no_buffer_that_is_not_recorded_into() -> None:
    with recording(kind="py"):
        with _api_py.span("kept by its name"):
            pass
        assert _api_py._spans["kept by its name"]._buffer is not None
    assert _api_py._spans["kept by its name"]._buffer is None
