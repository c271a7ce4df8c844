"""Programs that begin and end while their recorder is stopped: it hears of none of them, and has all that they recorded once it goes on."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_recorder import FakeRecorder
from support.programs import DEADLINE_S, Program
from support.recorder_process import RecorderProcess, recorder_process, taken
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.tracer.choice import native
from frzmq.tracer.leaving import MOST_BUFFERS

EVENTS = 500
PROGRAM = f"""
    import os, signal, sys, time
    import frzmq
    from frzmq.tracer import runtime

    def is_said():
        directory = os.environ["FRZMQ_RECORDER"]
        return any(os.path.getsize(f"{{directory}}/{{n}}") for n in os.listdir(directory) if n.endswith(".lock"))

    for n in range({EVENTS}):
        frzmq.event("n", n=n)
    if sys.argv[1] == "killed":
        while not is_said():
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    while sys.argv[1] == "refused" and "wanted another" not in runtime.stats().error:
        time.sleep(0.01)
    if sys.argv[1] == "forks" and os.fork() == 0:
        for n in range({EVENTS}):
            frzmq.event("n", n=n)
        os._exit(0)
"""


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[RecorderProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="fz") as directory,
        recorder_process(directory, "--snapshots", str(tmp_path / "s")) as process,
    ):
        yield process


def run(recorder_address: str, tmp_path: Path, how: str, code: int = 0, **variables: str) -> None:
    Program(tmp_path / "p.py", PROGRAM, how, FRZMQ_RECORDER=recorder_address, **variables).end(code)


def files(address: str) -> list[str]:
    """Of tracers."""
    return [name for name in os.listdir(address) if name.endswith((".buf", ".lock"))]


@pytest.mark.parametrize(
    "kind", ["py", pytest.param("c", marks=pytest.mark.skipif(native is None, reason="no native buffer"))]
)
@pytest.mark.parametrize(
    ("how", "code", "error"),
    [
        ("ends", 0, "it ended unheard"),
        ("forks", 0, "it ended unheard"),
        ("killed", -signal.SIGKILL, "it died: unknown"),
    ],
)
def test_program_that_nobody_heard_of_is_there_to_its_last_record(
    recorder: RecorderProcess, tmp_path: Path, kind: str, how: str, code: int, error: str
) -> None:
    recorder.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, recorder.process.pid, os.WSTOPPED)
    try:
        run(recorder.address, tmp_path, how, code, FRZMQ_BUFFER=kind)
        processes = 2 if how == "forks" else 1
        until(lambda: len(files(recorder.address)) == 2 * processes, "what they leave", DEADLINE_S)
    finally:
        recorder.process.send_signal(signal.SIGCONT)
    # the request comes as soon as the programs could be heard of
    opened = taken(recorder, tmp_path / "s.frz")
    assert [(process.state, process.error) for process in opened.processes] == [("dead", error)] * processes
    for process in opened.processes:
        assert (process.ledger.lost, process.ledger.balanced) == (0, True)
        found = [e.attributes["n"] for e in opened.events if e.process == process.number and e.name == "n"]
        assert found == [*range(EVENTS)]
    assert files(recorder.address) == []


def test_program_that_nobody_heard_of_leaves_nothing_where_many_have(recorder: RecorderProcess, tmp_path: Path) -> None:
    recorder.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, recorder.process.pid, os.WSTOPPED)
    try:
        others = {f"other{n}.buf" for n in range(MOST_BUFFERS)}
        for name in others:
            Path(recorder.address, name).touch()
        run(recorder.address, tmp_path, "ends")
        assert set(files(recorder.address)) == others
        Path(recorder.address, others.pop()).unlink()
        run(recorder.address, tmp_path, "ends")
        assert len(files(recorder.address)) == len(others) + 2
    finally:
        recorder.process.send_signal(signal.SIGCONT)


def test_program_that_nobody_heard_of_is_found_without_being_asked_for(
    recorder: RecorderProcess, tmp_path: Path
) -> None:
    recorder.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, recorder.process.pid, os.WSTOPPED)
    try:
        run(recorder.address, tmp_path, "ends")
    finally:
        recorder.process.send_signal(signal.SIGCONT)
    with ControlClient(recorder.address) as client:
        until(lambda: [tracer.state for tracer in client.status().tracers] == ["dead"], "the program")
    assert files(recorder.address) == []


def test_program_whose_recorder_is_gone_or_refuses_it_leaves_nothing(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fz") as directory:
        with recorder_process(directory) as killed:
            killed.process.kill()
            killed.wait()
        # its sockets are still there
        assert "link" in os.listdir(directory)
        run(directory, tmp_path, "ends")
        assert files(directory) == []
    with tempfile.TemporaryDirectory(prefix="fz") as directory, FakeRecorder(directory) as refuses:
        refuses.refuses = "wanted another"
        program = Program(tmp_path / "p.py", PROGRAM, "refused", FRZMQ_RECORDER=directory)
        assert "wanted another" in program.process.communicate(timeout=DEADLINE_S)[1]
        assert program.process.returncode == 0
        assert files(directory) == []
