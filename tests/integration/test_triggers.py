"""Triggers in real processes: from the condition to the file, and the line in the log."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from support.flights import taken
from support.programs import Program
from support.recorder_process import recorder_process
from support.until import until

import frzmq
from frzmq.control.client import ControlClient
from frzmq.errors import ConfigError, SnapshotActiveError
from frzmq.reader.model import Log
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.wire.messages import Status

pytestmark = pytest.mark.usefixtures("runtime_directory")

DEADLINE_S = 15.0


def stored(directory: Path, count: int = 1) -> list[Snapshot]:
    """The snapshots in it, once there are so many."""
    deadline = time.monotonic() + DEADLINE_S
    while len(found := sorted(directory.glob("*.frz"))) < count:
        assert time.monotonic() < deadline, [*directory.iterdir()] if directory.exists() else "no directory"
        time.sleep(0.01)
    assert len(found) == count
    return [open_snapshot(path) for path in found]


def status(address: str | None) -> Status:
    assert address
    with ControlClient(address) as client:
        return client.status()


CHILD = """
    import sys, frzmq
    frzmq.event("ready")
    print("ready", flush=True)
    for line in sys.stdin:
        with frzmq.operation("work"):
            frzmq.event("inside")
            if line == "fail\\n":
                break
    else:
        sys.exit()
    try:
        with frzmq.operation("bad"):
            1 / 0
    except ZeroDivisionError:
        print("failed", flush=True)
    sys.stdin.readline()
