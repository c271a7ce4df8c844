"""The flight recorder of one program, in the spirit of the tests of Go's: state errors, generations, failing writers, children, the end."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.flights import names, taken
from support.programs import DEADLINE_S
from support.raw_tracer import RawTracer

import frzmq
from frzmq.control.client import ControlClient
from frzmq.errors import SnapshotActiveError, SnapshotWriteError, StateError
from frzmq.flight import FlightRecorder
from frzmq.reader.snapshot import open_snapshot
from frzmq.tracer import runtime
from frzmq.wire.batch import BatchType, encode_batch

pytestmark = pytest.mark.usefixtures("runtime_directory")


@pytest.fixture
def recorder() -> Iterator[FlightRecorder]:
    flight = FlightRecorder(service="test")
    flight.start()
    yield flight
    if flight.enabled:
        flight.stop()


# --- states


def test_start_twice_is_an_error(recorder: FlightRecorder) -> None:
    with pytest.raises(StateError, match="start: wanted a flight recorder that is off"):
        recorder.start()
    assert recorder.enabled


def test_start_of_a_second_one_is_an_error(recorder: FlightRecorder) -> None:
    with pytest.raises(StateError, match="a program has one at a time"):
        FlightRecorder().start()
    assert recorder.enabled


def test_stop_twice_is_an_error(recorder: FlightRecorder) -> None:
    assert recorder.stop() is None
    with pytest.raises(StateError, match="stop: wanted a flight recorder that is on"):
        recorder.stop()


def test_enabled_says_whether_it_is_on(recorder: FlightRecorder) -> None:
    assert recorder.enabled
    recorder.stop()
    assert not recorder.enabled


def test_write_to_and_flush_while_off_are_errors() -> None:
    flight = FlightRecorder()
    with pytest.raises(StateError, match="write_to: wanted a flight recorder that is on"):
        flight.write_to(io.BytesIO())
    with pytest.raises(StateError, match="flush: wanted a flight recorder that is on"):
        flight.flush()


def test_start_and_stop_five_times_records_each_time(tmp_path: Path) -> None:
    flight = FlightRecorder(service="again")
    for n in range(5):
        flight.start()
        frzmq.event(f"round {n}")
        assert names(taken(flight, tmp_path)) == [f"round {n}"]
        assert flight.stop() is None


def test_context_manager_is_on_inside() -> None:
    with FlightRecorder() as flight:
        assert flight.enabled
        flight.stop()
    assert not flight.enabled


def test_disabled_by_the_environment_is_a_no_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRZMQ_DISABLE", "1")
    with FlightRecorder() as flight:
        frzmq.event("nothing")
        assert flight.enabled
        assert flight.flush()
        with pytest.raises(StateError, match="disabled by FRZMQ_DISABLE"):
            flight.write_to(io.BytesIO())
    assert not flight.enabled


# --- what is in a snapshot


def test_event_just_before_the_snapshot_is_in_it(recorder: FlightRecorder, tmp_path: Path) -> None:
    for n in range(20):
        frzmq.event(f"e{n}")
        assert names(taken(recorder, tmp_path))[-1] == f"e{n}"


def test_span_that_hangs_is_in_every_snapshot(recorder: FlightRecorder, tmp_path: Path) -> None:
    with frzmq.operation("request"), frzmq.span("hang"):
        for _ in range(3):
            opened = taken(recorder, tmp_path)
            assert [(s.name, s.end_ns) for s in opened.spans] == [("hang", None)]
            assert [(o.name, o.end_ns) for o in opened.operations] == [("request", None)]
    ended = taken(recorder, tmp_path)
    assert ended.spans[0].end_ns is not None
    assert ended.operations[0].end_ns is not None


@pytest.mark.parametrize("limit", [{"min_age": 0.0}, {"max_bytes": 0}])
def test_limit_of_zero_keeps_exactly_one_generation(tmp_path: Path, limit: dict[str, float]) -> None:
    with FlightRecorder(**limit) as flight:  # type: ignore[arg-type]  # either
        for n in range(3):
            for _ in range(10):
                stats = runtime.stats()
                assert stats is not None
                frzmq.event(f"e{n}")
                opened = taken(flight, tmp_path)
                [held] = opened.file.generations(0)
                assert held.info is not None
                if held.info.generation == stats.generation:  # else a second was over in between
                    break
            assert names(opened) == [f"e{n}"]


def test_limits_of_the_environment_hold_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRZMQ_MIN_AGE", "7s")
    monkeypatch.setenv("FRZMQ_MAX_BYTES", "9M")
    for flight, min_age_ns, max_bytes in (
        (FlightRecorder(), 7 * 10**9, 9 << 20),
        (FlightRecorder(3.0, 1 << 20), 3 * 10**9, 1 << 20),
    ):
        with flight, ControlClient(str(flight.address)) as client:
            status = client.status()
            assert (status.min_age_ns, status.max_bytes) == (min_age_ns, max_bytes)


def test_flush_says_that_everything_is_in_the_ring(recorder: FlightRecorder) -> None:
    for _ in range(100):
        frzmq.event("e")
    assert recorder.flush()
    assert frzmq.flush()
    with ControlClient(str(recorder.address)) as client:
        assert client.status().tracers[0].records >= 100


def test_snapshot_to_a_path_is_private_and_overwrites_only_when_asked(recorder: FlightRecorder, tmp_path: Path) -> None:
    path = tmp_path / "s.frz"
    frzmq.event("first")
    assert frzmq.snapshot(path, reason="because") == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_snapshot(path).header.reason == "because"
    with pytest.raises(FileExistsError):
        frzmq.snapshot(path)
    frzmq.event("second")
    frzmq.snapshot(path, overwrite=True)
    assert names(open_snapshot(path)) == ["first", "second"]
    assert os.listdir(tmp_path) == ["s.frz"]


def test_snapshot_of_a_process_that_does_not_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="wanted a process that records"):
        frzmq.snapshot(tmp_path / "s.frz")


# --- writers


class Gate(io.RawIOBase):
    """A file that takes nothing before it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.size_bytes = 0

    def write(self, data: object) -> int:
        self.reached.set()
        assert self.opened.wait(DEADLINE_S)
        size_bytes = len(memoryview(data))  # type: ignore[arg-type]  # bytes of some kind
        self.size_bytes += size_bytes
        return size_bytes


