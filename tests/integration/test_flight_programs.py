"""Real programs with a flight recorder of their own: children of every kind, and every way to end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.flights import names, taken
from support.programs import DEADLINE_S, Program
from support.recorder_process import until_ended, until_gone

import frzmq
from frzmq.errors import StateError
from frzmq.flight import FlightRecorder
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate

pytestmark = pytest.mark.usefixtures("runtime_directory")


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


def test_start_in_a_cell_of_a_running_loop_works(tmp_path: Path) -> None:
    """As a notebook runs cells: compiled from text, ``__main__`` no file, inside of a running event loop."""
    opened, said = run(
        tmp_path,
        """
        import ast, asyncio, sys, types

        CELLS = [
            "import asyncio, frzmq\\nflight = frzmq.start(service='notebook')",
            "async def work():\\n    with frzmq.span('cell'):\\n        await asyncio.sleep(0)",
            "await work()",
            "print(frzmq.snapshot('s.frz') > 0)",
            "flight.stop()",
        ]

        async def kernel():
            sys.modules["__main__"] = types.ModuleType("__main__")
            names = sys.modules["__main__"].__dict__
            for n, text in enumerate(CELLS):
                code = compile(text, f"<cell {n}>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                result = eval(code, names)
                if result is not None:
                    await result

        asyncio.run(kernel())
        """,
    )
    assert said == "True\n"
    assert [(p.service, len(opened.spans)) for p in opened.processes] == [("notebook", 1)]


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
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.abort()", -6),
        ("os.execv(sys.executable, [sys.executable, '-c', 'import frzmq; frzmq.event(1); raise SystemExit(5)'])", 5),
    ],
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
    until_ended(int(pid))
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
