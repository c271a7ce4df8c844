"""The suppressed log lines of one trace, found by a process of its own: to read records takes time that the recorder's loop and the programs do not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from frzmq.errors import FrzmqError
from frzmq.recorder.events import FindLines, LinesFound, RingView, WriteSnapshot
from frzmq.wire.messages import MAX_LINES, LogLine

MODULE: Final = "frzmq.analysis.lines"
TIMEOUT_S: Final = 20.0

Write = Callable[[Callable[[bytes], object], WriteSnapshot], object]


class LineFinder:
    """One question at a time. ``wake`` is called when its answer is there."""

    def __init__(self, write: Write, wake: Callable[[], None]) -> None:
        self._write, self._wake = write, wake
        self._found: deque[LinesFound] = deque()

    def begin(self, wanted: FindLines) -> None:
        try:
            threading.Thread(target=self._run, args=(wanted,), name="frzmq-lines", daemon=True).start()
        except RuntimeError as error:
            self._found.append(LinesFound(error=f"lines: no thread: {error}"))

    def finished(self) -> list[LinesFound]:
        found = [*self._found]
        self._found.clear()
        return found

    def _run(self, wanted: FindLines) -> None:
        try:
            self._found.append(self._find(wanted.trace, wanted.view))
        except (OSError, ValueError, FrzmqError, subprocess.SubprocessError) as error:
            self._found.append(LinesFound(error=f"lines: {type(error).__name__}: {error}"))
        self._wake()

    def _find(self, trace: str, view: RingView) -> LinesFound:
        # without a name: a recorder that ends meanwhile leaves no file
        with tempfile.TemporaryFile(prefix="frzmq") as file:
            self._write(file.write, WriteSnapshot(0, (), view, "", ()))
            file.flush()
            done = subprocess.run(
                [sys.executable, "-P", "-m", MODULE, f"/dev/fd/{file.fileno()}", trace],
                pass_fds=(file.fileno(),),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=True,
                env={**os.environ, "FRZMQ_DISABLE": "1"},
            )
        rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
        lines = tuple(
            LogLine(int(wall_ns), str(process)[:512], int(level), str(logger)[:256], str(message)[:1024])
            for wall_ns, process, level, logger, message in rows
        )
        return LinesFound(lines[-MAX_LINES:], max(0, len(lines) - MAX_LINES))
