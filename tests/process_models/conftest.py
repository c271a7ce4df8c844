from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.held import Held
from support.recorder_process import recorder_process


@pytest.fixture
def directory() -> Iterator[Path]:
    """The programs' own: short, as a socket's path must be."""
    with tempfile.TemporaryDirectory(prefix="fz") as path:
        yield Path(path)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    with tempfile.TemporaryDirectory(prefix="fz") as path, recorder_process(path):
        yield Held(Path(path), tmp_path)
