"""Real processes that record, against a small recorder: how they join, fork, end, and outlive a recorder."""

from __future__ import annotations

import os
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_recorder import FakeRecorder, FakeTracer
from support.programs import Program

from frzmq.wire.batch import BatchType, decode_end_mark

PRELUDE = """
import os, signal, sys, threading, time
import frzmq
from frzmq.config import TracerConfig
from frzmq.tracer import runtime

def wait_line():
    return sys.stdin.readline().strip()

def say(text):
    print(text, flush=True)

def events(number):
    for _ in range(number):
        frzmq.event("e")

# on a busy machine a recorder may not answer for longer than a program waits at its end
END_S, runtime.END_S = runtime.END_S, 20.0

if __name__ == "__main__":
    runtime.configure(TracerConfig(recorder=sys.argv[1], service="test"))
"""


def launch(path: Path, address: str, body: str, *arguments: str) -> Program:
    """Records to ``address``."""
    return Program(path, PRELUDE + "\n" + textwrap.dedent(body), address, *arguments)


@pytest.fixture
def address() -> Iterator[str]:
    # a path of at most 107 bytes
    with tempfile.TemporaryDirectory(prefix="fz") as directory:
        yield directory


@pytest.fixture
def recorder(address: str) -> Iterator[FakeRecorder]:
    with FakeRecorder(address) as fake:
        yield fake
        assert fake.errors == []


def all_records(recorder: FakeRecorder) -> int:
    return sum(tracer.records for tracer in recorder.tracers.values())


def check_stream(tracer: FakeTracer) -> None:
    """Whole, in order, and every end mark true."""
    batches = [batch for _, batch in sorted(tracer.batches.items())]
    assert list(tracer.batches) and sorted(tracer.batches) == list(range(1, len(batches) + 1))
    generation, counted, ended = 0, 0, True
    for batch in batches:
        header = batch.header
        match header.type:
            case BatchType.OPEN:
                assert ended and header.generation > generation
                generation, counted, ended = header.generation, 0, False
            case BatchType.RECORDS:
                assert not ended and header.generation == generation
                counted += 1
            case BatchType.END:
                assert not ended and (header.generation, header.count) == (generation, counted)
                ended = True
            case _:
                pass
    rows = [row for end in tracer.of(BatchType.END) for row in decode_end_mark(end.body).writers]
    assert sum(row.next_index - row.first_index for row in rows) == tracer.records
    assert [row.overwritten for row in rows if row.overwritten] == []


