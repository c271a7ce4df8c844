"""What the tests of faults share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory: in memory where there is such a place, short, as a socket's path must be, and removed at the end."""
    parent = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
    path = parent / f"fz{os.getpid()}-{os.urandom(3).hex()}"
    path.mkdir(mode=0o700)
    for name in ("FRZMQ_RECORDER", "FRZMQ_SERVICE", "FRZMQ_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FRZMQ_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path)
