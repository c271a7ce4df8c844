"""What is called while every call is recorded, and what a snapshot has of it."""

from __future__ import annotations

import re
import sys
from typing import Any

from frzmq.flight import FlightRecorder
from frzmq.reader.model import Call
from frzmq.reader.snapshot import Snapshot

MONITORED = sys.version_info >= (3, 12)


def recorder(**options: Any) -> FlightRecorder:
    """Of the calls of this module's functions, and of those of the tests of calls."""
    return FlightRecorder(**{"service": "calls", "calls": True, "calls_include": (__name__, "*test_calls*"), **options})


def shown(snapshot: Snapshot, track: str | None = None) -> list[tuple[int, str]]:
    """Depth and name of each call (on the track with this label), in the order of their begins."""
    found = [c for c in snapshot.calls if track is None or snapshot.tracks[c.track].label == track]
    return [(call.depth, short(call)) for call in found]


def short(call: Call) -> str:
    """Without its module, and the function around it."""
    return re.sub(rf".*<locals>\.|{re.escape(__name__)}\.|.*\btest_calls\w*\.", "", call.name, count=1)


def of(snapshot: Snapshot, name: str) -> list[Call]:
    return [call for call in snapshot.calls if short(call) == name]


def leaf() -> int:
    return 1


def total(depth: int) -> int:
    return leaf() + (total(depth - 1) if depth else 0)


def hot(times: int) -> None:
    for _ in range(times):
        leaf()
