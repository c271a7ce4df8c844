"""A buffer's memory: the shared file, or what there is where it cannot be had."""

from __future__ import annotations

import errno
import mmap
import os

from frzmq.clock import Clocks
from frzmq.wire.chunk import MIN_BUFFER_BYTES, FileHeader, Layout, encode_file_header, layout_for


def make_memory(
    uuid: bytes, incarnation: int, directory: str | None, size_bytes: int
) -> tuple[str | None, mmap.mmap, Layout]:
    """The file's path, its mapping with the file header, and its layout; ``directory``: where it goes. See `_allocate`."""
    path, memory = _allocate(uuid, directory, size_bytes)
    layout = layout_for(len(memory))
    now = Clocks.now()
    header = FileHeader(os.getpid(), uuid, incarnation, layout, now.monotonic_ns, now.boottime_ns, now.wall_ns)
    encoded = encode_file_header(header)
    memory[: len(encoded)] = encoded
    return path, memory, layout


def _allocate(uuid: bytes, directory: str | None, size_bytes: int) -> tuple[str | None, mmap.mmap]:
    """The file's path and its mapping, of ``size_bytes`` or, where that cannot be allocated, of half, down to the least; else private memory."""
    size_bytes = max(MIN_BUFFER_BYTES, size_bytes // 4096 * 4096)
    if directory is not None:
        path = os.path.join(directory, f"{uuid.hex()}.buf")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return None, mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE)
        try:
            shared = _map_file(fd, size_bytes)
        finally:
            os.close(fd)
        if shared is not None:
            return path, shared
        os.unlink(path)
    return None, mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE)


def _map_file(fd: int, size_bytes: int) -> mmap.mmap | None:
    while size_bytes >= MIN_BUFFER_BYTES:
        try:
            _fill(fd, size_bytes)
            return mmap.mmap(fd, size_bytes)
        except OSError:
            # what was allocated of it must go before less is asked for
            os.ftruncate(fd, 0)
            size_bytes = size_bytes // 2 // 4096 * 4096
    return None


def _fill(fd: int, size_bytes: int) -> None:
    """Every page of the file is there: on a full tmpfs the first store to one that is not would be a SIGBUS. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size_bytes)
        return
    zeros = bytes(MIN_BUFFER_BYTES)  # macOS has no such call
    for offset in range(0, size_bytes, len(zeros)):
        if os.pwrite(fd, zeros[: size_bytes - offset], offset) < min(len(zeros), size_bytes - offset):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
