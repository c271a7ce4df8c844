"""The directory in which a recorder leaves the snapshots that triggers ask for, and what it forgets of them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from datetime import UTC, datetime
from typing import IO, Final

from frzmq.config import StoreConfig
from frzmq.snapfile.writer import atomic_file

PIN_SUFFIX: Final = ".pin"
"""A file of this name beside a snapshot: it is never removed."""
_NAME: Final = re.compile(r"frzmq-[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-.*\.frz")
_PLAIN: Final = re.compile(r"[^A-Za-z0-9.]+")
_MAX_PART_CHARS: Final = 60


class SnapshotStore:
    """Files ``frzmq-UTC-SERVICE-REASON.frz`` of mode 0600. Only such files are ever removed."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    def keep(self, file: IO[bytes], service: str, reason: str) -> str:
        """Copies the whole of ``file``, then removes what is too much; returns the path. Raises OSError, and leaves no part of a file."""
        directory = self._config.directory
        os.makedirs(directory, mode=0o700, exist_ok=True)
        at = datetime.fromtimestamp(time.time(), UTC)
        stamp = f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03d}Z"
        path = os.path.join(directory, f"frzmq-{stamp}-{_plain(service)}-{_plain(reason)}.frz")
        file.seek(0)
        with atomic_file(path) as out:
            shutil.copyfileobj(file, out, 1 << 20)
        self.sweep(path)
        return path

    def sweep(self, made: str = "") -> None:
        """Removes, oldest first, what is beyond the number, the age or the bytes that are to be kept: never the newest, never a pinned one. ``made``: that is the
        newest, whatever a clock that was set back meanwhile says."""
        config = self._config
        newest_first = sorted(self._snapshots(), key=lambda found: (found[1] == made, found), reverse=True)
        too_old = time.time() - config.keep_age_s
        count = size_bytes = 0
        for n, (modified, path, mine_bytes) in enumerate(newest_first):
            if os.path.lexists(path + PIN_SUFFIX):
                continue
            count += 1
            size_bytes += mine_bytes
            if n and (count > config.keep_count or size_bytes > config.keep_bytes or modified < too_old):
                with contextlib.suppress(OSError):
                    os.unlink(path)
                size_bytes -= mine_bytes

    def _snapshots(self) -> list[tuple[float, str, int]]:
        found = []
        with os.scandir(self._config.directory) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, entry.path, status.st_size))
        return found


def _plain(text: str) -> str:
    return _PLAIN.sub("-", text).strip("-.")[:_MAX_PART_CHARS] or "x"
