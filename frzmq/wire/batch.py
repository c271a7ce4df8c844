"""A batch: a fixed header of 96 bytes and a body. One frame on the data socket holds one batch or several, back to back.

The recorder reads headers only; the body of a RECORDS, OPEN or STRINGS batch passes through it untouched.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from frzmq.errors import WireError
from frzmq.wire.codec import Value, pack, shown, unpack
from frzmq.wire.kinds import KINDS, KindSpec, kinds_from_wire, kinds_to_wire
from frzmq.wire.version import OLDEST_WIRE_VERSION, WIRE_VERSION

MAGIC: Final = b"fz"
# magic, version, type, body size, uuid, incarnation, writer, nonce, generation, tseq, base, last, first index, dropped, count, reserved
_HEADER: Final = struct.Struct("<2sBBI16sIIQQQQQQQII")
HEADER_SIZE: Final = _HEADER.size
MAX_BODY_BYTES: Final = 1 << 20
MAX_FRAME_BYTES: Final = 2 << 20
COALESCE_BYTES: Final = 256 << 10
"""A tracer joins batches into frames of up to about this size: a Python agent sends 300-400 frames a second whatever their size."""


class BatchType(IntEnum):
    RECORDS = 1
    """``count`` records of ``writer``, the first of them its ``first_index``-th; body: the records."""
    OPEN = 2
    """Opens ``generation``; body: an `Opening`."""
    END = 3
    """The end mark of ``generation``; ``count``: its RECORDS batches; body: an `EndMark`."""
    STRINGS = 4
    """``count`` strings of the stream's table, the first of them with id ``first_index`` (ids begin at 1); body: a run of msgpack str."""
    FLUSH = 5
    """Asks for an acknowledgement at once; no body."""
    GOODBYE = 6
    """Nothing more comes from this tracer; no body."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the recorder reads of a batch. Times are the tracer's CLOCK_MONOTONIC in ns."""

    type: BatchType
    uuid: bytes
    incarnation: int
    nonce: int
    generation: int
    tseq: int
    writer: int = 0
    base_ns: int = 0
    """The time to which the first record's delta is added."""
    last_ns: int = 0
    """The time of the last record; for the other types, when the batch was made."""
    first_index: int = 0
    count: int = 0
    dropped: int = 0
    """Records that this tracer dropped so far, all writers together."""
    body_size: int = 0
    version: int = WIRE_VERSION


@dataclass(frozen=True, slots=True)
class Batch:
    header: Header
    body: bytes = b""

    def where(self) -> str:
        """For messages: which batch this is."""
        return where(self.header)


def where(header: Header) -> str:
    """``tracer 0a1b2c3d generation 4 tseq 17``, for messages."""
    return f"tracer {header.uuid.hex()[:8]} generation {header.generation} tseq {header.tseq}"


def encode_batch(header: Header, body: bytes | memoryview = b"") -> bytes:
    """The bytes of one batch; the header's ``body_size`` is taken from ``body``."""
    packed = _HEADER.pack(
        MAGIC,
        header.version,
        header.type,
        len(body),
        header.uuid,
        header.incarnation,
        header.writer,
        header.nonce,
        header.generation,
        header.tseq,
        header.base_ns,
        header.last_ns,
        header.first_index,
        header.dropped,
        header.count,
        0,
    )
    return packed + body if body else packed


_TYPES: Final = {int(t): t for t in BatchType}
# fewest bytes of a record: kind and delta
_MIN_RECORD_BYTES: Final = 2


