"""The command line, as people and scripts use it: real processes, exit codes, one clear line when something is wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs import DEADLINE_S, environment
from support.raw_tracer import RawTracer
from support.recorder_process import RecorderProcess, recorder_process

from frzmq.reader.snapshot import open_snapshot
from frzmq.reader.validate import Level, validate


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, as a socket's path must be."""
    with tempfile.TemporaryDirectory(prefix="fz") as path:
        yield Path(path)


@pytest.fixture
def recorder(directory: Path) -> Iterator[RecorderProcess]:
    with recorder_process(str(directory / "r")) as process:
        yield process


def popen(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "frzmq", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(**variables),
    )


def frzmq(*arguments: str, cwd: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = popen(*arguments, cwd=cwd, **variables)
    out, err = process.communicate(timeout=3 * DEADLINE_S)
    return process.returncode, out, err


def snapshot_of(recorder: RecorderProcess, path: Path) -> Path:
    tracer = RawTracer(recorder.address, service="web")
    tracer.record(5)
    tracer.goodbye()
    tracer.close()
    assert frzmq("snapshot", recorder.address, "-o", str(path), "--reason", "because")[0] == 0
    return path


# --- usage


def test_help_lists_every_command() -> None:
    code, out, err = frzmq("--help")
    assert (code, err) == (0, "")
    for command in [
        "recorder",
        "run",
        "status",
        "start",
        "stop",
        "flush",
        "snapshot",
        "summary",
        "request",
        "info",
        "validate",
        "export",
        "report",
        "view",
        "demo",
    ]:
        assert f"\n    {command} " in out
        code, help_, err = frzmq(command, "--help")
        assert (code, err) == (0, "")
        assert f"usage: frzmq {command}" in help_


def test_version_is_the_packages() -> None:
    code, out, _ = frzmq("--version")
    assert (code, out.split()[0]) == (0, "frzmq")


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("snapshot",), ("status", "a", "b"), ("run",), ("run", "-o")])
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    code, out, err = frzmq(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: frzmq")


@pytest.mark.parametrize("command", ["status", "start", "stop", "flush", "snapshot"])
def test_unreachable_recorder_is_one_line_and_1(command: str, directory: Path) -> None:
    more = ["-o", str(directory / "s.frz")] if command == "snapshot" else []
    code, out, err = frzmq(command, str(directory), *more)
    assert (code, out, err) == (1, "", f"frzmq: no recorder at {directory}\n")
    assert os.listdir(directory) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "http://x"), "address: wanted a directory"),
        (("flush", "--timeout", "soon"), "--timeout: wanted a duration"),
        (("recorder", "--max-bytes", "many"), "--max-bytes: wanted a size"),
        (("recorder", "--listen", "tcp://0.0.0.0:0"), "0.0.0.0"),
        (("export", "s.frz", "-o", "x.doc"), "export: wanted --format, or a name that ends in"),
        (("run", "-m"), "run: wanted something behind -m"),
    ],
)
def test_bad_value_is_one_line_and_2(arguments: tuple[str, ...], message: str, directory: Path) -> None:
    code, out, err = frzmq(*arguments, FRZMQ_RUNTIME_DIR=str(directory / "r"))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [("info",), ("validate",), ("export", "-o", "-", "--format", "text"), ("report", "-o", "-"), ("view", "--no-open")],
)
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file or directory"), (b"", "wanted a snapshot file"), (b"PK\x03\x04", "wanted a snapshot file")],
)
def test_bad_file_is_one_line_and_2(
    command: tuple[str, ...], content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.frz"
    if content is not None:
        path.write_bytes(content)
    code, out, err = frzmq(command[0], str(path), *command[1:])
    assert (code, out) == (2, "")
    assert err.startswith(f"frzmq: {path}: ")
    assert message in err
    assert err.count("\n") == 1


# --- a recorder


def test_status_shows_processes_losses_and_the_horizon(recorder: RecorderProcess) -> None:
    tracer = RawTracer(recorder.address, service="web")
    tracer.record(5)
    tracer.flush_mark()
    code, out, err = frzmq("status", recorder.address)
    assert (code, err) == (0, "")
    assert f"recorder {recorder.process.pid}, version" in out
    assert f"web[{os.getpid()}]" in out
    for heading in ("state", "buffer", "horizon", "lost", "agent CPU"):
        assert heading in out
    code, out, _ = frzmq("status", "--json", FRZMQ_RECORDER=recorder.address)
    status = json.loads(out)
    assert (code, status["state"], status["max_bytes"]) == (0, "on", 64 << 20)
    assert [(t["service"], t["records"], t["uuid"]) for t in status["tracers"]] == [("web", 5, tracer.uuid.hex())]
    tracer.close()


def test_start_and_stop_say_what_is_so(recorder: RecorderProcess) -> None:
    assert frzmq("stop", recorder.address) == (0, "stopped\n", "")
    assert frzmq("stop", recorder.address) == (
        1, "", "frzmq: stop: wanted a recorder that is on, got one that is off\n",
    )  # fmt: skip
    assert frzmq("flush", recorder.address)[0] == 1
    assert frzmq("start", recorder.address) == (0, "recording\n", "")
    assert frzmq("start", recorder.address)[0] == 1


def test_flush_names_who_does_not_answer(recorder: RecorderProcess) -> None:
    tracer = RawTracer(recorder.address, service="deaf")
    tracer.deaf = True
    code, out, err = frzmq("flush", recorder.address, "--timeout", "100ms")
    assert (code, out) == (0, "flushed\n")
    assert err == f"frzmq: missing: deaf[{os.getpid()}] did not answer within 100ms\n"
    tracer.close()


def test_snapshot_is_private_whole_and_never_overwrites_unasked(recorder: RecorderProcess, tmp_path: Path) -> None:
    path = snapshot_of(recorder, tmp_path / "s.frz")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    opened = open_snapshot(path)
    assert (opened.header.reason, opened.ledger.held, validate(opened)) == ("because", 5, [])
    before = path.read_bytes()
    assert frzmq("snapshot", recorder.address, "-o", str(path)) == (2, "", f"frzmq: {path}: File exists\n")
    assert path.read_bytes() == before
    assert frzmq("snapshot", recorder.address, "-o", str(path), "-f")[0] == 0
    assert path.read_bytes() != before
    assert os.listdir(tmp_path) == ["s.frz"]


def test_snapshot_to_standard_output_is_the_file(recorder: RecorderProcess, tmp_path: Path) -> None:
    with (tmp_path / "s.frz").open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "frzmq", "snapshot", recorder.address, "-o", "-"],
            stdout=file,
            check=True,
            env=environment(),
            timeout=DEADLINE_S,
        )
    assert validate(open_snapshot(tmp_path / "s.frz")) == []


