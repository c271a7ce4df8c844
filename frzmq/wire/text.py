"""The wire as text, in both directions, for people, golden files and bug reports::

    # blank lines, and what follows a '#', are comments
    batch records uuid=h'00112233445566778899aabbccddeeff' incarnation=1 nonce=7 generation=1 tseq=3 writer=1 count=1
      event +250 "cache miss" {"key": "cart"}

    message advance
      generation=2

Values are as in JSON, with bytes as h'0aff', integer keys, ``inf`` and ``nan``. Header fields that are 0 may be left out. The body of a
batch: one line each for a record (``kind +delta arg ...``, every arg of its kind in order), a string, or a part of an opening or end mark.
Whatever these lines cannot say byte for byte (a kind of a newer version, a damaged body, integers longer than need be) is written
``hex 0aff...``. So for every frame and message that the decoders take: bytes to text to bytes gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Final

from frzmq.errors import WireError
from frzmq.wire.batch import (
    HEADER_SIZE,
    Batch,
    BatchType,
    Header,
    decode_end_mark,
    decode_header,
    decode_opening,
    encode_batch,
    split_frame,
)
from frzmq.wire.codec import Value, pack, shown, unpack, unpack_values
from frzmq.wire.kinds import KINDS, kinds_to_wire
from frzmq.wire.messages import MESSAGE_TYPES, decode_message
from frzmq.wire.syntax import Line, format_value, split_lines
from frzmq.wire.version import WIRE_VERSION

_HEADER_FIELDS: Final = tuple(f.name for f in fields(Header) if f.name not in ("type", "body_size"))
_NUMBERS: Final = _HEADER_FIELDS[1:]
_TYPES: Final = {kind.name.lower(): kind for kind in BatchType}
_KIND_NAMES: Final = {spec.name: spec for spec in KINDS.values()}
_OPEN_FIELDS: Final = ("writer", "track", "begin_ns", "name", "op", "parent", "trace")
_WRITER_FIELDS: Final = ("name", "native_id")
_END_FIELDS: Final = ("first_index", "next_index", "dropped", "overwritten")
_RESERVED: Final = struct.Struct("<I")
"""The last field of a batch's header: 0 today, but a reader takes any."""
_HEX_LINE_BYTES: Final = 48
_PACK_ERRORS: Final = (ValueError, TypeError, OverflowError, RecursionError)


# --- bytes to text


def format_frame(data: bytes) -> str:
    """The batches of one frame, lines ending in a line feed. Raises WireError when it is no frame."""
    parts: list[str] = []
    offset = 0
    for batch in split_frame(data):
        (reserved,) = _RESERVED.unpack_from(data, offset + HEADER_SIZE - _RESERVED.size)
        offset += HEADER_SIZE + len(batch.body)
        parts.append(_format_batch(batch, reserved))
    return "".join(parts)


def _format_batch(batch: Batch, reserved: int) -> str:
    header = batch.header
    words = ["batch", header.type.name.lower(), f"uuid=h'{header.uuid.hex()}'"]
    words += [f"{name}={getattr(header, name)}" for name in _NUMBERS if _is_said(name, getattr(header, name))]
    if reserved:
        words.append(f"reserved={reserved}")
    try:
        body = _lines(_BODIES[header.type][0](batch.body))
        exact = _parse_body(header.type, split_lines(body)) == batch.body
    except WireError:
        exact = False
    return " ".join(words) + "\n" + (body if exact else _hex(batch.body))


def _is_said(name: str, value: int) -> bool:
    return value != WIRE_VERSION if name == "version" else value != 0


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


def _hex(data: bytes) -> str:
    return _lines(f"hex {data[i : i + _HEX_LINE_BYTES].hex()}" for i in range(0, len(data), _HEX_LINE_BYTES))


def _format_records(body: bytes) -> Iterable[str]:
    values = unpack_values(body)
    for kind in values:
        spec = KINDS.get(kind) if type(kind) is int else None
        record = [] if spec is None else [value for _, value in zip(range(spec.arity + 1), values, strict=False)]
        if spec is None or len(record) != spec.arity + 1:
            raise WireError(f"records: wanted a known kind and its values, got {shown(kind)}")
        yield " ".join([spec.name, f"+{format_value(record[0])}", *map(format_value, record[1:])])