def decode_header(frame: bytes | memoryview, offset: int = 0) -> Header:
    """The header at ``offset``, with every bound checked against the frame. Raises WireError."""
    if len(frame) - offset < HEADER_SIZE:
        raise WireError(f"batch header: wanted {HEADER_SIZE} bytes at {offset}, got {len(frame) - offset}")
    (
        magic, version, type_, body_size, uuid, incarnation, writer, nonce,
        generation, tseq, base_ns, last_ns, first_index, dropped, count, _reserved,
    ) = _HEADER.unpack_from(frame, offset)  # fmt: skip
    if magic != MAGIC:
        raise WireError(f"batch header: wanted magic {MAGIC!r} at {offset}, got {magic!r}")
    if not OLDEST_WIRE_VERSION <= version <= WIRE_VERSION:
        raise WireError(f"batch header: wanted wire version {OLDEST_WIRE_VERSION}..{WIRE_VERSION}, got {version}")
    kind = _TYPES.get(type_)
    if kind is None:
        raise WireError(f"batch header: wanted a type in 1..{len(_TYPES)}, got {type_}")
    header = Header(
        kind,
        uuid,
        incarnation,
        nonce,
        generation,
        tseq,
        writer,
        base_ns,
        last_ns,
        first_index,
        count,
        dropped,
        body_size,
        version,
    )
    if body_size > MAX_BODY_BYTES or body_size > len(frame) - offset - HEADER_SIZE:
        raise WireError(
            f"{where(header)}: body: wanted at most {min(MAX_BODY_BYTES, len(frame) - offset - HEADER_SIZE)} bytes, header says {body_size}"
        )
    if last_ns < base_ns:
        raise WireError(f"{where(header)}: times: wanted last >= base, got {last_ns} < {base_ns}")
    if kind is BatchType.RECORDS and count * _MIN_RECORD_BYTES > body_size:
        raise WireError(
            f"{where(header)}: {count} records: wanted at least {count * _MIN_RECORD_BYTES} bytes of body, got {body_size}"
        )
    if kind is BatchType.STRINGS and (count > body_size or first_index == 0):
        raise WireError(
            f"{where(header)}: strings: wanted ids from 1 and a byte each, got {count} from {first_index} in {body_size} bytes"
        )
    return header


def split_headers(frame: bytes) -> list[Header]:
    """The headers of the batches of one frame, in order, each batch as long as its header says.

    Raises WireError when any is malformed: a frame is taken whole or not at all.
    """
    if not frame or len(frame) > MAX_FRAME_BYTES:
        raise WireError(f"frame: wanted 1..{MAX_FRAME_BYTES} bytes, got {len(frame)}")
    headers: list[Header] = []
    offset = 0
    while offset < len(frame):
        header = decode_header(frame, offset)
        headers.append(header)
        offset += HEADER_SIZE + header.body_size
    return headers


def split_frame(frame: bytes) -> list[Batch]:
    """The batches of one frame, in order, as `split_headers`."""
    batches: list[Batch] = []
    offset = 0
    for header in split_headers(frame):
        body_start = offset + HEADER_SIZE
        offset = body_start + header.body_size
        batches.append(Batch(header, frame[body_start:offset]))
    return batches


@dataclass(frozen=True, slots=True)
class OpenItem:
    """An operation or span that was open when its generation began."""

    kind: int
    """Kind.SPAN_BEGIN or Kind.OPERATION_BEGIN."""
    writer: int
    track: int
    begin_ns: int
    name: int | str | None
    """A string id, or inline."""
    op: int
    """Its own id for an operation; the enclosing operation (or 0) for a span."""
    parent: int
    trace: bytes


@dataclass(frozen=True, slots=True)
class WriterInfo:
    writer: int
    name: str
    native_id: int


@dataclass(frozen=True, slots=True)
class Opening:
    """The body of an OPEN batch: what makes a generation readable by itself."""

    monotonic_ns: int
    boottime_ns: int
    wall_ns: int
    kinds: dict[int, KindSpec]
    writers: tuple[WriterInfo, ...] = ()
    open: tuple[OpenItem, ...] = ()
    open_omitted: int = 0
    """Open operations and spans beyond the open table's size."""


@dataclass(frozen=True, slots=True)
class WriterEnd:
    """One writer's part of a generation, by record index: ``[first_index, next_index)``."""

    writer: int
    first_index: int
    next_index: int
    dropped: int = 0
    """Records of this writer that were dropped so far."""
    overwritten: tuple[tuple[int, int], ...] = ()
    """Ranges ``[from, to)`` of record indices that were overwritten before they were sent."""


