"""A recorder beside the programs of a test, and what it holds of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from frzmq.control.client import ControlClient
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate

PATIENT = "import frzmq.tracer.runtime; frzmq.tracer.runtime.END_S = 20.0"
"""In programs: on a busy machine a recorder may not answer for longer than they wait at their end."""


class Held:
    """What the recorder that serves in ``directory`` holds; ``variables`` make a program record into it."""

    def __init__(self, directory: Path, tmp_path: Path) -> None:
        self.variables = {"FRZMQ_RECORDER": str(directory), "FRZMQ_RUNTIME_DIR": str(directory)}
        self._tmp_path = tmp_path
        self._taken = 0

    def taken(self) -> Snapshot:
        """Contradicts itself nowhere."""
        self._taken += 1
        path = self._tmp_path / f"{self._taken}.frz"
        with path.open("xb") as file, ControlClient(self.variables["FRZMQ_RECORDER"]) as client:
            client.snapshot(file)
        opened = open_snapshot(path)
        errors = [str(finding) for finding in validate(opened) if finding.level is Level.ERROR]
        assert not errors, errors
        return opened

    def whole(self) -> Snapshot:
        """After graceful ends: nothing is lost, and every process has said goodbye."""
        opened = self.taken()
        findings = [str(finding) for finding in validate(opened)]
        states = {process.name: process.state for process in opened.processes}
        assert not findings, (findings, states)
        assert opened.ledger.lost == 0, opened.ledger
        assert set(states.values()) == {"gone"}, states
        return opened


def counted(opened: Snapshot, name: str) -> Counter[int]:
    """The events of this name by the pid that each says, which is that of its process."""
    found = [event for event in opened.events if event.name == name]
    pids = [event.attributes["pid"] for event in found]
    assert pids == [opened.processes[event.process].pid for event in found]
    return Counter(pid for pid in pids if isinstance(pid, int))


def died(opened: Snapshot) -> set[int]:
    """Processes without a goodbye: their streams are incomplete, and say so."""
    dead = {process.number for process in opened.processes if process.state == "dead"}
    assert {gap.process for gap in opened.gaps if gap.cause == "incomplete"} == dead
    return {opened.processes[number].pid for number in dead}
