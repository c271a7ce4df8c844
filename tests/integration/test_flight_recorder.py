"""The flight recorder of one program, in the spirit of the tests of Go's: state errors, generations, failing writers, children, the end."""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs import DEADLINE_S, Program
from support.recorder_process import until_gone

import frzmq
from frzmq.control.client import ControlClient
from frzmq.errors import SnapshotActiveError, SnapshotWriteError, StateError
from frzmq.flight import FlightRecorder
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate

EMPTY_ENVIRONMENT = ("FRZMQ_RECORDER", "FRZMQ_SERVICE", "FRZMQ_MIN_AGE", "FRZMQ_MAX_BYTES", "FRZMQ_DISABLE")


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short, as a socket's path must be, and empty at the end."""
    for name in EMPTY_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    directory = Path(f"/tmp/fz{os.getpid()}-{os.urandom(3).hex()}")
    monkeypatch.setenv("FRZMQ_RUNTIME_DIR", str(directory))
    yield directory
    if directory.exists():
        left = [path for path in directory.iterdir() if path.name != "lock"]
        shutil.rmtree(directory)
        assert left == []


@pytest.fixture
def recorder() -> Iterator[FlightRecorder]:
    flight = FlightRecorder(service="test")
    flight.start()
    yield flight
    if flight.enabled:
        flight.stop()


def taken(flight: FlightRecorder, tmp_path: Path) -> Snapshot:
    path = tmp_path / f"{time.monotonic_ns()}.frz"
    with path.open("xb") as file:
        assert flight.write_to(file) == file.tell()
    opened = open_snapshot(path)
    assert validate(opened) == []
    return opened


def names(opened: Snapshot) -> list[str]:
    return [event.name for event in opened.events]


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
            frzmq.event(f"e{n}")
            opened = taken(flight, tmp_path)
            assert len(opened.file.generations(0)) == 1
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


# --- programs


def run(tmp_path: Path, code: str, **variables: str) -> tuple[Snapshot, str]:
    """A program that writes s.frz; and what it said."""
    variables = {"FRZMQ_RUNTIME_DIR": os.environ["FRZMQ_RUNTIME_DIR"], **variables}
    program = Program(tmp_path / "program.py", code, **variables)
    said = program.end()
    opened = open_snapshot(tmp_path / "s.frz")
    assert [finding for finding in validate(opened) if finding.level is Level.ERROR] == []
    return opened, said


