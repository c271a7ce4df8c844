"""Reads the buffer files of tracers that are dead, which are then removed, or that do not answer, aside from the recorder's loop.

With ``pread``, never by a mapping: a file that is cut short kills whoever maps it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from frzmq.errors import WireError
from frzmq.recorder.events import ReadTail, TailRead
from frzmq.recorder.ranges import Ranges
from frzmq.recorder.tail import Tail, read_tail
from frzmq.wire.chunk import MAX_BUFFER_BYTES


class TailReader:
    """Of the files in ``directory``. ``wake`` is called when one is read."""

    def __init__(self, directory: str | None, wake: Callable[[], None]) -> None:
        self._directory, self._wake = directory, wake
        self._read: deque[TailRead] = deque()

    def begin(self, wanted: ReadTail) -> None:
        try:
            threading.Thread(target=self._run, args=(wanted,), name="frzmq-recovery", daemon=True).start()
        except RuntimeError as error:
            self._read.append(TailRead(wanted.uuid, None, f"no thread: {error}"))

    def finished(self) -> list[TailRead]:
        found = [*self._read]
        for _ in found:
            self._read.popleft()
        return found

    def _run(self, wanted: ReadTail) -> None:
        try:
            self._read.append(TailRead(wanted.uuid, self._tail(wanted)))
        except (OSError, WireError) as error:
            self._read.append(TailRead(wanted.uuid, None, str(error)))
        self._wake()

    def _tail(self, wanted: ReadTail) -> Tail:
        if self._directory is None:
            raise WireError("buffer file: this recorder has no directory")
        path = Path(self._directory, f"{wanted.uuid.hex()}.buf")
        tail = read_buffer(path, wanted.uuid, wanted.stored)
        if wanted.alive:
            return tail
        # it is read once: whoever asks again has it already
        for name in (path, path.with_suffix(".lock")):
            with contextlib.suppress(OSError):
                name.unlink()
        return tail


def read_buffer(path: Path, uuid: bytes, stored: Mapping[int, Ranges], *, released: bool = False) -> Tail:
    """As `frzmq.recorder.tail.read_tail`. Raises OSError, WireError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > MAX_BUFFER_BYTES:
            raise WireError("buffer file: wanted a file of this user, and of at most 1 GiB")
        return read_tail(
            lambda offset, size: os.pread(fd, size, offset), status.st_size, uuid, stored, released=released
        )
    finally:
        os.close(fd)
