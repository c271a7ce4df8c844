"""The recorder is killed, stopped, not there: what the tracers' buffers hold is not lost, and what they cannot hold is counted."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import support.watched_recorder
from support.loads import Load, is_run, numbers, process_of, truthful, until_state, written
from support.recorder_process import RecorderProcess

from frzmq.control.client import ControlClient
from frzmq.reader.snapshot import Snapshot

LARGE = ("--max-bytes", "1G", "--min-age", "1h", "--no-death-snapshots")
"""Of recorders: nothing is evicted."""


class Lives:
    """Recorders in one directory, one after the other, each of which leaves a note of what it acknowledged."""

    def __init__(self, directory: Path, tmp_path: Path) -> None:
        self.address = str(directory)
        self._tmp_path = tmp_path
        self._number = 0
        self.recorder = self._begin()

    def _begin(self) -> RecorderProcess:
        self._number += 1
        program = (str(Path(support.watched_recorder.__file__)), str(self._tmp_path / f"acks{self._number}"))
        return RecorderProcess(self.address, *LARGE, program=program)

    def kill(self) -> None:
        self.recorder.process.kill()
        self.recorder.wait()

    def begin_again(self) -> None:
        self.recorder = self._begin()

    def acknowledged(self, pid: int) -> dict[int, int]:
        """By writer: the index behind the last record that the last recorder acknowledged."""
        last: dict[int, int] = {}
        lines = (self._tmp_path / f"acks{self._number}").read_bytes().split(b"\n")
        # the last is empty, or torn
        for line in lines[:-1]:
            of, stored = json.loads(line)
            if of == pid:
                last.update({int(writer): end for writer, end in stored.items()})
        return last


def until_joined(address: str, loads: list[Load]) -> None:
    with ControlClient(address) as client:
        for one in loads:
            until_state(client, one.pid, "live")


def check_life(opened: Snapshot, loads: list[Load], acknowledged: dict[int, dict[int, int]]) -> None:
    """It holds everything from what the recorder before had acknowledged on."""
    for one in loads:
        process = process_of(opened, one.pid)
        assert process.state == "live"
        assert all(map(is_run, numbers(opened, one.pid, one.threads)))
        found: dict[int, list[int]] = {}
        for record in opened:
            if record.process == process.number:
                found.setdefault(record.writer, []).append(record.writer_index)
        assert all(map(is_run, found.values()))
        before = acknowledged[one.pid]
        late = {writer: (f[0], before.get(writer, 0)) for writer, f in found.items() if f[0] > before.get(writer, 0)}
        assert not late, late
        # of the generation that was open then, the first part is with the recorder that is gone: that is said
        ledger = process.ledger
        assert (ledger.lost - ledger.missing, ledger.duplicate) == (0, 0)
        assert ledger.missing <= sum(f[0] for f in found.values())


def check_kills(tmp_path: Path, directory: Path, kills: int, programs: int, threads: int, burst: int) -> None:
    """Every record is stored by the recorder that acknowledged it, or by the next one; each once, with its name."""
    lives = Lives(directory, tmp_path)
    loads: list[Load] = []
    snapshots: list[Path] = []
    try:
        while len(loads) < programs:
            loads.append(Load(tmp_path, lives.address, threads=threads, burst=burst, FRZMQ_BUFFER_BYTES="16M"))
        acknowledged: list[dict[int, dict[int, int]]] = [{one.pid: {} for one in loads}]
        for _ in range(kills):
            until_joined(lives.address, loads)
            for one in loads:
                one.until_more(200)
            snapshots.append(written(lives.address, tmp_path))
            time.sleep(random.random() * 0.2)
            lives.kill()
            acknowledged.append({one.pid: lives.acknowledged(one.pid) for one in loads})
            assert all(acknowledged[-1].values())
            lives.begin_again()
        until_joined(lives.address, loads)
        ends = {one.pid: one.finish() for one in loads}
        snapshots.append(written(lives.address, tmp_path))
    finally:
        for one in loads:
            one.close()
        lives.kill()
    for path, before in zip(snapshots, acknowledged, strict=True):
        opened = truthful(path)
        check_life(opened, loads, before)
    for one in loads:
        assert [found[-1] + 1 for found in numbers(opened, one.pid, one.threads)] == ends[one.pid]


def test_recorder_killed_twice_under_load_loses_nothing_and_has_nothing_twice(tmp_path: Path, directory: Path) -> None:
    check_kills(tmp_path, directory, kills=2, programs=2, threads=2, burst=50)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_recorder_killed_thirty_times_under_heavy_load_loses_nothing_and_has_nothing_twice(
    tmp_path: Path, directory: Path
) -> None:
    check_kills(tmp_path, directory, kills=30, programs=4, threads=4, burst=50)
