"""Snapshots to bytes, and to a file that is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO

from frzmq.snapfile.format import SnapshotHeader, StreamBody


def write_snapshot(file: IO[bytes], header: SnapshotHeader, streams: Iterable[StreamBody]) -> int:
    """Writes a snapshot at the file's place and returns its size in bytes; ``streams`` are those of the header, in its order.

    Raises what the file raises, and ValueError when there are not as many streams as the header says.
    """
    raise NotImplementedError


def save(
    path: str | os.PathLike[str],
    header: SnapshotHeader,
    streams: Iterable[StreamBody],
    *,
    overwrite: bool = False,
    durable: bool = True,
) -> int:
    """Writes a snapshot file (mode 0600) under a temporary name, then renames it; returns its size in bytes.

    ``durable``: it is on the disk, not only in the page cache, before it has its name. Raises FileExistsError unless ``overwrite``, OSError.
    """
    raise NotImplementedError
