"""Snapshots of a flight recorder, taken and looked into."""

from __future__ import annotations

import time
from pathlib import Path

from frzmq.flight import FlightRecorder
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import validate


def taken(flight: FlightRecorder, tmp_path: Path) -> Snapshot:
    path = tmp_path / f"{time.monotonic_ns()}.frz"
    with path.open("xb") as file:
        assert flight.write_to(file) == file.tell()
    opened = open_snapshot(path)
    findings = validate(opened)
    assert findings == [], findings
    return opened


def names(opened: Snapshot) -> list[str]:
    return [event.name for event in opened.events]