def _format_strings(body: bytes) -> Iterable[str]:
    return map(format_value, unpack_values(body))


def _format_opening(body: bytes) -> Iterable[str]:
    opening = decode_opening(body)
    yield f"clock {opening.monotonic_ns} {opening.boottime_ns} {opening.wall_ns}"
    for number, spec in opening.kinds.items():
        if _KIND_NAMES.get(spec.name) == spec:
            yield f"kind {spec.name}"
        else:
            yield " ".join(["kind", str(number), *map(format_value, (spec.name, *spec.fields))])
    for info in opening.writers:
        yield f"writer {info.writer}{_pairs(info, _WRITER_FIELDS)}"
    for item in opening.open:
        yield f"open {KINDS[item.kind].name}{_pairs(item, _OPEN_FIELDS)}"
    yield f"omitted {opening.open_omitted}"


def _format_end_mark(body: bytes) -> Iterable[str]:
    for end in decode_end_mark(body).writers:
        yield f"writer {end.writer}{_pairs(end, _END_FIELDS)}"


def _format_nothing(body: bytes) -> Iterable[str]:
    return () if not body else (_hex(body).strip(),)


def _pairs(item: object, names: Iterable[str]) -> str:
    return "".join(f" {name}={format_value(getattr(item, name))}" for name in names)


def format_message(data: bytes) -> str:
    """One message, a line for each of its keys. Raises WireError when it is none."""
    decode_message(data)
    value = unpack(data)
    assert isinstance(value, dict)
    name = str(value["type"])
    text = f"message {name}\n"
    try:
        body = _lines(f"{key}={format_value(item)}" for key, item in value.items() if key != "type")
        if parse_message(text + body) == data:
            return text + body
    except WireError:
        pass
    return text + _hex(data)


# --- text to bytes


def parse_frame(text: str) -> bytes:
    """The frame that ``text`` describes. Raises WireError, which names the line."""
    lines = split_lines(text)
    frame: list[bytes] = []
    at = 0
    while at < len(lines):
        end = at + 1
        while end < len(lines) and lines[end].next != "batch":
            end += 1
        frame.append(_parse_batch(lines[at], lines[at + 1 : end]))
        at = end
    if not frame:
        raise WireError("text: wanted a frame, got no batch")
    return b"".join(frame)


def _parse_batch(line: Line, body_lines: list[Line]) -> bytes:
    line.one_of(["batch"], "'batch'")
    kind = _TYPES[line.one_of(_TYPES, f"one of {' '.join(_TYPES)}")]
    found = line.pairs((*_HEADER_FIELDS, "reserved"))
    uuid = found.pop("uuid", None)
    if not isinstance(uuid, bytes) or len(uuid) != 16:
        raise WireError(f"line {line.number}: wanted uuid=h'..' of 16 bytes, got {shown(uuid)}")
    numbers = dict.fromkeys(("incarnation", "nonce", "generation", "tseq"), 0)
    for name, value in found.items():
        if type(value) is not int:
            raise WireError(f"line {line.number}: wanted an unsigned integer as {name}, got {shown(value)}")
        numbers[str(name)] = value
    reserved = numbers.pop("reserved", 0)
    body = _parse_body(kind, body_lines)
    try:
        packed = encode_batch(Header(kind, uuid, **numbers), body)
        batch = packed[: HEADER_SIZE - _RESERVED.size] + _RESERVED.pack(reserved) + body
        decode_header(batch)
    except (struct.error, WireError) as error:
        raise WireError(f"line {line.number}: {error}") from None
    return batch


def _parse_body(kind: BatchType, lines: list[Line]) -> bytes:
    if not lines:
        return b""
    if lines[0].next == "hex":
        return b"".join(map(Line.hex, lines))
    try:
        return _BODIES[kind][1](lines)
    except _PACK_ERRORS as error:
        raise WireError(f"line {lines[0].number}: {error}") from None


def _parse_records(lines: list[Line]) -> bytes:
    return b"".join(map(_parse_record, lines))


def _parse_record(line: Line) -> bytes:
    spec = _KIND_NAMES[line.one_of(_KIND_NAMES, "a kind of record")]
    line.mark("+")
    values: list[Value] = [spec.kind, line.unsigned(), *(line.value() for _ in spec.fields)]
    line.end()
    return b"".join(map(pack, values))