def test_exit_of_a_short_program_ships_all(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    program = launch(tmp_path / "p.py", address, "events(100)")
    program.end()
    tracer = recorder.wait_tracer()
    recorder.wait(lambda: tracer.said_goodbye)
    assert tracer.events == 100
    check_stream(tracer)
    assert tracer.hello.service == "test"
    assert tracer.hello.pid == program.process.pid
    assert tracer.hello.shared
    assert tracer.hello.lock
    assert sorted(os.listdir(address)) == ["control", "data", "link"]


def test_configure_without_a_record_starts_nothing(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    program = launch(tmp_path / "p.py", address, "say(threading.active_count())")
    assert program.end() == "1\n"
    assert recorder.tracers == {}


def test_flush_with_an_advance_between_stores_all(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        for _ in range(3):
            events(10)
            say(frzmq.flush(10))
            wait_line()
        """,
    )
    for turn in range(1, 4):
        assert program.line() == "True"
        tracer = recorder.wait_tracer()
        assert tracer.events == 10 * turn
        assert recorder.advance_and_wait(tracer) == turn + 1
        program.tell("")
    program.end()
    check_stream(tracer)
    assert [b.header.generation for b in tracer.of(BatchType.OPEN)] == [1, 2, 3, 4]


def test_fork_child_and_parent_have_tracers_of_their_own(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        events(10)
        assert frzmq.flush(10)
        pid = os.fork()
        if pid == 0:
            events(5)
            sys.exit(0)
        say(pid)
        events(20)
        assert os.waitpid(pid, 0)[1] == 0
        """,
    )
    child_pid = int(program.line())
    program.end()
    parent, child = recorder.wait_tracer(program.process.pid), recorder.wait_tracer(child_pid)
    assert (parent.events, child.events) == (30, 5)
    assert parent.hello.uuid != child.hello.uuid
    assert child.hello.parent_pid == program.process.pid
    check_stream(parent)
    check_stream(child)


def test_fork_while_another_thread_records_loses_nothing(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        import warnings
        warnings.simplefilter("ignore")  # Python 3.12 and later warn of a fork beside a thread: this one is the program's
        done = threading.Event()
        def work():
            while not done.wait(0.0002):
                events(100)
        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                frzmq.event("child")
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        done.set()
        thread.join()
        """,
    )
    program.end()
    parent = recorder.wait_tracer(program.process.pid)
    recorder.wait(lambda: len(recorder.tracers) == 6)
    rows = [row for batch in parent.of(BatchType.END) for row in decode_end_mark(batch.body).writers]
    overwritten = sum(end - start for row in rows for start, end in row.overwritten)
    assert parent.records + overwritten == sum(row.next_index - row.first_index for row in rows)
    assert parent.of(BatchType.END)[-1].header.tseq == len(parent.batches) - 1
    for tracer in recorder.tracers.values():
        if tracer is not parent:
            assert tracer.events == 1
            check_stream(tracer)


def test_fork_parent_that_records_nothing_more_is_heard_on(
    recorder: FakeRecorder, address: str, tmp_path: Path
) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        events(10)
        assert frzmq.flush(10)
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os.read(0, 1)
                os._exit(0)
        say("forked")
        os.read(0, 1)
        """,
    )
    assert program.line() == "forked"
    parent = recorder.wait_tracer(program.process.pid)
    assert recorder.advance_and_wait(parent) > 1
    assert len(recorder.tracers) == 1
    for _ in range(4):
        program.tell("")
    program.end()
    check_stream(parent)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_child_ships_its_tail(
    recorder: FakeRecorder, address: str, tmp_path: Path, method: str
) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        import multiprocessing

        def child(address):
            if not runtime.recording():
                runtime.configure(TracerConfig(recorder=address, service="child"))
            events(50)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[2])
            events(1)
            children = [context.Process(target=child, args=(sys.argv[1],)) for _ in range(3)]
            for process in children:
                process.start()
            for process in children:
                process.join()
            say(" ".join(str(process.exitcode) for process in children))
        """,
        method,
    )
    assert program.line() == "0 0 0"
    program.end()
    children = [t for t in recorder.wait_tracers(4) if t.hello.pid != program.process.pid]
    assert len(recorder.tracers) == 4
    assert [t.events for t in children] == [50, 50, 50]
    for tracer in children:
        recorder.wait(lambda t=tracer: t.said_goodbye)  # type: ignore[misc]  # mypy does not infer a lambda with a default
        check_stream(tracer)


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        ("os._exit(3)", 3, "exit"),
        ("os._exit(status=3)", 3, "exit"),
        ("signal.raise_signal(signal.SIGTERM)", -15, "SIGTERM"),
    ],
)
def test_end_without_exit_handlers_ships_the_tail(
    recorder: FakeRecorder, address: str, tmp_path: Path, end: str, code: int, reason: str
) -> None:
    program = launch(tmp_path / "p.py", address, f"events(50); {end}")
    program.end(code)
    tracer = recorder.wait_tracer()
    recorder.wait(lambda: tracer.said_goodbye)
    assert tracer.events == 50
    assert any(reason.encode() in batch.body for batch in tracer.of(BatchType.RECORDS))
    check_stream(tracer)


@pytest.mark.parametrize(
    "survived",
    [
        "signal.signal(signal.SIGTERM, lambda *_: events(1))",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    ],
)
def test_signal_that_does_not_end_the_program_does_not_end_its_recording(
    recorder: FakeRecorder, address: str, tmp_path: Path, survived: str
) -> None:
    program = launch(
        tmp_path / "p.py", address, f"events(1); {survived}; signal.raise_signal(signal.SIGTERM); events(10)"
    )
    program.end()
    tracer = recorder.wait_tracer()
    recorder.wait(lambda: tracer.said_goodbye)
    assert tracer.events == 11 + survived.count("events")
    check_stream(tracer)


def test_exit_without_a_recorder_is_bounded(address: str, tmp_path: Path) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        import atexit
        runtime.END_S = END_S
        # first registered, last called
        begin = []
        atexit._clear()
        atexit.register(lambda: say(time.monotonic() - begin[0]))
        atexit.register(runtime._end_process)
        events(1000)
        begin.append(time.monotonic())
        """,
    )
    assert float(program.line()) < 10.0
    program.end()
    assert os.listdir(address) == []


def test_recorder_that_comes_later_gets_all(address: str, tmp_path: Path) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        events(10)
        assert not frzmq.flush(0.05)
        say("recorded")
        events(10)
        say(frzmq.flush(15))
        """,
    )
    assert program.line() == "recorded"
    with FakeRecorder(address) as recorder:
        assert program.line() == "True"
        program.end()
        tracer = recorder.wait_tracer()
        assert tracer.events == 20
        check_stream(tracer)


def test_recorder_restart_gets_strings_and_what_was_not_acknowledged(address: str, tmp_path: Path) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        events(10)
        assert frzmq.flush(10)
        say("stored")
        wait_line()
        frzmq.event("second")
        say(frzmq.flush(0.2))
        wait_line()
        frzmq.event("third")
        say(frzmq.flush(15))
        """,
    )
    with FakeRecorder(address) as recorder:
        assert program.line() == "stored"
        first = recorder.wait_tracer()
        assert first.events == 10
        recorder.acknowledges = False
        program.tell("")
        assert program.line() == "False"
    with FakeRecorder(address) as recorder:
        program.tell("")
        assert program.line() == "True"
        program.end()
        second = recorder.wait_tracer()
        assert second.hello.uuid == first.hello.uuid
        assert second.hello.generation == 1
        assert second.strings == {1: "MainThread", 2: "e", 3: "second", 4: "third"}
        assert second.events == 2
        opened = [batch.header.generation for batch in second.of(BatchType.OPEN)]
        assert opened == [1, 2]


