"""What processes leave whose recorder died too: `frzmq recover`, and the next recorder in the directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.programs import DEADLINE_S, Program, environment
from support.recorder_process import recorder_process

from frzmq.control.client import ControlClient
from frzmq.reader.snapshot import open_snapshot
from frzmq.reader.validate import Level, validate

PROGRAM = """
    import frzmq, sys
    for n in range(1000):
        frzmq.event("n", n=n)
    frzmq.flush()
    with frzmq.operation("work"):
        for n in range(1000, 2000):
            frzmq.event("n", n=n)
        print("ready", flush=True)
        sys.stdin.readline()
"""


def launch(tmp_path: Path, address: str, name: str) -> Program:
    program = Program(tmp_path / f"{name}.py", PROGRAM, FRZMQ_RECORDER=address, FRZMQ_SERVICE=name)
    assert program.line() == "ready"
    return program


def kill(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE_S)


def check(path: Path, program: Program) -> None:
    opened = open_snapshot(path)
    [process] = [p for p in opened.processes if p.pid == program.process.pid]
    assert (process.service, process.state) == ("one", "dead")
    # what was acknowledged and not used again is there too
    assert [e.attributes["n"] for e in opened.events if e.process == process.number] == [*range(2000)]
    assert [(o.name, o.end_ns) for o in opened.operations if o.process == process.number] == [("work", None)]
    assert [f for f in validate(opened) if f.level is Level.ERROR] == []


def recover(directory: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "frzmq", "recover", str(directory), "-o", str(output)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=DEADLINE_S, check=False)


@pytest.fixture
def directory(runtime_directory: Path) -> Path:
    runtime_directory.mkdir(mode=0o700)
    return runtime_directory


def test_recover_makes_a_snapshot_of_the_dead_and_spares_the_living(tmp_path: Path, directory: Path) -> None:
    with recorder_process(str(directory)) as recorder:
        one, two = launch(tmp_path, recorder.address, "one"), launch(tmp_path, recorder.address, "two")
        refused = recover(directory, tmp_path / "refused.frz")
        assert (refused.returncode, "another recorder" in refused.stderr) == (2, True)
        kill(recorder.process)
        kill(one.process)
    one.process.communicate()
    done = recover(directory, tmp_path / "r.frz")
    assert done.returncode == 0, done.stderr
    check(tmp_path / "r.frz", one)
    assert len(open_snapshot(tmp_path / "r.frz").processes) == 1
    # the other lives, and its file is there
    assert len(list(directory.glob("*.buf"))) == len(list(directory.glob("*.lock"))) == 1
    again = recover(directory, tmp_path / "again.frz")
    assert (again.returncode, (tmp_path / "again.frz").exists()) == (1, False)
    kill(two.process)
    two.process.communicate()
    for path in directory.iterdir():
        path.unlink()


def test_next_recorder_stores_what_was_left_and_the_living_join_it(tmp_path: Path, directory: Path) -> None:
    with recorder_process(str(directory)) as recorder:
        one, two = launch(tmp_path, recorder.address, "one"), launch(tmp_path, recorder.address, "two")
        kill(recorder.process)
        kill(one.process)
    one.process.communicate()
    store = tmp_path / "store"
    with recorder_process(str(directory), "--snapshots", str(store)) as recorder:
        deadline = time.monotonic() + DEADLINE_S
        while not list(store.glob("*.frz")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        [path] = store.glob("*.frz")
        assert "-one-recovered" in path.name
        check(path, one)
        with ControlClient(recorder.address) as client:
            while [t.pid for t in client.status().tracers if t.state == "live"] != [two.process.pid]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        two.tell("end")
        two.end()


def test_hostile_and_half_written_files_cost_their_own_tail(tmp_path: Path, directory: Path) -> None:
    with recorder_process(str(directory)) as recorder:
        one = launch(tmp_path, recorder.address, "one")
        kill(recorder.process)
        kill(one.process)
    one.process.communicate()
    (directory / f"{b'a' * 16!r}.buf").write_bytes(b"no hex")
    (directory / f"{(b'b' * 16).hex()}.buf").write_bytes(os.urandom(300_000))
    (directory / f"{(b'c' * 16).hex()}.buf").symlink_to("/dev/zero")
    (directory / f"{(b'd' * 16).hex()}.buf").write_bytes(b"")
    os.mkfifo(directory / f"{(b'e' * 16).hex()}.buf")
    done = recover(directory, tmp_path / "r.frz")
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) >= 5
    check(tmp_path / "r.frz", one)
    for path in directory.iterdir():
        path.unlink()
