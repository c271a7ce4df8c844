"""The lines of a trace are found by a process of their own, and nothing stays of it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from frzmq.config import RecorderConfig
from frzmq.recorder.events import FindLines, LinesFound, WriteSnapshot
from frzmq.recorder.lines import LineFinder
from frzmq.recorder.machine import RecorderMachine
from frzmq.recorder.snapshots import write_view


def test_lines_are_found_in_a_file_that_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    there: list[list[str]] = []

    def write(out: Callable[[bytes], object], instruction: WriteSnapshot) -> None:
        partial(write_view, machine="")(out, instruction)
        there.append(os.listdir(tmp_path))

    found = threading.Event()
    finder = LineFinder(write, found.set)
    view = RecorderMachine(RecorderConfig(), b"boot" * 4, lambda: 1, 0).telling.view(0, 0)
    finder.begin(FindLines("ab" * 16, view))
    assert found.wait(30)
    assert finder.finished() == [LinesFound()]
    assert there == [[]]
