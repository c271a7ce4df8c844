"""The snapshot file (``.frz``): what it holds, and how its bytes lie.

::

    prologue    magic, format version, size and crc32 of the header
    header      msgpack, a `SnapshotHeader`
    sections    of each stream, in the header's order: its string table (one section, absent when empty), then its generations, oldest first
    footer      a section whose body is the index of the others
    trailer     offset of the footer, end magic

A section is a head (magic, type, stream, size of info, size of body, crc32 of head and info), its info (msgpack, of a generation a `GenerationInfo`), its
body (batches, header and body as the recorder received them) and the crc32 of the body. All integers are little-endian. So a file that is cut short or
damaged reads up to, and behind, the damage.

Times of records and generations are their tracer's monotonic clock; everything else is the recorder's. ns both.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

MAGIC: Final = b"FRZMQSN\n"
END_MAGIC: Final = b"FRZMQEND"
SECTION_MAGIC: Final = b"FRZS"
FORMAT_VERSION: Final = 1
OLDEST_FORMAT_VERSION: Final = 1

PROLOGUE: Final = struct.Struct("<8sIII")
"""magic, format version, size of the header, crc32 of the header"""
SECTION: Final = struct.Struct("<4sIIIQ")
"""magic, type, stream, size of the info, size of the body; then the crc32 of these and the info"""
CRC: Final = struct.Struct("<I")
INDEX_ENTRY: Final = struct.Struct("<QIIQ")
"""offset, type, stream, generation; the footer's body is a run of these"""
TRAILER: Final = struct.Struct("<Q8s")
"""offset of the footer, end magic"""

MAX_HEADER_BYTES: Final = 16 << 20
MAX_INFO_BYTES: Final = 2 << 20


class SectionType(IntEnum):
    STRINGS = 1
    GENERATION = 2
    FOOTER = 3


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counts of records of one stream: ``recorded == open + held + evicted + late + overwritten + missing``.

    Outside of it: ``dropped`` never got an index, ``duplicate`` and ``rejected`` arrived and were not taken, ``torn`` could not be recovered whole.
    """

    recorded: int = 0
    open: int = 0
    held: int = 0
    evicted: int = 0
    overwritten: int = 0
    missing: int = 0
    late: int = 0
    dropped: int = 0
    duplicate: int = 0
    rejected: int = 0
    torn: int = 0


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """One tracer, as the recorder knew it when the snapshot was made."""

    uuid: bytes
    incarnation: int = 0
    service: str = ""
    pid: int = 0
    parent_pid: int = 0
    host: str = ""
    machine: str = ""
    """Names the running kernel; where it is the recorder's, the clocks are one."""
    program: str = ""
    python: str = ""
    buffer_kind: str = ""
    buffer_bytes: int = 0
    state: str = "live"
    """live, stopped, gone, dead or silent."""
    error: str = ""
    """Why it was stopped."""
    ledger: Ledger = Ledger()
    offset_ns: int = 0
    """Recorder's clock minus tracer's."""
    rtt_ns: int = 0
    """Round trip of the sample that gave the offset; 0: none was taken."""
    joined_ns: int = 0
    horizon_ns: int = 0
    """From when on the stream is complete; 0: nothing held."""


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    recorder_version: str
    created_wall_ns: int
    created_monotonic_ns: int
    """The same instant on the recorder's clock: what turns any time into a wall time."""
    reason: str = ""
    min_age_ns: int = 0
    max_bytes: int = 0
    host: str = ""
    """Of the recorder."""
    machine: str = ""
    """The recorder's."""
    horizon_ns: int = 0
    """From when on every held stream is complete; 0: nothing held."""
    missing: tuple[str, ...] = ()
    """Tracers (``service[pid]``) whose last moments are not in it."""
    streams: tuple[StreamHeader, ...] = ()
    version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """About one sealed generation."""

    generation: int
    complete: bool = True
    """All that the tracer sent of it is here."""
    seal: str = "end mark"
    """end mark, later generation, goodbye, death, silence, stop, replaced or overflow."""
    first_ns: int = 0
    last_ns: int = 0
    records: int = 0
    batches: int = 0
    """Of records."""
    lost: int = 0
    """Records known to be missing or overwritten in it."""
    end_mark: bytes = field(default=b"", repr=False)
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
