"""A tracer is killed, suspended, forks or execs, under load and while a snapshot is made."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import support.quick_recorder
from support.loads import Load, numbers, process_of, truthful, until_state, written
from support.recorder_process import RecorderProcess, recorder_process

from frzmq.control.client import ControlClient

LARGE = ("--max-bytes", "1G", "--min-age", "1h", "--no-death-snapshots")
"""Of recorders: nothing is evicted."""
FLUSH_S = 5.0
"""A client's snapshot waits for silent tracers no longer, and 2 s for each buffer, which are read at once."""


@pytest.fixture
def recorder(directory: Path) -> Iterator[RecorderProcess]:
    with recorder_process(str(directory), *LARGE) as process:
        yield process


def check_suspended(tmp_path: Path, address: str) -> None:
    load = Load(tmp_path, address)
    try:
        with ControlClient(address) as client:
            until_state(client, load.pid, "live")
            load.until_more()
            load.send(signal.SIGSTOP)
            until_state(client, load.pid, "silent")
            during = written(address, tmp_path, within_s=FLUSH_S + 5)
            counts = load.counts()
            load.send(signal.SIGCONT)
            load.until_more()
        ends = load.finish()
        after = written(address, tmp_path)
    finally:
        load.close()
    opened = truthful(during)
    assert (process_of(opened, load.pid).state, opened.header.missing) == ("silent", ())
    for found, count in zip(numbers(opened, load.pid, load.threads), counts, strict=True):
        assert found in ([*range(count)], [*range(count - 1)])
    opened = truthful(after)
    assert numbers(opened, load.pid, load.threads) == [[*range(end)] for end in ends]
    ledger = process_of(opened, load.pid).ledger
    assert (ledger.lost, ledger.late, ledger.duplicate) == (0, 0, 0)
    assert [gap for gap in opened.gaps if gap.process == process_of(opened, load.pid).number] == []


def test_tracer_suspended_for_longer_than_silence_goes_on_without_a_loss(tmp_path: Path, directory: Path) -> None:
    program = (str(Path(support.quick_recorder.__file__)), "1.5", "60")
    with recorder_process(str(directory), *LARGE, program=program) as recorder:
        check_suspended(tmp_path, recorder.address)


@pytest.mark.long
def test_tracer_suspended_for_ten_seconds_and_more_goes_on_without_a_loss(
    tmp_path: Path, recorder: RecorderProcess
) -> None:
    check_suspended(tmp_path, recorder.address)
