"""What the tests of the flight recorder share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import called

from frzmq.flight import FlightRecorder

EMPTY_ENVIRONMENT = ("FRZMQ_RECORDER", "FRZMQ_SERVICE", "FRZMQ_MIN_AGE", "FRZMQ_MAX_BYTES", "FRZMQ_DISABLE")


@pytest.fixture
def runtime_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short, as a socket's path must be, and empty at the end."""
    for name in EMPTY_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    directory = Path(tempfile.gettempdir(), f"r{os.urandom(3).hex()}")
    monkeypatch.setenv("FRZMQ_RUNTIME_DIR", str(directory))
    yield directory
    if directory.exists():
        left = [path for path in directory.iterdir() if path.name != "lock"]
        shutil.rmtree(directory)
        assert left == []


@pytest.fixture
def flight() -> Iterator[FlightRecorder]:
    """Of every call, and off: a test that starts it is not itself among the calls."""
    flight = called.recorder()
    yield flight
    if flight.enabled:
        flight.stop()
