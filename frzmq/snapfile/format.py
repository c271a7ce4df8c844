"""The snapshot file (``.frz``): what it holds, and how its bytes lie.

::

    prologue    magic, format version, size and crc32 of the header
    header      msgpack, a `SnapshotHeader`
    sections    of each stream, in the header's order: its string table (one section, absent when empty), then its generations, oldest first
    footer      a section whose body is the index of the others
    trailer     offset of the footer, end magic

A section is a head (magic, type, stream, size of info, size of body), the crc32 of head and info, the info (msgpack, of a generation a `GenerationInfo`),
the body (batches, header and body as the recorder received them) and the crc32 of the body. All integers are little-endian. So a file that is cut short or
damaged reads up to, and behind, the damage.

Times of records and generations are their tracer's monotonic clock; everything else is the recorder's. ns both.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeVar

from frzmq.errors import SnapshotError, WireError
from frzmq.wire.codec import pack, unpack
from frzmq.wire.fields import (
    data_field,
    fixed_bytes,
    flag,
    from_map,
    many,
    names,
    nested,
    nested_check,
    ranges,
    row_check,
    signed,
    text,
    to_map,
    unsigned,
)
from frzmq.wire.ledger import Ledger, WriterLedger
from frzmq.wire.messages import MAX_GAPS, MAX_WRITERS

MAGIC: Final = b"FRZMQSN\n"
END_MAGIC: Final = b"FRZMQEND"
SECTION_MAGIC: Final = b"FRZS"
FORMAT_VERSION: Final = 1
OLDEST_FORMAT_VERSION: Final = 1

PROLOGUE: Final = struct.Struct("<8sIII")
"""magic, format version, size of the header, crc32 of the header"""
SECTION: Final = struct.Struct("<4sIIIQ")
"""magic, type, stream, size of the info, size of the body; the crc32 of these and the info follows"""
CRC: Final = struct.Struct("<I")
INDEX_ENTRY: Final = struct.Struct("<QIIQ")
"""offset, type, stream, generation (0: strings); the footer's body is a run of these"""
TRAILER: Final = struct.Struct("<Q8s")
"""offset of the footer, end magic"""

MAX_HEADER_BYTES: Final = 16 << 20
MAX_INFO_BYTES: Final = 2 << 20
MAX_STREAMS: Final = 65_536

T = TypeVar("T")


class SectionType(IntEnum):
    STRINGS = 1
    GENERATION = 2
    FOOTER = 3


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """One tracer, as the recorder knew it when the snapshot was made."""

    uuid: bytes = fixed_bytes(16)
    incarnation: int = unsigned(32, 0)
    service: str = text(256, "")
    pid: int = unsigned(32, 0)
    parent_pid: int = unsigned(32, 0)
    host: str = text(256, "")
    machine: str = text(64, "")
    """Names the running kernel; where it is the recorder's, the clocks are one."""
    program: str = text(256, "")
    python: str = text(64, "")
    buffer_kind: str = text(64, "")
    buffer_bytes: int = unsigned(64, 0)
    state: str = text(32, "live")
    """live, stopped, gone, dead or silent."""
    error: str = text(1024, "")
    """Why it was stopped."""
    ledger: Ledger = nested(Ledger, Ledger())  # noqa: RUF009  # frozen
    offset_ns: int = signed(0)
    """Recorder's clock minus tracer's."""
    rtt_ns: int = unsigned(64, 0)
    """Round trip of the sample that gave the offset; 0: none was taken, and the offset is what its hello said."""
    joined_ns: int = unsigned(64, 0)
    horizon_ns: int = unsigned(64, 0)
    """From when on the stream is complete; 0: nothing held."""
    answer: str = text(32, "")
    """What it did about the flush before: flushed, read (it was silent, and its buffer was read), missing, or "": it was not asked."""
    stored_through: int = unsigned(64, 0)
    """The last tseq that came of it."""
    gaps: tuple[tuple[int, int], ...] = ranges(MAX_GAPS)
    """Those before it that did not, as ranges [from, to)."""
    writers: tuple[WriterLedger, ...] = many(row_check(WriterLedger), MAX_WRITERS)
    """The ledger by writer. Without any, and other_writers 0: an older file, which does not say."""
    other_writers: int = unsigned(64, 0)
    """So many more, of which there is no row; the ledger has their records."""


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    recorder_version: str = text(64)
    created_wall_ns: int = unsigned()
    created_monotonic_ns: int = unsigned()
    """The same instant on the recorder's clock: what turns any time into a wall time."""
    reason: str = text(1024, "")
    min_age_ns: int = unsigned(64, 0)
    max_bytes: int = unsigned(64, 0)
    host: str = text(256, "")
    """Of the recorder."""
    machine: str = text(64, "")
    """The recorder's."""
    horizon_ns: int = unsigned(64, 0)
    """From when on every held stream is complete; 0: nothing held."""
    missing: tuple[str, ...] = names(MAX_STREAMS)
    """Tracers (``service[pid]``) whose last moments are not in it."""
    streams: tuple[StreamHeader, ...] = many(nested_check(StreamHeader), MAX_STREAMS)


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """About one sealed generation."""

    generation: int = unsigned()
    complete: bool = flag(True)
    """All that the tracer sent of it is here."""
    seal: str = text(32, "end mark")
    """end mark, later generation, goodbye, death, silence, stop, replaced or overflow."""
    first_ns: int = unsigned(64, 0)
    last_ns: int = unsigned(64, 0)
    records: int = unsigned(64, 0)
    batches: int = unsigned(64, 0)
    """Of records."""
    lost: int = unsigned(64, 0)
    """Records known to be missing or overwritten in it."""
    end_mark: bytes = data_field(1 << 20, b"")
    """The body of its END batch."""


@dataclass(frozen=True, slots=True)
class Generation:
    info: GenerationInfo
    frames: tuple[bytes, ...] = field(default=(), repr=False)
    """Its OPEN and RECORDS batches in the order of tseq: whole batches, one or several back to back in each block."""


@dataclass(frozen=True, slots=True)
class StreamBody:
    """What is held of the stream of the same place in `SnapshotHeader.streams`."""

    strings: tuple[bytes, ...] = field(default=(), repr=False)
    """STRINGS batches, header and body as received."""
    generations: tuple[Generation, ...] = ()
    """Oldest first."""


def encode_header(header: SnapshotHeader) -> bytes:
    return pack(to_map(header))


def decode_header(data: bytes) -> SnapshotHeader:
    """Raises SnapshotError."""
    return _decode(SnapshotHeader, data, "snapshot header", MAX_HEADER_BYTES)


def encode_info(info: GenerationInfo) -> bytes:
    return pack(to_map(info))


def decode_info(data: bytes) -> GenerationInfo:
    """Raises SnapshotError."""
    return _decode(GenerationInfo, data, "generation", MAX_INFO_BYTES)


def _decode(cls: type[T], data: bytes, what: str, most: int) -> T:
    try:
        return from_map(cls, unpack(data, what, most), what)
    except (WireError, ValueError) as error:
        raise SnapshotError(str(error)) from None