def test_snapshot_shows_progress_on_a_terminal_only(recorder: RecorderProcess, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "frzmq", "snapshot", recorder.address, "-o", str(tmp_path / "s.frz")],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(TERM="xterm"),
    )
    os.close(theirs)
    assert process.stdout is not None
    with process.stdout as out:
        assert out.read().startswith(str(tmp_path).encode())
    assert process.wait(DEADLINE_S) == 0
    assert b"snapshot" in os.read(ours, 65536)
    os.close(ours)


# --- a file


def test_info_says_what_is_in_it(recorder: RecorderProcess, tmp_path: Path) -> None:
    path = snapshot_of(recorder, tmp_path / "s.frz")
    code, out, err = frzmq("info", str(path))
    assert (code, err) == (0, "")
    assert "reason: because" in out
    assert "\n5 recorded = 5 held\n" in out
    facts = json.loads(frzmq("info", "--json", str(path))[1])
    (writer,) = facts["processes"][0]["writers"]
    assert (writer["writer"], writer["recorded"], writer["held"]) == (1, 5, 5)
    (certified,) = facts["certificate"]["streams"]
    assert (certified["answer"], certified["lost"]) == ("", {})
    assert facts["counts"]["events"] == 5
    assert facts["processes"][0]["ledger"]["held"] == 5


def test_validate_is_1_for_a_damaged_file_and_says_where(recorder: RecorderProcess, tmp_path: Path) -> None:
    path = snapshot_of(recorder, tmp_path / "s.frz")
    assert frzmq("validate", str(path)) == (0, f"{path}: 0 errors, 0 warnings\n", "")
    path.write_bytes(path.read_bytes()[:-40])
    code, out, err = frzmq("validate", str(path))
    assert (code, err) == (1, "")
    assert "error: file: the end of the file is missing: it was cut short" in out
    findings = json.loads(frzmq("validate", "--json", str(path))[1])
    assert [f["code"] for f in findings] == ["file"]


def test_export_goes_by_the_suffix_and_never_overwrites_unasked(recorder: RecorderProcess, tmp_path: Path) -> None:
    path = snapshot_of(recorder, tmp_path / "s.frz")
    for name in ("s.txt", "s.pftrace", "s.pftrace.gz"):
        out = tmp_path / name
        assert frzmq("export", str(path), "-o", str(out)) == (0, "", "")
        assert out.stat().st_size > 0
        assert frzmq("export", str(path), "-o", str(out)) == (2, "", f"frzmq: {out}: File exists\n")
        assert frzmq("export", str(path), "-o", str(out), "-f")[0] == 0
    assert (tmp_path / "s.pftrace.gz").read_bytes()[:2] == b"\x1f\x8b"
    code, text, _ = frzmq("export", str(path), "-o", "-", "--format", "text")
    assert (code, text) == (0, (tmp_path / "s.txt").read_text())
    assert text.count("  event") == 5


