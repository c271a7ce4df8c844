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

import json
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Final, NoReturn

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
from frzmq.wire.codec import Value, pack, unpack, unpack_values
from frzmq.wire.kinds import KINDS, kinds_to_wire
from frzmq.wire.messages import MESSAGE_TYPES, decode_message
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
_MAX_DEPTH: Final = 16
_HEX_LINE_BYTES: Final = 48
_PACK_ERRORS: Final = (ValueError, TypeError, OverflowError, RecursionError)

_TOKEN: Final = re.compile(
    r"""(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
    |(?P<bytes>h'[0-9a-f]*')
    |(?P<number>-?(?:(?:inf|nan)\b|[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?(?![0-9a-zA-Z_])))
    |(?P<word>[a-z_]+\??)
    |(?P<mark>[\[\]{}:,=+])""",
    re.VERBOSE,
)
_BLANK: Final = re.compile(r"[ \t\r]*(?:\#.*)?")
_WORDS: Final[dict[str, Value]] = {"null": None, "true": True, "false": False}


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
    words += [f"{name}={getattr(header, name)}" for name in _NUMBERS if _shown(name, getattr(header, name))]
    if reserved:
        words.append(f"reserved={reserved}")
    try:
        body = _lines(_BODIES[header.type][0](batch.body))
        exact = _parse_body(header.type, _split(body)) == batch.body
    except WireError:
        exact = False
    return " ".join(words) + "\n" + (body if exact else _hex(batch.body))


def _shown(name: str, value: int) -> bool:
    return value != WIRE_VERSION if name == "version" else value != 0


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


def _hex(data: bytes) -> str:
    return _lines(f"hex {data[i : i + _HEX_LINE_BYTES].hex()}" for i in range(0, len(data), _HEX_LINE_BYTES))


def _format_records(body: bytes) -> Iterable[str]:
    values = unpack_values(body)
    for kind in values:
        spec = KINDS.get(kind) if type(kind) is int else None
        record = [] if spec is None else [value for value, _ in zip(values, range(spec.arity + 1), strict=False)]
        if spec is None or len(record) != spec.arity + 1:
            raise WireError(f"records: wanted a known kind and its values, got {kind!r:.40}")
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


def format_value(value: object, depth: int = 0) -> str:
    """One msgpack value as text. Raises WireError for what nests deeper than text does."""
    if depth > _MAX_DEPTH:
        raise WireError(f"text: wanted values nested at most {_MAX_DEPTH} deep, got more")
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case bytes():
            return f"h'{value.hex()}'"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            return (
                "{"
                + ", ".join(f"{format_value(k, depth + 1)}: {format_value(v, depth + 1)}" for k, v in value.items())
                + "}"
            )
        case list() | tuple():
            return "[" + ", ".join(format_value(item, depth + 1) for item in value) + "]"
        case _:
            return repr(value)


# --- text to bytes


