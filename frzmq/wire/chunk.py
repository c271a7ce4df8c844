"""The layout of a tracer's shared memory: one file, of which the tracer is the only writer.

::

    0        file header (4096 bytes)
    4096     string table: msgpack str back to back, append-only; string n (from 1) is the n-th
    ...      open table: entries of 64 bytes, one for each operation and span that is open now
    ...      small chunks of 4 KiB (a thread's first), then large chunks of 64 KiB (its later ones)

All integers are little-endian and aligned to their size. What a reader may trust at any moment, also after the writer was killed, is published
by one aligned store of 64 bits, a *word*: ``count << 32 | end``, where ``end`` is a byte offset from the start of the area, and ``count`` the
records (or strings) before it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from frzmq.errors import WireError

MAGIC: Final = b"FRZMQSM1"
LAYOUT_VERSION: Final = 1
HEADER_BYTES: Final = 4096
OPEN_ENTRY_BYTES: Final = 64
MAX_OPEN_ENTRIES: Final = 4096
SMALL_CHUNK_BYTES: Final = 4 << 10
LARGE_CHUNK_BYTES: Final = 64 << 10
CHUNK_HEADER_BYTES: Final = 128
MIN_BUFFER_BYTES: Final = 256 << 10
MAX_BUFFER_BYTES: Final = 1 << 30

# file header: magic, layout version, pid, file size, uuid, incarnation, open entries, strings size, small chunks, large chunks,
# monotonic, boottime, wall at creation
_FILE_HEADER: Final = struct.Struct("<8sIIQ16sIIQIIQQQ")

# words of the file header, as indices of 8-byte words
GENERATION_WORD: Final = 64
"""The generation that every append compares (byte 512)."""
STRINGS_WORD: Final = 65
"""Published strings: count << 32 | end (byte 520)."""
OPEN_OMITTED_WORD: Final = 66
"""How many operations and spans are open beyond the table (byte 528)."""


class ChunkState(IntEnum):
    FREE = 0
    OWNED = 1
    """A thread appends to it."""
    SEALED = 2
    """Nothing more is appended; waits to be acknowledged."""


# words of a chunk header, as indices of 8-byte words from the chunk's start
STATE_WORD: Final = 0
"""state << 32 | writer"""
SERIAL_WORD: Final = 1
"""Counts the uses of chunks, all together: of two chunks of one writer the greater is the younger."""
BASE_WORD: Final = 2
"""The time to which the first record's delta is added, ns."""
FIRST_INDEX_WORD: Final = 3
"""The writer's index of the first record."""
PUBLISHED_WORD: Final = 4
"""count << 32 | end, end from the chunk's start (CHUNK_HEADER_BYTES when empty)."""
LAST_WORDS: Final = 5
"""Two words: the time of the count-th record is in word LAST_WORDS + (count & 1), stored before the word is published."""
CUT_GENERATION_WORD: Final = 7
"""The generation that the writer noticed last; stored after the two words behind it."""
CUT_WORD: Final = 8
"""Where that generation begins: count << 32 | end."""
CUT_BASE_WORD: Final = 9
"""The time of the last record before it, ns."""

# open entry
OPEN_ENTRY: Final = struct.Struct("<IIQQIIQQ16s")
"""kind (0: never used), writer, begin_ns, end_ns (0 while open), name id (0: not in the table), track, op, parent, trace"""
OPEN_END_WORD: Final = 2
"""Index of end_ns in the entry, in words."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is in a file of ``size_bytes``; offsets in bytes."""

    size_bytes: int
    strings_bytes: int
    open_entries: int
    small_chunks: int
    large_chunks: int

    @property
    def strings_offset(self) -> int:
        return HEADER_BYTES

    @property
    def open_offset(self) -> int:
        return self.strings_offset + self.strings_bytes

    @property
    def chunks_offset(self) -> int:
        return self.open_offset + self.open_entries * OPEN_ENTRY_BYTES

    @property
    def chunk_count(self) -> int:
        return self.small_chunks + self.large_chunks

    def chunk_offset(self, index: int) -> int:
        if index < self.small_chunks:
            return self.chunks_offset + index * SMALL_CHUNK_BYTES
        return (
            self.chunks_offset + self.small_chunks * SMALL_CHUNK_BYTES + (index - self.small_chunks) * LARGE_CHUNK_BYTES
        )

    def chunk_bytes(self, index: int) -> int:
        return SMALL_CHUNK_BYTES if index < self.small_chunks else LARGE_CHUNK_BYTES


def layout_for(size_bytes: int) -> Layout:
    """The layout of a buffer of ``size_bytes``: an eighth strings, at most a sixteenth open table, an eighth of the rest small chunks."""
    if not MIN_BUFFER_BYTES <= size_bytes <= MAX_BUFFER_BYTES or size_bytes % 4096:
        raise ValueError(
            f"buffer: wanted a multiple of 4096 in {MIN_BUFFER_BYTES}..{MAX_BUFFER_BYTES} bytes, got {size_bytes}"
        )
    strings_bytes = size_bytes // 8 // 4096 * 4096
    open_entries = min(MAX_OPEN_ENTRIES, size_bytes // 16 // OPEN_ENTRY_BYTES)
    pool_bytes = size_bytes - HEADER_BYTES - strings_bytes - open_entries * OPEN_ENTRY_BYTES
    large_chunks = (pool_bytes - pool_bytes // 8) // LARGE_CHUNK_BYTES
    small_chunks = (pool_bytes - large_chunks * LARGE_CHUNK_BYTES) // SMALL_CHUNK_BYTES
    return Layout(size_bytes, strings_bytes, open_entries, small_chunks, large_chunks)


@dataclass(frozen=True, slots=True)
class FileHeader:
    pid: int
    uuid: bytes
    incarnation: int
    layout: Layout
    monotonic_ns: int
    boottime_ns: int
    wall_ns: int


def encode_file_header(header: FileHeader) -> bytes:
    layout = header.layout
    return _FILE_HEADER.pack(
        MAGIC, LAYOUT_VERSION, header.pid, layout.size_bytes, header.uuid, header.incarnation, layout.open_entries, layout.strings_bytes,
        layout.small_chunks, layout.large_chunks, header.monotonic_ns, header.boottime_ns, header.wall_ns,
    )  # fmt: skip


def decode_file_header(data: bytes, file_bytes: int) -> FileHeader:
    """The header of a file of ``file_bytes``, nothing in it trusted. Raises WireError."""
    if len(data) < _FILE_HEADER.size:
        raise WireError(f"buffer file: wanted a header of {_FILE_HEADER.size} bytes, got {len(data)}")
    (
        magic, version, pid, size, uuid, incarnation, open_entries, strings_bytes, small, large, mono, boot, wall,
    ) = _FILE_HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC or version != LAYOUT_VERSION:
        raise WireError(f"buffer file: wanted {MAGIC!r} version {LAYOUT_VERSION}, got {magic!r} version {version}")
    layout = Layout(size, strings_bytes, open_entries, small, large)
    if (
        size != file_bytes
        or not MIN_BUFFER_BYTES <= size <= MAX_BUFFER_BYTES
        or layout.chunk_offset(layout.chunk_count) > size
    ):
        raise WireError(f"buffer file: wanted areas inside the file's {file_bytes} bytes, got {layout}")
    return FileHeader(pid, uuid, incarnation, layout, mono, boot, wall)


def pack_word(count: int, end: int) -> int:
    return count << 32 | end


def unpack_word(word: int) -> tuple[int, int]:
    """``(count, end)``."""
    return word >> 32, word & 0xFFFF_FFFF
