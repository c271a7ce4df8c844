"""Every call: of a program that records itself, read back from its snapshot."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import frzmq
from frzmq.export.text import write_text
from frzmq.flight import FlightRecorder
from frzmq.reader.model import Call
from frzmq.reader.snapshot import Snapshot
from frzmq.tracer.choice import native
from support.flights import taken

pytestmark = pytest.mark.skipif(native is None, reason="only the native buffer records calls")

HERE = (__name__,)


def leaf() -> int:
    return 1


def total(depth: int) -> int:
    return leaf() + (total(depth - 1) if depth else 0)


def shown(snapshot: Snapshot) -> list[tuple[int, str]]:
    """Depth and name of each call, in the order of their begins."""
    return [(call.depth, call.name.removeprefix(f"{__name__}.")) for call in snapshot.calls]


@pytest.fixture
def flight(tmp_path: Path) -> Iterator[FlightRecorder]:
    recorder = FlightRecorder(service="calls", calls=True, calls_include=HERE, runtime_dir=str(tmp_path / "run"))
    yield recorder
    if recorder.enabled:
        recorder.stop()


def test_calls_nest_as_they_were_made(flight: FlightRecorder, tmp_path: Path) -> None:
    with flight:
        total(1)
        snapshot = taken(flight, tmp_path)
    assert shown(snapshot) == [(0, "total"), (1, "leaf"), (1, "total"), (2, "leaf")]
    outer = snapshot.calls[0]
    assert (outer.code.file, outer.code.line) == (__file__, total.__code__.co_firstlineno)
    assert all(call.begin_held and call.end_held and not call.error for call in snapshot.calls)
    for call in snapshot.calls[1:]:
        assert outer.begin_ns is not None and outer.end_ns is not None
        assert call.begin_ns is not None and call.end_ns is not None
        assert outer.begin_ns <= call.begin_ns <= call.end_ns <= outer.end_ns