class _Line:
    """One line and the token that comes next in it."""

    __slots__ = ("_at", "_text", "kind", "number", "token")

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self._text = text
        self._at = 0
        self.kind = self.token = ""
        self._advance()

    def _advance(self) -> None:
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None  # it matches the empty string
        self._at = blank.end()
        found = _TOKEN.match(self._text, self._at)
        if found is not None:
            self.kind, self.token, self._at = found.lastgroup or "", found.group(), found.end()
        elif self._at == len(self._text):
            self.kind = self.token = ""
        else:
            self.token = self._text[self._at : self._at + 40]
            self.fail("a word, a value or a mark")

    def fail(self, wanted: str) -> NoReturn:
        raise WireError(f"line {self.number}: wanted {wanted}, got {self.token[:40]!r}" if self.token else f"line {self.number}: wanted {wanted}, got its end")  # fmt: skip

    def take(self, kind: str, wanted: str) -> str:
        if self.kind != kind:
            self.fail(wanted)
        token = self.token
        self._advance()
        return token

    def mark(self, mark: str) -> None:
        if self.kind != "mark" or self.token != mark:
            self.fail(repr(mark))
        self._advance()

    def word(self, wanted: str) -> str:
        return self.take("word", wanted)

    def one_of(self, names: Iterable[str], wanted: str) -> str:
        if self.kind != "word" or self.token not in names:
            self.fail(wanted)
        return self.word(wanted)

    def end(self) -> None:
        if self.kind:
            self.fail("its end")

    def unsigned(self) -> int:
        if self.kind != "number" or not self.token.isdecimal():
            self.fail("an unsigned integer")
        number = self.value()
        assert isinstance(number, int)
        return number

    def value(self, depth: int = 0) -> Value:
        if depth > _MAX_DEPTH:
            self.fail(f"values nested at most {_MAX_DEPTH} deep")
        kind, token = self.kind, self.token
        if kind == "string":
            try:
                text = json.loads(token)
                text.encode()
            except ValueError:
                self.fail("a string as in JSON")
            self._advance()
            return str(text)
        if kind == "bytes":
            if len(token) % 2 == 0:
                self.take("bytes", "")
                self.fail("two digits for each byte")
            self._advance()
            return bytes.fromhex(token[2:-1])
        if kind == "number":
            return self._number()
        if kind == "word" and token in _WORDS:
            self._advance()
            return _WORDS[token]
        if (kind, token) == ("mark", "["):
            return self._list(depth)
        if (kind, token) == ("mark", "{"):
            return self._map(depth)
        self.fail("a value")

    def _number(self) -> int | float:
        token = self.token
        digits = token.removeprefix("-")
        if not digits.isdecimal():
            number: int | float = float(token)
        elif len(digits) > 20 or not -(1 << 63) <= (number := int(token)) < 1 << 64:
            self.fail("an integer of 64 bits")
        self._advance()
        return number

    def _list(self, depth: int) -> list[Value]:
        items: list[Value] = []
        self.mark("[")
        while self.token != "]":
            if items:
                self.mark(",")
            items.append(self.value(depth + 1))
        self.mark("]")
        return items

    def _map(self, depth: int) -> dict[str | int, Value]:
        items: dict[str | int, Value] = {}
        self.mark("{")
        while self.token != "}":
            if items:
                self.mark(",")
            key_token = self.token
            key = self.value(depth + 1)
            if not isinstance(key, str | int) or isinstance(key, bool) or key in items:
                raise WireError(f"line {self.number}: wanted a new string or integer as key, got {key_token[:40]}")
            self.mark(":")
            items[key] = self.value(depth + 1)
        self.mark("}")
        return items

    def pairs(self, names: Iterable[str]) -> dict[str, Value]:
        """``name=value`` up to the end."""
        found: dict[str, Value] = {}
        while self.kind:
            name = self.token
            self.one_of([n for n in names if n not in found], f"one of {' '.join(names)}, each once")
            self.mark("=")
            found[name] = self.value()
        return found


def _split(text: str) -> list[_Line]:
    """The lines that say something."""
    return [line for number, words in enumerate(text.split("\n"), 1) if words and (line := _Line(number, words)).kind]


def parse_frame(text: str) -> bytes:
    """The frame that ``text`` describes. Raises WireError, which names the line."""
    lines = _split(text)
    frame: list[bytes] = []
    at = 0
    while at < len(lines):
        end = at + 1
        while end < len(lines) and lines[end].token != "batch":
            end += 1
        frame.append(_parse_batch(lines[at], lines[at + 1 : end]))
        at = end
    if not frame:
        raise WireError("text: wanted a frame, got no batch")
    return b"".join(frame)


def _parse_batch(line: _Line, body_lines: list[_Line]) -> bytes:
    line.one_of(["batch"], "'batch'")
    kind = _TYPES[line.one_of(_TYPES, f"one of {' '.join(_TYPES)}")]
    found = line.pairs((*_HEADER_FIELDS, "reserved"))
    uuid = found.pop("uuid", None)
    if not isinstance(uuid, bytes) or len(uuid) != 16:
        raise WireError(f"line {line.number}: wanted uuid=h'..' of 16 bytes, got {uuid!r:.40}")
    numbers = dict.fromkeys(("incarnation", "nonce", "generation", "tseq"), 0)
    for name, value in found.items():
        if type(value) is not int:
            raise WireError(f"line {line.number}: wanted an unsigned integer as {name}, got {value!r:.40}")
        numbers[name] = value
    reserved = numbers.pop("reserved", 0)
    body = _parse_body(kind, body_lines)
    try:
        packed = encode_batch(Header(kind, uuid, **numbers), body)
        batch = packed[: HEADER_SIZE - _RESERVED.size] + _RESERVED.pack(reserved) + body
        decode_header(batch)
    except (struct.error, WireError) as error:
        raise WireError(f"line {line.number}: {error}") from None
    return batch