@dataclass(frozen=True, slots=True)
class EndMark:
    """The body of an END batch."""

    writers: tuple[WriterEnd, ...] = ()


def encode_opening(opening: Opening) -> bytes:
    value: dict[str | int, Value] = {
        "clock": [opening.monotonic_ns, opening.boottime_ns, opening.wall_ns],
        "kinds": kinds_to_wire(opening.kinds),  # type: ignore[dict-item]  # list is invariant
        "writers": [[w.writer, w.name, w.native_id] for w in opening.writers],
        "open": [[o.kind, o.writer, o.track, o.begin_ns, o.name, o.op, o.parent, o.trace] for o in opening.open],
        "open_omitted": opening.open_omitted,
    }
    return pack(value)


def decode_opening(body: bytes) -> Opening:
    """Raises WireError."""
    match unpack(body, "opening batch", MAX_BODY_BYTES):
        case {"clock": [int(mono), int(boot), int(wall)], "kinds": kinds, **rest} if min(mono, boot) >= 0:
            pass
        case other:
            raise WireError(f"opening batch: wanted a map with clock and kinds, got {type(other).__name__}")
    writers = rest.get("writers", [])
    opened = rest.get("open", [])
    omitted = rest.get("open_omitted", 0)
    if (
        not isinstance(writers, list)
        or not isinstance(opened, list)
        or not isinstance(omitted, int)
        or not _unsigned(omitted)
    ):
        raise WireError("opening batch: wanted lists of writers and open items and a count of those omitted")
    return Opening(
        mono,
        boot,
        wall,
        kinds_from_wire(kinds),
        tuple(map(_writer_info, writers)),
        tuple(map(_open_item, opened)),
        omitted,
    )


def _unsigned(*values: object) -> bool:
    return all(type(v) is int and 0 <= v < 2**64 for v in values)


def _writer_info(row: object) -> WriterInfo:
    match row:
        case [int(writer), str(name), int(native_id)] if _unsigned(writer, native_id):
            return WriterInfo(writer, name, native_id)
        case _:
            raise WireError(f"opening batch: wanted writers [id, name, native id], got {shown(row)}")


def _open_item(row: object) -> OpenItem:
    match row:
        case [
            int(kind),
            int(writer),
            int(track),
            int(begin_ns),
            (int() | str() | None) as name,
            int(op),
            int(parent),
            bytes(trace),
        ] if kind in KINDS and _unsigned(writer, track, begin_ns, op, parent) and len(trace) in (0, 16):
            return OpenItem(kind, writer, track, begin_ns, name, op, parent, trace)
        case _:
            raise WireError(f"opening batch: wanted open items of 8 values, got {shown(row)}")


def encode_end_mark(mark: EndMark) -> bytes:
    return pack(
        [[w.writer, w.first_index, w.next_index, w.dropped, [list(r) for r in w.overwritten]] for w in mark.writers]
    )


def decode_end_mark(body: bytes) -> EndMark:
    """Raises WireError. An empty body is a mark without writers."""
    if not body:
        return EndMark()
    rows = unpack(body, "end mark", MAX_BODY_BYTES)
    if not isinstance(rows, list):
        raise WireError(f"end mark: wanted a list of writers, got {type(rows).__name__}")
    return EndMark(tuple(map(_writer_end, rows)))


def _writer_end(row: object) -> WriterEnd:
    match row:
        case [int(writer), int(first), int(next_), int(dropped), list(ranges)] if (
            _unsigned(writer, first, next_, dropped) and first <= next_
        ):
            return WriterEnd(writer, first, next_, dropped, tuple(_ranges(ranges, first, next_)))
        case _:
            raise WireError(f"end mark: wanted writers [id, first, next, dropped, overwritten], got {shown(row)}")


def _ranges(rows: list[Value], first: int, next_: int) -> Iterable[tuple[int, int]]:
    at = first
    for row in rows:
        match row:
            case [int(start), int(end)] if at <= start < end <= next_:
                yield start, end
                at = end
            case _:
                raise WireError(f"end mark: wanted ascending ranges inside {first}..{next_}, got {shown(row)}")