def test_report_is_a_page_and_never_overwrites_unasked(recorder: RecorderProcess, tmp_path: Path) -> None:
    path, out = snapshot_of(recorder, tmp_path / "s.frz"), tmp_path / "s.html"
    assert frzmq("report", str(path), "-o", str(out)) == (0, "", "")
    assert out.read_text().startswith("<!doctype html>")
    assert frzmq("report", str(path), "-o", str(out)) == (2, "", f"frzmq: {out}: File exists\n")
    assert frzmq("report", str(path), "-o", str(out), "-f")[0] == 0
    assert frzmq("report", str(path), "-o", "-") == (0, out.read_text(), "")


def test_view_serves_until_ctrl_c(recorder: RecorderProcess, tmp_path: Path) -> None:
    path = snapshot_of(recorder, tmp_path / "s.frz")
    (tmp_path / "index.html").touch()
    process = popen("view", str(path), "--ui", str(tmp_path), "--no-open")
    assert process.stdout is not None
    trace = process.stdout.readline().strip().partition("?url=")[2]
    with urllib.request.urlopen(trace, timeout=DEADLINE_S) as reply:
        assert reply.status == 200
        assert b"web[" in reply.read()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=DEADLINE_S) == ("", "frzmq: Ctrl-C ends it\n")
    assert process.returncode == 0


def test_output_that_nobody_reads_any_more_ends_quietly(recorder: RecorderProcess, tmp_path: Path) -> None:
    path = snapshot_of(recorder, tmp_path / "s.frz")
    process = popen("export", str(path), "-o", "-", "--format", "text")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as err:
        assert err.read() == ""
    assert process.wait(DEADLINE_S) in {0, 141}


# --- run

