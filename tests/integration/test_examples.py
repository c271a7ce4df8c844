"""The programs of docs/examples, which know of frzmq only what docs/protocol.md says."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.programs import DEADLINE_S
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import validate

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.fixture(params=["ipc", "tcp"])
def recorder(request: pytest.FixtureRequest) -> Iterator[RecorderProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="fz") as directory,
        recorder_process(directory if request.param == "ipc" else "tcp") as process,
    ):
        yield process


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(EXAMPLES / f"{name}.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(name: str, *arguments: str) -> str:
    process = start(name, *arguments)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, ""), err
    return out


def asked_until_nobody_is_missing(*arguments: str) -> dict[str, Any]:
    """By the example's control client, which gives them two seconds: a busy machine may hold one of them for as long."""
    for _ in range(5):
        reply: dict[str, Any] = json.loads(run("control", *arguments))
        if not reply["missing"]:
            break
    assert reply["missing"] == []
    return reply


def taken(recorder: RecorderProcess, tmp_path: Path) -> Snapshot:
    path = tmp_path / "s.frz"
    end = asked_until_nobody_is_missing(recorder.address, "snapshot", str(path))
    assert (end["type"], end["size_bytes"]) == ("snapshot", path.stat().st_size)
    return open_snapshot(path)


@pytest.mark.parametrize(("name", "most_lines"), [("tracer", 150), ("control", 100)])
def test_example_uses_only_zmq_and_msgpack_and_is_short(name: str, most_lines: int) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    assert len(source.splitlines()) < most_lines
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"zmq", "msgpack"}


@pytest.mark.parametrize("marks", [(), ("--no-end-marks",)])
def test_tracer_of_the_example_is_recorded_whole(
    recorder: RecorderProcess, tmp_path: Path, marks: tuple[str, ...]
) -> None:
    process = start("tracer", recorder.address, "--seconds", "2", *marks)
    # in at least two generations
    until(lambda: json.loads(run("control", recorder.address, "status"))["status"]["tracers"])
    run("control", recorder.address, "flush")
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    number = int(out)
    opened = taken(recorder, tmp_path)
    assert validate(opened) == []
    assert opened.problems == ()
    assert len(opened.file.generations(0)) >= 2
    assert Counter(record.name for record in opened) == {
        "operation_begin": number,
        "operation_end": number,
        "span_begin": number,
        "span_end": number,
        "event": number,
        "context": 2 * number,
    }
    assert [(o.name, o.attributes, o.end_ns is not None) for o in opened.operations] == [
        ("work", {"number": n + 1}, True) for n in range(number)
    ]
    assert {(s.name, opened.operations[s.operation or 0].name) for s in opened.spans} == {("step", "work")}
    assert [(p.service, p.state) for p in opened.processes] == [("example", "gone")]
    assert [t.name for t in opened.threads] == ["main"]


@pytest.mark.parametrize("marks", [(), ("--no-end-marks",)])
def test_flush_reaches_the_example_single_and_double(
    recorder: RecorderProcess, tmp_path: Path, marks: tuple[str, ...]
) -> None:
    process = start("tracer", recorder.address, "--seconds", "30", *marks)
    try:
        while json.loads(run("control", recorder.address, "status"))["status"]["tracers"] == []:
            assert process.poll() is None
        for _ in range(3):
            asked_until_nobody_is_missing(recorder.address, "flush")
        held = taken(recorder, tmp_path)
        assert held.ledger.lost == 0
        assert held.operations[-1].name == "work"
    finally:
        process.kill()
        process.communicate()


def test_tracer_of_the_example_joins_a_recorder_that_has_started_anew() -> None:
    with tempfile.TemporaryDirectory(prefix="fz") as directory:
        with recorder_process(directory):
            process = start("tracer", directory, "--seconds", "60")
            while json.loads(run("control", directory, "status"))["status"]["tracers"] == []:
                assert process.poll() is None
        try:
            with recorder_process(directory) as second:
                deadline = time.monotonic() + DEADLINE_S
                while not (seen := json.loads(run("control", directory, "status"))["status"]["tracers"]):
                    assert process.poll() is None
                    assert time.monotonic() < deadline, "it does not come back"
                asked_until_nobody_is_missing(directory, "flush")
                with tempfile.TemporaryDirectory() as place:
                    opened = taken(second, Path(place))
                assert validate(opened) == []
                assert opened.operations[-1].name == "work"
                assert [(t["service"], t["error"]) for t in seen] == [("example", "")]
        finally:
            process.kill()
            process.communicate()


def test_control_of_the_example_starts_stops_and_is_told_errors(recorder: RecorderProcess) -> None:
    assert json.loads(run("control", recorder.address, "stop"))["type"] == "ok"
    process = start("control", recorder.address, "stop")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (1, "state: stop: wanted a recorder that is on, got one that is off\n")
    assert json.loads(run("control", recorder.address, "start"))["type"] == "ok"
    assert json.loads(run("control", recorder.address, "status"))["status"]["state"] == "on"


def test_control_of_an_unknown_request_is_told_so(recorder: RecorderProcess) -> None:
    process = start("control", recorder.address, "dance")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert err.startswith("bad_request: message: wanted a known type, got 'dance?'")
    assert json.loads(run("control", recorder.address, "status"))["status"]["pid"] == recorder.process.pid
    assert recorder.process.pid != os.getpid()