"""


def test_failure_in_one_process_leaves_a_snapshot_of_all_and_one_line_in_its_log(tmp_path: Path) -> None:
    with frzmq.start(service="shop", triggers="error team=a", snapshots=str(tmp_path / "s"), logging=False) as flight:
        frzmq.event("parent")
        variables = {name: value for name, value in os.environ.items() if name.startswith("FRZMQ_")}
        log = "import logging; logging.basicConfig(format='%(levelname)s %(name)s %(message)s')\n"
        child = Program(tmp_path / "child.py", log + "\n".join(line[4:] for line in CHILD.splitlines()), **variables)
        assert child.line() == "ready"
        child.tell("go")
        child.tell("fail")
        assert child.line() == "failed"
        [opened] = stored(tmp_path / "s")
        pid = child.process.pid
        trace = next(o.trace for o in opened.operations if o.name == "bad")
        reason = f"error: bad failed: ZeroDivisionError in shop[{pid}], trace {trace}, team=a"
        assert opened.header.reason == reason
        assert sorted(e.name for e in opened.events) == ["inside", "inside", "parent", "ready"]
        assert re.fullmatch(r"frzmq-\d{8}T\d{6}\.\d{3}Z-shop-error\.frz", Path(opened.path).name)
        assert Path(opened.path).stat().st_mode & 0o777 == 0o600
        # the file is there before the recorder has heard of it
        until(lambda: status(flight.address).stored == 1)
        now = status(flight.address)
        assert (now.reports, now.suppressed, now.stored, now.stored_last) == (1, 0, 1, str(opened.path))
        child.tell("end")
        _, said = child.process.communicate(timeout=DEADLINE_S)
        assert said == f"WARNING frzmq snapshot {opened.path}: {reason}\n"


def test_storm_of_several_processes_is_one_snapshot_with_all_reasons(tmp_path: Path) -> None:
    triggers = "error after=60s"
    with frzmq.start(service="shop", triggers=triggers, snapshots=str(tmp_path / "s")) as flight:
        variables = {name: value for name, value in os.environ.items() if name.startswith("FRZMQ_")}
        children = [Program(tmp_path / f"child{n}.py", CHILD, **variables) for n in range(3)]
        assert [child.line() for child in children] == ["ready"] * 3
        for child in children:
            child.tell("fail")
        assert [child.line() for child in children] == ["failed"] * 3
        until(lambda: status(flight.address).reports == 3)
        with ControlClient(str(flight.address)) as client:
            client.stop()  # who stops recording waits for no window
        [opened] = stored(tmp_path / "s")
        for child in children:
            assert f"bad failed: ZeroDivisionError in shop[{child.process.pid}]" in opened.header.reason
            child.tell("end")
            child.process.communicate(timeout=DEADLINE_S)
        until(lambda: status(flight.address).stored == 1)
        assert status(flight.address).reports == 3


def test_signal_to_a_process_that_has_recorded_nothing_leaves_a_snapshot(tmp_path: Path) -> None:
    with frzmq.start(service="shop", triggers="signal SIGUSR2", snapshots=str(tmp_path / "s")):
        variables = {name: value for name, value in os.environ.items() if name.startswith("FRZMQ_")}
        child = Program(
            tmp_path / "child.py",
            "import frzmq, sys; print('on', flush=True); sys.stdin.readline(); frzmq.event('late')",
            **variables,
        )
        assert child.line() == "on"
        child.process.send_signal(signal.SIGUSR2)
        [opened] = stored(tmp_path / "s")
        assert opened.header.reason == f"signal: SIGUSR2 received in shop[{child.process.pid}]"
        child.tell("end")
        child.process.communicate(timeout=DEADLINE_S)
        assert child.process.returncode == 0


def test_window_after_the_condition_is_recorded_too(tmp_path: Path) -> None:
    with frzmq.start(service="shop", triggers="error after=2s", snapshots=str(tmp_path / "s")):
        with pytest.raises(KeyError), frzmq.operation("bad"):
            raise KeyError
        frzmq.event("afterwards")
        [opened] = stored(tmp_path / "s")
        assert [event.name for event in opened.events] == ["afterwards"]


def test_triggers_of_the_recorders_file_reach_every_process(tmp_path: Path, runtime_directory: Path) -> None:
    file = tmp_path / "frzmq.toml"
    file.write_text(
        f"""
        [snapshots]
        directory = "{tmp_path / "s"}"
        keep-count = 1

        [[trigger]]
        on = "error"
        operation = "bad thing"
        cooldown = "0s"
        """
    )
    address = f"ipc://{runtime_directory}"
    with recorder_process(address, "--config", str(file)), frzmq.start(service="shop", recorder=address):
        frzmq.flush()
        for name in ("bad", "bad thing"):
            with pytest.raises(KeyError), frzmq.operation(name):
                raise KeyError
        [opened] = stored(tmp_path / "s")
        assert opened.header.reason.startswith("error: bad thing failed: KeyError in shop[")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[trigger]]\non = "slow soon"', "trigger 1: slow: wanted a duration such as 30s"),
        ('[[trigger]]\non = "error"\n[[trigger]]\n', 'trigger 2: wanted on = "CONDITION"'),
        ("[trigger]\n", "wanted [[trigger]], got [trigger]"),
        ('[snapshots]\nkeep = 3', "snapshots: wanted directory, keep-count, keep-age, keep-bytes, got 'keep'"),
        ('[snapshots]\nkeep-count = "3"', "snapshots: keep-count: wanted int, got '3'"),
        ("what", "Expected '=' after a key"),
    ],
)  # fmt: skip
def test_recorder_with_a_wrong_file_says_where_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    from frzmq.recorder.file import read_file

    file = tmp_path / "frzmq.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_file(str(file))
    assert str(caught.value).startswith(f"{file}: {said}")


def test_start_with_a_wrong_trigger_is_an_error_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^TracerConfig\.triggers: trigger 2: wanted slow DURATION"):
        frzmq.start(triggers=["error", "oops"])
    monkeypatch.setenv("FRZMQ_TRIGGERS", "oops")
    with pytest.raises(ConfigError, match=r"^FRZMQ_TRIGGERS: wanted slow DURATION"):
        frzmq.start()


def test_directory_that_cannot_be_written_is_said_once_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with frzmq.start(service="shop", triggers="error", snapshots=str(tmp_path / "file")) as flight:
        with pytest.raises(KeyError), frzmq.operation("bad"):
            raise KeyError
        deadline = time.monotonic() + DEADLINE_S
        while not (errors := status(flight.address).errors):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(errors) == 1
        assert errors[0].startswith(f"snapshot of a trigger: {tmp_path / 'file'}")
        logs: tuple[Log, ...] = ()
        while not logs:
            assert time.monotonic() < deadline
            opened = taken(flight, tmp_path)
            logs = opened.logs
        [log] = logs
        assert (log.level, log.logger) == (30, "frzmq")
        assert log.message.startswith(f"no snapshot: {tmp_path / 'file'}")
        assert opened.ledger.lost == 0


def test_trigger_while_a_client_takes_its_snapshot_waits_for_it(tmp_path: Path) -> None:
    with frzmq.start(service="shop", triggers="error", snapshots=str(tmp_path / "s")) as flight:
        with pytest.raises(KeyError), frzmq.operation("bad"):
            raise KeyError
        for _ in range(3):
            try:
                taken(flight, tmp_path)
            except SnapshotActiveError:
                continue
        assert len(stored(tmp_path / "s")) == 1


@pytest.mark.parametrize("after", ["", " after=60s"])
def test_exception_that_ends_the_program_leaves_a_snapshot_at_once(tmp_path: Path, after: str) -> None:
    """Its recorder ends with it, and does not wait for the rest of the window."""
    program = Program(
        tmp_path / "program.py",
        f"""
        import frzmq
        frzmq.start(service="shop", triggers="error{after}", snapshots="s")
        frzmq.event("before")
        raise KeyError("lost")
        """,
        FRZMQ_RUNTIME_DIR=os.environ["FRZMQ_RUNTIME_DIR"],
    )
    pid = program.process.pid
    program.process.communicate(timeout=DEADLINE_S)
    assert program.process.returncode == 1
    [opened] = stored(tmp_path / "s")
    assert opened.header.reason == f"error: uncaught KeyError (main) in shop[{pid}]"
    assert [(e.name) for e in opened.events] == ["before"]
    assert [x.type for x in opened.exceptions] == ["KeyError"]
