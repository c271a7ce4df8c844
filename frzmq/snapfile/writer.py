"""Snapshots to bytes, and to a file that is there whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO
from zlib import crc32

from frzmq.snapfile.format import (
    CRC,
    END_MAGIC,
    FORMAT_VERSION,
    INDEX_ENTRY,
    MAGIC,
    PROLOGUE,
    SECTION,
    SECTION_MAGIC,
    TRAILER,
    SectionType,
    SnapshotHeader,
    StreamBody,
    encode_header,
    encode_info,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def write_snapshot(write: Callable[[bytes], object], header: SnapshotHeader, streams: Iterable[StreamBody]) -> int:
    """Gives a snapshot to ``write`` piece by piece and returns its size in bytes; ``streams`` are those of the header, in its order.

    Raises what ``write`` raises, and ValueError when there are not as many streams as the header says.
    """
    out = _Output(write)
    packed = encode_header(header)
    out.put(PROLOGUE.pack(MAGIC, FORMAT_VERSION, len(packed), crc32(packed)))
    out.put(packed)
    for number, (_, body) in enumerate(zip(header.streams, streams, strict=True)):
        if body.strings:
            out.section(SectionType.STRINGS, number, 0, b"", body.strings)
        for generation in body.generations:
            info = encode_info(generation.info)
            out.section(SectionType.GENERATION, number, generation.info.generation, info, generation.frames)
    footer = out.size_bytes
    out.section(SectionType.FOOTER, 0, 0, b"", (b"".join(out.index),))
    out.put(TRAILER.pack(footer, END_MAGIC))
    return out.size_bytes


class _Output:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.size_bytes = 0
        self.index: list[bytes] = []

    def put(self, data: bytes) -> None:
        self._write(data)
        self.size_bytes += len(data)

    def section(self, type_: SectionType, stream: int, generation: int, info: bytes, blocks: tuple[bytes, ...]) -> None:
        if type_ is not SectionType.FOOTER:
            self.index.append(INDEX_ENTRY.pack(self.size_bytes, type_, stream, generation))
        head = SECTION.pack(SECTION_MAGIC, type_, stream, len(info), sum(map(len, blocks)))
        self.put(head + CRC.pack(crc32(info, crc32(head))) + info)
        checksum = 0
        for block in blocks:
            checksum = crc32(block, checksum)
            self.put(block)
        self.put(CRC.pack(checksum))


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, overwrite: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
    """A binary file of mode 0600 under a temporary name beside ``path``; it gets its name when the block ends well, else it is gone.

    ``durable``: it is on the disk, not only in the page cache, before it has its name. Raises FileExistsError unless ``overwrite``, OSError, each with
    the file's own name.
    """
    target = os.fspath(path)
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(17, "File exists", target)
    temporary = f"{target}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None
    raw = _File(fd, target)
    try:
        with io.BufferedWriter(raw) as file:
            yield file
            file.flush()
            if durable:
                with named(target):
                    os.fsync(raw.fileno())
        if overwrite:
            os.replace(temporary, target)
        else:
            # unlike a rename it fails when somebody made the file in the meantime
            os.link(temporary, target)
        if durable:
            _sync_directory(os.path.dirname(target) or ".")
    finally:
        # it has its name, or the directory has become read-only: what went wrong before is to be heard
        with suppress(OSError):
            os.unlink(temporary)


class _File(io.FileIO):
    """An error of a write has the file's name."""

    def __init__(self, fd: int, target: str) -> None:
        super().__init__(fd, "wb")
        self._target = target

    def write(self, data: ReadableBuffer, /) -> int:
        with named(self._target):
            return super().write(data)


@contextmanager
def named(target: str) -> Iterator[None]:
    """An OSError of the block that names no file gets this name."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, target) from None


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
