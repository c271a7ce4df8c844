"""Many tracers, at once and one after the other: each is there, and what they took of the recorder comes back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.loads import Aside, truthful, written
from support.programs import Program
from support.raw_tracer import RawTracer
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.reader.snapshot import Snapshot

RECORDS = 100
SLACK_BYTES = 8 << 20
"""What the allocator may keep, of some hundred tracers or of a thousand."""
SHORT = """
    import frzmq, sys

    for n in range(100):
        frzmq.event("n", n=n)
    assert frzmq.flush(30)
    if len(sys.argv) > 1:
        print("ready", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def recorder(directory: Path) -> Iterator[RecorderProcess]:
    with recorder_process(str(directory), "--min-age", "1s", "--no-death-snapshots") as process:
        yield process


def check_all(opened: Snapshot, raw: list[RawTracer], real: list[Program]) -> None:
    """Every record of every tracer, once."""
    held = {process.uuid: process for process in opened.processes}
    for tracer in raw:
        ledger = held[tracer.uuid.hex()].ledger
        assert (ledger.held, ledger.lost, ledger.duplicate) == (RECORDS, 0, 0)
    pids = {process.number: process.pid for process in opened.processes}
    found: dict[int, list[object]] = {program.process.pid: [] for program in real}
    for event in opened.events:
        if event.name == "n":
            found[pids[event.process]].append(event.attributes["n"])
    assert all(numbers == [*range(RECORDS)] for numbers in found.values())
    assert opened.ledger.lost == 0
    assert opened.header.missing == ()


def check_at_once(tmp_path: Path, directory: Path, raw_count: int, real_count: int) -> None:
    raw: list[RawTracer] = []
    real: list[Program] = []
    variables = {"FRZMQ_RECORDER": str(directory), "FRZMQ_BUFFER_BYTES": "256K"}
    with recorder_process(str(directory), "--no-death-snapshots") as recorder:
        try:
            while len(real) < real_count:
                real.append(Program(tmp_path / f"p{len(real)}.py", SHORT, "stay", **variables))
            while len(raw) < raw_count:
                raw.append(RawTracer(recorder.address))
            for program in real:
                assert program.line() == "ready"
            for tracer in raw:
                tracer.record(RECORDS)
                tracer.flush_mark()
            with ControlClient(recorder.address) as client:
                assert [t.state for t in client.status().tracers] == ["live"] * (raw_count + real_count)
            asked = Aside(lambda: written(recorder.address, tmp_path, within_s=10, flush_s=8))
            while not asked.done:
                for tracer in raw:
                    tracer.pump(0)
            opened = truthful(asked.result())
            for program in real:
                program.tell("")
            for program in real:
                program.end()
        finally:
            for program in real:
                program.process.kill()
                program.process.communicate()
            for tracer in raw:
                tracer.close(0)
    check_all(opened, raw, real)


def test_sixty_four_tracers_at_once_are_all_in_a_snapshot(tmp_path: Path, directory: Path) -> None:
    check_at_once(tmp_path, directory, 56, 8)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_sixty_four_processes_at_once_are_all_in_a_snapshot(tmp_path: Path, directory: Path) -> None:
    check_at_once(tmp_path, directory, 0, 64)


def come_and_go(recorder: RecorderProcess, raw: int) -> None:
    for _ in range(raw):
        tracer = RawTracer(recorder.address)
        tracer.record(RECORDS)
        tracer.flush_mark()
        tracer.goodbye()
        tracer.close()


def run_and_end(recorder: RecorderProcess, tmp_path: Path, real: int) -> None:
    """Four at a time, of which every other is killed."""

    def run(n: int) -> None:
        program = Program(
            tmp_path / f"p{n % 4}.py", SHORT, "stay", FRZMQ_RECORDER=recorder.address, FRZMQ_BUFFER_BYTES="256K"
        )
        assert program.line() == "ready"
        if n % 2:
            program.process.kill()
            program.process.communicate()
        else:
            program.tell("")
            program.end()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(real)))


def until_forgotten(recorder: RecorderProcess) -> None:
    with ControlClient(recorder.address) as client:
        until(lambda: client.status().tracers == (), "tracers are remembered")
        assert client.status().held_bytes == 0


def left(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def check_one_after_the_other(
    recorder: RecorderProcess, directory: Path, tmp_path: Path, first: tuple[int, int], then: tuple[int, int]
) -> None:
    """``first``, ``then``: tracers by hand, and processes."""
    for number, (raw, real) in enumerate((first, then)):
        come_and_go(recorder, raw)
        run_and_end(recorder, tmp_path, real)
        opened = truthful(written(recorder.address, tmp_path, within_s=10))
        assert opened.ledger.lost == 0
        until_forgotten(recorder)
        assert left(directory) == {"data", "link", "control", "lock"}
        if number == 0:
            before_bytes, before_fds = recorder.rss_bytes(), descriptors(recorder)
    assert recorder.rss_bytes() - before_bytes < SLACK_BYTES
    assert descriptors(recorder) <= before_fds + 2


def descriptors(recorder: RecorderProcess) -> int:
    return len(list(Path(f"/proc/{recorder.process.pid}/fd").iterdir()))


def test_three_hundred_tracers_one_after_the_other_leave_nothing_in_the_recorder_or_the_directory(
    recorder: RecorderProcess, directory: Path, tmp_path: Path
) -> None:
    check_one_after_the_other(recorder, directory, tmp_path, (90, 2), (200, 8))


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_thousand_tracers_one_after_the_other_leave_nothing_in_the_recorder_or_the_directory(
    recorder: RecorderProcess, directory: Path, tmp_path: Path
) -> None:
    check_one_after_the_other(recorder, directory, tmp_path, (90, 10), (870, 30))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_processes_one_after_the_other_leave_nothing_in_the_recorder_or_the_directory(
    recorder: RecorderProcess, directory: Path, tmp_path: Path
) -> None:
    check_one_after_the_other(recorder, directory, tmp_path, (0, 100), (0, 900))