def _parse_body(kind: BatchType, lines: list[_Line]) -> bytes:
    if not lines:
        return b""
    if lines[0].token == "hex":
        return b"".join(map(_parse_hex, lines))
    try:
        return _BODIES[kind][1](lines)
    except _PACK_ERRORS as error:
        raise WireError(f"line {lines[0].number}: {error}") from None


def _parse_hex(line: _Line) -> bytes:
    # digits are no token: they look like words and numbers
    found = re.fullmatch(r"[ \t]*hex ((?:[0-9a-f]{2})+)[ \t\r]*(?:#.*)?", line._text)
    if found is None:
        line.fail("hex and an even count of digits")
    return bytes.fromhex(found.group(1))


def _parse_records(lines: list[_Line]) -> bytes:
    return b"".join(map(_parse_record, lines))


def _parse_record(line: _Line) -> bytes:
    spec = _KIND_NAMES[line.one_of(_KIND_NAMES, "a kind of record")]
    line.mark("+")
    values: list[Value] = [spec.kind, line.unsigned(), *(line.value() for _ in spec.fields)]
    line.end()
    return b"".join(map(pack, values))


def _parse_strings(lines: list[_Line]) -> bytes:
    return b"".join(map(_parse_string, lines))


def _parse_string(line: _Line) -> bytes:
    if line.kind != "string":
        line.fail("a string")
    text = line.value()
    line.end()
    return pack(text)


def _parse_opening(lines: list[_Line]) -> bytes:
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


def _parse_kind(line: _Line) -> Value:
    if line.kind == "word":
        spec = _KIND_NAMES[line.one_of(_KIND_NAMES, "a kind of record")]
        row: Value = kinds_to_wire({spec.kind: spec})[0]  # type: ignore[assignment]  # list is invariant
        return row
    number, name = line.unsigned(), line.value()
    names: list[Value] = []
    while line.kind:
        names.append(line.value())
    return [number, name, names]


def _parse_end_mark(lines: list[_Line]) -> bytes:
    rows: list[Value] = []
    for line in lines:
        line.one_of(["writer"], "'writer'")
        number = line.unsigned()
        found = line.pairs(_END_FIELDS)
        rows.append([number, *(found.get(name) for name in _END_FIELDS)])
    return _checked(pack(rows), decode_end_mark, lines[0].number)


def _parse_nothing(lines: list[_Line]) -> bytes:
    lines[0].fail("no body, or hex")


_BODIES: Final[dict[BatchType, tuple[Callable[[bytes], Iterable[str]], Callable[[list[_Line]], bytes]]]] = {
    BatchType.RECORDS: (_format_records, _parse_records),
    BatchType.OPEN: (_format_opening, _parse_opening),
    BatchType.END: (_format_end_mark, _parse_end_mark),
    BatchType.STRINGS: (_format_strings, _parse_strings),
    BatchType.FLUSH: (_format_nothing, _parse_nothing),
    BatchType.GOODBYE: (_format_nothing, _parse_nothing),
}


def parse_message(text: str) -> bytes:
    """The message that ``text`` describes. Raises WireError, which names the line."""
    lines = _split(text)
    if not lines:
        raise WireError("text: wanted a message, got nothing")
    first, *rest = lines
    first.one_of(["message"], "'message'")
    name = first.one_of(MESSAGE_TYPES, "a type of message")
    first.end()
    if rest and rest[0].token == "hex":
        data = b"".join(map(_parse_hex, rest))
        return _checked(data, decode_message, first.number)
    value: dict[str | int, Value] = {"type": name}
    names = [f.name for f in fields(MESSAGE_TYPES[name])]
    for line in rest:
        found = line.pairs([n for n in names if n not in value])
        value |= found  # type: ignore[arg-type]  # dict is invariant
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