def test_restart_on_the_same_sockets_is_noticed(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        events(10)
        assert frzmq.flush(10)
        say("stored")
        wait_line()
        events(1)
        say(frzmq.flush(15))
        """,
    )
    assert program.line() == "stored"
    old = recorder.wait_tracer()
    recorder.forget()
    new = recorder.wait_tracer()
    assert new is not old
    program.tell("")
    assert program.line() == "True"
    program.end()
    assert new.events == 1


def test_lost_batches_are_sent_again(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    lost: set[int] = set()

    def lose_once(tseq: int) -> bool:
        if tseq % 3 or tseq in lost:
            return False
        lost.add(tseq)
        return True

    recorder.loses = lambda batch: lose_once(batch.header.tseq)
    program = launch(
        tmp_path / "p.py",
        address,
        """
        for _ in range(5):
            events(10)
            frzmq.flush(0.2)
        wait_line()
        """,
    )
    tracer = recorder.wait_tracer()
    # what is lost last is seen to be lost by what comes after it
    recorder.wait(lambda: len(tracer.of(BatchType.FLUSH)) >= 3)
    recorder.advance_and_wait(tracer)
    program.tell("")
    program.end()
    recorder.wait(lambda: tracer.said_goodbye)
    assert lost
    assert tracer.events == 50
    check_stream(tracer)


def test_stop_of_the_recorder_ends_recording_and_rejoin_goes_on(
    recorder: FakeRecorder, address: str, tmp_path: Path
) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        events(10)
        assert frzmq.flush(10)
        say("stored")
        assert wait_line() == "stopped"
        while runtime.recording():
            time.sleep(0.001)
        events(1000)
        say(runtime.stats().state)
        while not runtime.recording():
            time.sleep(0.001)
        events(5)
        say(frzmq.flush(10))
        say(runtime.stop())
        """,
    )
    assert program.line() == "stored"
    first = recorder.wait_tracer()
    recorder.stop(first, "a malformed batch", rejoin_ns=2 * 10**9)
    program.tell("stopped")
    assert program.line() == "stopped"
    second = recorder.wait_tracer(incarnation=2)
    assert program.line() == "True"
    assert program.line() == "a malformed batch"
    program.end()
    assert (first.events, second.events) == (10, 5)
    assert second.hello.uuid == first.hello.uuid
    assert second.strings == first.strings
    assert second.said_goodbye
    assert decode_end_mark(second.of(BatchType.END)[0].body).writers[0].first_index == first.records


def test_silent_recorder_is_greeted_again(address: str, tmp_path: Path) -> None:
    with FakeRecorder(address, silence_ns=200_000_000) as recorder:
        program = launch(
            tmp_path / "p.py",
            address,
            """
            events(10)
            say(frzmq.flush(10))
            wait_line()
            events(10)
            say(frzmq.flush(10))
            """,
        )
        assert program.line() == "True"
        tracer = recorder.wait_tracer()
        hellos = tracer.hellos
        recorder.answers = False
        recorder.wait(lambda: tracer.hellos > hellos)
        recorder.answers = True
        program.tell("")
        assert program.line() == "True"
        program.end()
        assert tracer.events == 20
        check_stream(tracer)


def test_threads_that_outlive_main_are_recorded(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    program = launch(
        tmp_path / "p.py",
        address,
        """
        def work():
            threading.main_thread().join()
            events(10)
        thread = threading.Thread(target=work)
        thread.start()
        events(10)
        """,
    )
    program.end()
    tracer = recorder.wait_tracer()
    recorder.wait(lambda: tracer.said_goodbye)
    check_stream(tracer)
    assert tracer.events == 20


def test_agent_of_an_idle_program_is_cheap(recorder: FakeRecorder, address: str, tmp_path: Path) -> None:
    program = launch(tmp_path / "p.py", address, "events(1); frzmq.flush(10); say('idle'); wait_line()")
    assert program.line() == "idle"
    tracer = recorder.wait_tracer()
    # one that was said before it rested counts what it took to start
    seen = len(tracer.heartbeats)
    recorder.wait(lambda: len(tracer.heartbeats) >= seen + 2)
    first, begin = tracer.heartbeats[-1], time.monotonic_ns()
    recorder.wait(lambda: time.monotonic_ns() - begin > 10**9 and tracer.heartbeats[-1] is not first)
    share = (tracer.heartbeats[-1].agent_cpu_ns - first.agent_cpu_ns) / (time.monotonic_ns() - begin)
    program.tell("")
    program.end()
    # 0.5 % is the aim, with heartbeats every second instead of 20 a second
    assert share < 0.05
