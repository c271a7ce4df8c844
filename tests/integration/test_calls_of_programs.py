"""Every call: of programs that are run, that fork, and that end badly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.called import MONITORED, recorder
from support.programs import DEADLINE_S, Program, environment

from frzmq.errors import ConfigError
from frzmq.reader.snapshot import open_snapshot
from frzmq.reader.validate import Level, validate
from frzmq.tracer.choice import native

pytestmark = [
    pytest.mark.usefixtures("runtime_directory"),
    pytest.mark.skipif(native is None, reason="only the native buffer records calls"),
]


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