PROGRAM = """
import logging, os, signal, sys
logging.getLogger("app").addHandler(logging.NullHandler())
logging.getLogger("app").warning("here")
import frzmq
frzmq.flush()
print(__name__, sys.argv[1:], os.path.basename(sys.argv[0]), sys.path[0] == os.path.dirname(os.path.abspath(__file__)))
sys.stdout.flush()
exec(sys.argv[1] if len(sys.argv) > 1 else "")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise KeyError('x')", 1),
        ("os._exit(5)", 5),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_run_ends_as_its_program_and_leaves_a_snapshot(
    program: Path, directory: Path, tmp_path: Path, last: str, code: int
) -> None:
    path = tmp_path / "s.frz"
    got = frzmq("run", "-o", str(path), str(program), last, FRZMQ_RUNTIME_DIR=str(directory / "r"))
    assert got[0] == code
    assert got[1] == f"__main__ {[last]} program.py True\n"
    assert "frzmq" not in got[2].replace(str(program), "")
    opened = open_snapshot(path)
    assert [f for f in validate(opened) if f.level is Level.ERROR] == []
    assert [log.message for log in opened.logs] == ["here"]
    assert opened.processes[0].service == "program"
    assert [x.type for x in opened.exceptions] == (["KeyError"] if code == 1 else [])
    assert os.listdir(directory / "r") == []


def test_run_of_a_module_and_of_code_are_as_python_runs_them(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "mod.py").write_text("import sys; print(__name__, __spec__.name, sys.argv[1:])")
    runtime = str(directory / "r")
    assert frzmq("run", "-m", "mod", "-o", "x", cwd=tmp_path, FRZMQ_RUNTIME_DIR=runtime) == (
        0,
        "__main__ mod ['-o', 'x']\n",
        "",
    )
    code = "import sys; print(sys.argv)"
    assert frzmq("run", "--service", "s", "-c", code, "-m", FRZMQ_RUNTIME_DIR=runtime) == (0, "['-c', '-m']\n", "")


def test_run_joins_a_recorder_and_says_the_service(recorder: RecorderProcess, program: Path) -> None:
    code, _, err = frzmq("run", "--recorder", recorder.address, "--service", "shop", str(program))
    assert (code, err) == (0, "")
    status = json.loads(frzmq("status", "--json", recorder.address)[1])
    assert [t["service"] for t in status["tracers"]] == ["shop"]


def test_run_passes_a_signal_on_and_snapshots(program: Path, directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.frz"
    wait = "signal.pause()"
    process = popen("run", "-o", str(path), str(program), wait, FRZMQ_RUNTIME_DIR=str(directory / "r"))
    assert process.stdout is not None
    assert process.stdout.readline().startswith("__main__")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -signal.SIGTERM
    assert open_snapshot(path).header.reason == "frzmq run: died of SIGTERM"


def test_run_does_not_start_where_the_snapshot_would_overwrite(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.frz"
    path.write_bytes(b"mine")
    assert frzmq("run", "-o", str(path), str(program)) == (2, "", f"frzmq: {path}: File exists\n")
    assert path.read_bytes() == b"mine"


def test_run_records_pythons_that_never_import_frzmq(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.frz"
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'pass'], check=True)"
    assert frzmq("run", "-o", str(path), "-c", code, FRZMQ_RUNTIME_DIR=str(directory / "r")) == (0, "", "")
    opened = open_snapshot(path)
    assert [p.end_reason for p in opened.processes] == ["exit", "exit"]
    assert opened.processes[1].parent_pid == opened.processes[0].pid or (
        opened.processes[0].parent_pid == opened.processes[1].pid
    )


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_run_is_harmless_to_an_isolated_python(directory: Path, option: str) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, {option!r}, '-c', 'print(1)'], check=True)"
    assert frzmq("run", "-c", code, FRZMQ_RUNTIME_DIR=str(directory / "r")) == (0, "1\n", "")


def test_run_chains_to_the_programs_own_sitecustomize(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine', __name__)")
    code = "import sys; print(sys.modules['sitecustomize'].__file__)"
    python_path = os.pathsep.join((environment()["PYTHONPATH"], str(tmp_path)))
    process = subprocess.Popen(
        [sys.executable, "-m", "frzmq", "run", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment(FRZMQ_RUNTIME_DIR=str(directory / "r")), "PYTHONPATH": python_path},
    )
    out, _ = process.communicate(timeout=DEADLINE_S)
    # what this process itself prints comes when its buffer is emptied
    assert (process.returncode, sorted(out.splitlines())) == (
        0,
        [str(tmp_path / "sitecustomize.py"), "mine sitecustomize", "mine sitecustomize"],
    )


@pytest.mark.timeout(240)
def test_demo_catches_the_slow_request(directory: Path, tmp_path: Path) -> None:
    # a busy machine may make another request slow, or none of those that the audit holds up
    for attempt in range(4):
        out = tmp_path / f"demo{attempt}"
        code, said, err = frzmq("demo", "-o", str(out), "--seconds", "3", FRZMQ_RUNTIME_DIR=str(directory / "r"))
        audited = re.search(r"meanwhile, for \S+ of update stock: nightly audit: transaction in orders\[", said)
        if audited:
            break
    [path] = out.glob("frzmq-*-gateway-slow.frz")
    with open_snapshot(path) as opened:
        assert {p.service for p in opened.processes} == {"customers", "gateway", "orders", "inventory"}
        assert validate(opened) == []
        reason = opened.header.reason
    assert re.fullmatch(r"slow: GET /checkout/\{item\} took \S+ in gateway\[\d+\], trace [0-9a-f]{32}", reason)
    assert code == 0
    # the gateway's log, which has no handlers
    assert err == f"snapshot {path}: {reason}\n"
    assert "lost: nothing" in said
    for name in ("update stock", "GET /orders/<item>", "gateway: checkout of "):
        assert name in said
    assert audited
    assert {p.name for p in out.iterdir()} - {path.name} == {"demo.pftrace.gz", "demo.svg", "demo.txt", "demo.html"}
    assert frzmq("demo", "-o", str(out))[0] == 2
    shutil.rmtree(out)


def test_run_children_without_site_or_environment_run_unrecorded(directory: Path) -> None:
    file = directory / "a.frz"
    code = (
        "import subprocess, sys\n"
        "for flags in ([], ['-E'], ['-I'], ['-S']):\n"
        "    done = subprocess.run([sys.executable, *flags, '-c', 'print(1)'], capture_output=True, text=True)\n"
        "    print(done.returncode, done.stdout.strip(), repr(done.stderr))\n"
    )
    outcome = frzmq("run", "-o", str(file), "-c", code, FRZMQ_RUNTIME_DIR=str(directory / "r"))
    assert outcome == (0, "0 1 ''\n" * 4, "")
    with open_snapshot(file) as snapshot:
        assert len(snapshot.processes) == 2


def test_export_svg_is_a_picture_of_an_operation(directory: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "s.frz", tmp_path / "a.svg"
    code = "import frzmq\nwith frzmq.operation('work'):\n    pass"
    assert frzmq("run", "-o", str(path), "-c", code, FRZMQ_RUNTIME_DIR=str(directory / "r"))[0] == 0
    assert frzmq("export", str(path), "-o", str(out), "--operation", "work") == (0, "", "")
    assert out.read_text().startswith("<svg ")
    refused = "frzmq: export: wanted an operation of the snapshot, got 'none'\n"
    assert frzmq("export", str(path), "-o", str(out), "-f", "--operation", "none") == (2, "", refused)
    assert frzmq("export", str(path), "-o", str(tmp_path / "a.txt"), "--operation", "work")[0] == 2