def _parse_strings(lines: list[Line]) -> bytes:
    return b"".join(map(_parse_string, lines))


def _parse_string(line: Line) -> bytes:
    if line.kind != "string":
        line.fail("a string")
    text = line.value()
    line.end()
    return pack(text)


def _parse_opening(lines: list[Line]) -> bytes:
    clock: list[Value] = []
    kinds: list[Value] = []
    writers: list[Value] = []
    opened: list[Value] = []
    omitted = 0
    for line in lines:
        match line.word("clock, kind, writer, open or omitted"):
            case "clock":
                clock = [line.value(), line.value(), line.value()]
            case "kind":
                kinds.append(_parse_kind(line))
            case "writer":
                number = line.unsigned()
                found = line.pairs(_WRITER_FIELDS)
                writers.append([number, *(found.get(name) for name in _WRITER_FIELDS)])
            case "open":
                spec = _KIND_NAMES[line.one_of(_KIND_NAMES, "a kind of record")]
                found = line.pairs(_OPEN_FIELDS)
                opened.append([int(spec.kind), *(found.get(name) for name in _OPEN_FIELDS)])
            case "omitted":
                omitted = line.unsigned()
            case other:
                raise WireError(f"line {line.number}: wanted clock, kind, writer, open or omitted, got {other[:40]!r}")
        line.end()
    value: dict[str | int, Value] = {
        "clock": clock,
        "kinds": kinds,
        "writers": writers,
        "open": opened,
        "open_omitted": omitted,
    }
    return _checked(pack(value), decode_opening, lines[0].number)


def _parse_kind(line: Line) -> Value:
    if line.kind == "word":
        spec = _KIND_NAMES[line.one_of(_KIND_NAMES, "a kind of record")]
        row: Value = kinds_to_wire({spec.kind: spec})[0]  # type: ignore[assignment]  # list is invariant
        return row
    number, name = line.unsigned(), line.value()
    names: list[Value] = []
    while line.kind:
        names.append(line.value())
    return [number, name, names]


def _parse_end_mark(lines: list[Line]) -> bytes:
    rows: list[Value] = []
    for line in lines:
        line.one_of(["writer"], "'writer'")
        number = line.unsigned()
        found = line.pairs(_END_FIELDS)
        rows.append([number, *(found.get(name) for name in _END_FIELDS)])
    return _checked(pack(rows), decode_end_mark, lines[0].number)


def _parse_nothing(lines: list[Line]) -> bytes:
    lines[0].fail("no body, or hex")


_BODIES: Final[dict[BatchType, tuple[Callable[[bytes], Iterable[str]], Callable[[list[Line]], bytes]]]] = {
    BatchType.RECORDS: (_format_records, _parse_records),
    BatchType.OPEN: (_format_opening, _parse_opening),
    BatchType.END: (_format_end_mark, _parse_end_mark),
    BatchType.STRINGS: (_format_strings, _parse_strings),
    BatchType.FLUSH: (_format_nothing, _parse_nothing),
    BatchType.GOODBYE: (_format_nothing, _parse_nothing),
}


def parse_message(text: str) -> bytes:
    """The message that ``text`` describes. Raises WireError, which names the line."""
    lines = split_lines(text)
    if not lines:
        raise WireError("text: wanted a message, got nothing")
    first, *rest = lines
    first.one_of(["message"], "'message'")
    name = first.one_of(MESSAGE_TYPES, "a type of message")
    first.end()
    if rest and rest[0].next == "hex":
        data = b"".join(map(Line.hex, rest))
        return _checked(data, decode_message, first.number)
    value: dict[str | int, Value] = {"type": name}
    names = [f.name for f in fields(MESSAGE_TYPES[name])]
    for line in rest:
        line.pairs(names, value)
    try:
        data = pack(value)
    except _PACK_ERRORS as error:
        raise WireError(f"line {first.number}: {error}") from None
    return _checked(data, decode_message, first.number)


def _checked(data: bytes, decode: Callable[[bytes], object], number: int) -> bytes:
    try:
        decode(data)
    except WireError as error:
        raise WireError(f"line {number}: {error}") from None
    return data