class Failing(io.RawIOBase):
    """Takes 100 bytes, ten at a time, and fails."""

    def __init__(self) -> None:
        self.taken = 0

    def write(self, data: object) -> int:
        if self.taken == 100:
            raise OSError(28, "No space left on device")
        self.taken += 10
        return 10


def test_write_to_a_failing_file_says_how_much_it_took_and_harms_nothing(
    recorder: FlightRecorder, tmp_path: Path
) -> None:
    frzmq.event("kept")
    with pytest.raises(SnapshotWriteError, match="No space left") as caught:
        recorder.write_to(Failing())  # type: ignore[arg-type]  # it can be written to
    assert caught.value.written_bytes == 100
    assert names(taken(recorder, tmp_path)) == ["kept"]


def test_write_to_while_another_is_made_is_refused(recorder: FlightRecorder) -> None:
    with ControlClient(str(recorder.address)) as client:
        results: list[object] = []
        begun = threading.Barrier(4)

        def write() -> None:
            begun.wait()
            try:
                results.append(recorder.write_to(io.BytesIO()))
            except SnapshotActiveError as error:
                results.append(error)

        for _ in range(10):
            threads = [threading.Thread(target=write) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(DEADLINE_S)
        assert len(results) == 40
        written = [r for r in results if isinstance(r, int)]
        refused = [r for r in results if isinstance(r, SnapshotActiveError)]
        assert written
        assert refused
        assert client.status().snapshots == len(written)


def test_stop_waits_for_a_snapshot_that_is_written(recorder: FlightRecorder) -> None:
    gate = Gate()
    written: list[int] = []
    writer = threading.Thread(target=lambda: written.append(recorder.write_to(gate)))  # type: ignore[arg-type]  # it can be written to
    writer.start()
    assert gate.reached.wait(DEADLINE_S)
    stopped = threading.Event()

    def stop() -> None:
        recorder.stop()
        stopped.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    assert not stopped.wait(0.3)
    gate.opened.set()
    stopper.join(DEADLINE_S)
    writer.join(DEADLINE_S)
    assert stopped.is_set()
    assert written == [gate.size_bytes]


def test_write_to_in_a_signal_handler_during_stop_is_told_off_and_ends(
    recorder: FlightRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def handler(*_: object) -> None:
        with pytest.raises(StateError) as caught:
            recorder.write_to(io.BytesIO())
        said.append(str(caught.value))

    def interrupted(timeout_s: float) -> str:
        signal.raise_signal(signal.SIGUSR1)
        return original(timeout_s)

    original = runtime.stop
    monkeypatch.setattr(runtime, "stop", interrupted)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        recorder.stop()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert said == ["write_to: wanted a flight recorder that is on, got one that is off"]


def test_options_reach_the_children_and_leave_with_the_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("FRZMQ_RECORDER", "FRZMQ_LOGGING", "FRZMQ_THREADS", "FRZMQ_REDACT", "FRZMQ_BUFFER_BYTES")
    monkeypatch.setenv("FRZMQ_THREADS", "1")
    before = {name: os.environ.get(name) for name in names}
    with frzmq.start(logging=False, threads=False, redact=("iban", "tin"), buffer_bytes=1 << 20) as flight:
        assert {name: os.environ.get(name) for name in names} == {
            "FRZMQ_RECORDER": flight.address,
            "FRZMQ_LOGGING": "0",
            "FRZMQ_THREADS": "0",
            "FRZMQ_REDACT": "iban,tin",
            "FRZMQ_BUFFER_BYTES": str(1 << 20),
        }
    assert {name: os.environ.get(name) for name in names} == before


def test_stop_returns_the_first_error_that_stopped_a_tracer(recorder: FlightRecorder) -> None:
    with ControlClient(str(recorder.address)) as client:
        bad = RawTracer(str(recorder.address), service="bad")
        bad.send(encode_batch(bad.header(BatchType.OPEN, generation=99)))
        bad.until(lambda: bad.stopped is not None)
        assert client.status().errors
        bad.close()
    error = recorder.stop()
    assert isinstance(error, StateError)
    assert "wanted a generation in 1.." in str(error)