CHILD = """
    import os, subprocess, sys, multiprocessing
    import frzmq

    def work(traceparent):
        with frzmq.operation("work", traceparent=traceparent):
            frzmq.event("child", pid=os.getpid())

    def grandchild(method, traceparent):
        process = multiprocessing.get_context(method).Process(target=work, args=(traceparent,))
        process.start()
        process.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_and_grandchildren_record_into_the_same_recorder(tmp_path: Path, method: str) -> None:
    opened, said = run(
        tmp_path,
        CHILD
        + f"""
    if __name__ == "__main__":
        with frzmq.start(service="parent"), frzmq.operation("all"):
            context = multiprocessing.get_context({method!r})
            tp = frzmq.inject()
            children = [context.Process(target=work, args=(tp,)), context.Process(target=grandchild, args=({method!r}, tp))]
            for child in children:
                child.start()
            for child in children:
                child.join()
            subprocess.run([sys.executable, "-c", "import frzmq; frzmq.event('plain')"], check=True)
            frzmq.snapshot("s.frz")
            print("done")
    """,
    )
    assert said == "done\n"
    assert sorted(names(opened)) == ["child", "child", "plain"]
    assert {p.service for p in opened.processes} == {"parent"}
    pids = {p.pid for p in opened.processes}
    assert {event.attributes.get("pid") for event in opened.events if event.name == "child"} <= pids
    assert [f.to_process != f.from_process for f in opened.flows] == [True, True]
    assert opened.ledger.lost == 0


def test_program_without_a_main_guard_is_not_run_twice(tmp_path: Path) -> None:
    opened, said = run(
        tmp_path,
        """
        import frzmq
        print("once")
        frzmq.start()
        frzmq.event("here")
        frzmq.snapshot("s.frz")
        """,
    )
    assert (said, names(opened)) == ("once\n", ["here"])


def test_modules_in_the_programs_directory_do_not_reach_the_recorder(tmp_path: Path) -> None:
    for name in ("zmq", "msgpack", "argparse"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    (tmp_path / "elsewhere").mkdir()
    program = Program(
        tmp_path / "elsewhere" / "program.py",
        """
        import os, frzmq
        os.chdir("..")
        with frzmq.FlightRecorder() as flight:
            print(flight.enabled)
        """,
        FRZMQ_RUNTIME_DIR=os.environ["FRZMQ_RUNTIME_DIR"],
    )
    assert program.end() == "True\n"


def test_start_in_a_prompt_works(tmp_path: Path) -> None:
    program = Program(
        tmp_path / "program.py",
        """
        import code, sys
        code.interact(banner="", exitmsg="", readfunc=lambda prompt: input(), local={})
        """,
        FRZMQ_RUNTIME_DIR=os.environ["FRZMQ_RUNTIME_DIR"],
    )
    for line in ("import frzmq", "flight = frzmq.start()", "frzmq.event('typed')", "frzmq.snapshot('s.frz') > 0"):
        program.tell(line)
    out, _ = program.process.communicate(timeout=DEADLINE_S)
    assert "True" in out
    assert names(open_snapshot(tmp_path / "s.frz")) == ["typed"]


def test_child_may_give_itself_another_name(tmp_path: Path) -> None:
    opened, _ = run(
        tmp_path,
        """
        import logging, os, subprocess, sys, frzmq
        if len(sys.argv) == 1:
            with frzmq.start(service="parent"):
                subprocess.run([sys.executable, __file__, "child"], check=True)
                pid = os.fork()
                if pid == 0:
                    frzmq.event("before")
                    frzmq.start(service="fork")
                    frzmq.event("forked")
                    frzmq.flush()
                    os._exit(0)
                os.waitpid(pid, 0)
                frzmq.event("mine")
                frzmq.snapshot("s.frz")
        else:
            logging.getLogger().addHandler(logging.NullHandler())
            logging.getLogger().error("early")
            frzmq.start(service="child")
            frzmq.event("named")
        """,
    )
    found = [(opened.processes[e.process].service, e.name) for e in opened.events]
    assert sorted(found) == [("child", "named"), ("fork", "forked"), ("parent", "before"), ("parent", "mine")]
    assert [opened.processes[log.process].service for log in opened.logs] == ["parent"]


def test_asyncio_and_thread_pools_follow_the_operation(tmp_path: Path) -> None:
    opened, _ = run(
        tmp_path,
        """
        import asyncio, frzmq

        def in_thread(n):
            with frzmq.span("thread", n=n):
                frzmq.event("deep", n=n)

        async def task(n):
            with frzmq.operation(f"op {n}"):
                await asyncio.sleep(0.001)
                await asyncio.to_thread(in_thread, n)

        async def main():
            await asyncio.gather(*(task(n) for n in range(4)))

        with frzmq.start():
            asyncio.run(main())
            frzmq.snapshot("s.frz")
        """,
    )
    assert sorted(o.name for o in opened.operations) == [f"op {n}" for n in range(4)]
    for event in opened.events:
        assert event.operation is not None
        assert opened.operations[event.operation].name == f"op {event.attributes['n']!r}"
    assert all(span.end_ns is not None for span in opened.spans)


def test_program_that_calls_nothing_is_recorded_by_its_environment(tmp_path: Path) -> None:
    with frzmq.start(service="outer") as flight:
        program = Program(
            tmp_path / "program.py",
            """
            import logging, threading
            import frzmq
            logging.getLogger("app").warning("careful %d", 3)
            thread = threading.Thread(target=lambda: 1 / 0, name="worker")
            thread.start()
            thread.join()
            raise KeyError("lost")
            """,
            **{name: os.environ[name] for name in ("FRZMQ_RECORDER", "FRZMQ_SERVICE")},
        )
        program.process.communicate(timeout=DEADLINE_S)
        assert program.process.returncode == 1
        opened = taken(flight, tmp_path)
        assert [(log.level, log.message) for log in opened.logs] == [(30, "careful 3")]
        assert [(x.type, x.where) for x in opened.exceptions] == [("ZeroDivisionError", "thread"), ("KeyError", "main")]
        assert [p.end_reason for p in opened.processes if p.pid == program.process.pid] == ["exit"]


@pytest.mark.parametrize(("flag", "wanted"), [("1", ["MainThread", "silent one", "silent two"]), ("0", ["MainThread"])])
def test_threads_that_record_nothing_have_a_begin_and_an_end(tmp_path: Path, flag: str, wanted: list[str]) -> None:
    opened, said = run(
        tmp_path,
        """
        import threading, traceback, frzmq

        class Silent(threading.Thread):
            def run(self):
                pass

        with frzmq.start():
            frzmq.event("main")
            threads = [threading.Thread(target=lambda: None, name="silent one"), Silent(name="silent two")]
            for thread in threads:
                thread.start()
                thread.join()
            print(threading.active_count())
            frzmq.snapshot("s.frz")
        """,
        FRZMQ_THREADS=flag,
    )
    assert said == "2\n"
    assert [t.name for t in opened.threads] == wanted
    for thread in opened.threads[1:]:
        assert thread.begin_ns is not None
        assert thread.end_ns is not None
        assert thread.begin_ns < thread.end_ns


@pytest.mark.parametrize(
    ("end", "code"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("os._exit(4)", 4), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)],
)
def test_recorder_and_its_directory_are_gone_after_the_program(
    tmp_path: Path, runtime_directory: Path, end: str, code: int
) -> None:
    program = Program(
        tmp_path / "program.py",
        f"""
        import os, sys, frzmq
        flight = frzmq.start()
        frzmq.event("e")
        print(flight.address, flight._embedded.pid, flush=True)
        sys.stdin.readline()
        {end}
        """,
        FRZMQ_RUNTIME_DIR=str(runtime_directory),
    )
    address, pid = program.line().split()
    assert Path(f"/proc/{pid}").exists()
    program.tell("go")
    program.end(code)
    until_gone(Path(f"/proc/{pid}"))
    until_gone(Path(address.removeprefix("ipc://")))


def test_recorder_is_no_child_of_the_program(tmp_path: Path) -> None:
    program = Program(
        tmp_path / "program.py",
        """
        import os, signal, frzmq
        died = []
        signal.signal(signal.SIGCHLD, lambda *_: died.append(1))
        with frzmq.start():
            started = len(died)
            try:
                os.waitpid(-1, os.WNOHANG)
                print("a child")
            except ChildProcessError:
                print("none")
        """,
        FRZMQ_RUNTIME_DIR=os.environ["FRZMQ_RUNTIME_DIR"],
    )
    assert program.end() == "none\n"


def test_interrupt_of_the_program_does_not_end_its_recorder(tmp_path: Path) -> None:
    program = Program(
        tmp_path / "program.py",
        """
        import os, signal, sys, frzmq
        flight = frzmq.start()
        try:
            print("on", flush=True)
            sys.stdin.readline()
        except KeyboardInterrupt:
            frzmq.event("interrupted")
            frzmq.snapshot("s.frz")
        """,
        FRZMQ_RUNTIME_DIR=os.environ["FRZMQ_RUNTIME_DIR"],
    )
    assert program.line() == "on"
    program.process.send_signal(signal.SIGINT)
    program.end()
    assert names(open_snapshot(tmp_path / "s.frz")) == ["interrupted"]


def test_directory_of_a_killed_recorder_is_removed_by_the_next(
    tmp_path: Path, runtime_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = runtime_directory / "rleft"
    left.mkdir(mode=0o700, parents=True)
    runtime_directory.chmod(0o700)
    (left / "lock").write_text("1")
    old = time.time() - 3600
    os.utime(left, (old, old))
    young = runtime_directory / "ryoung"
    young.mkdir(mode=0o700)
    with FlightRecorder():
        assert not left.exists()
        assert young.exists()
    young.rmdir()


def test_state_error_of_a_recorder_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frzmq.embedded.sys.executable", "/nonexistent/python")
    flight = FlightRecorder()
    with pytest.raises(StateError, match="embedded recorder: it ended before it served"):
        flight.start()
    assert not flight.enabled
