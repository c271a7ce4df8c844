"""From the bytes of a generation to its records: no clock corrections, no merging yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from frzmq.errors import WireError
from frzmq.wire.batch import (
    HEADER_SIZE,
    Batch,
    BatchType,
    Opening,
    WriterEnd,
    decode_end_mark,
    decode_header,
    decode_opening,
)
from frzmq.wire.codec import Value, shown, unpack_values
from frzmq.wire.kinds import KINDS, KindSpec

_KNOWN_FIELDS: Final = {spec.name: spec.fields for spec in KINDS.values()}
MAX_TIME_NS: Final = (1 << 63) - 1


class Raw(NamedTuple):
    """One record, on its tracer's clock."""

    time_ns: int
    writer: int
    writer_index: int
    spec: KindSpec
    args: list[Any]
    """In the order of the kind's fields, strings resolved."""
    track: int
    op: int


class Strings:
    """A stream's string table; ids that are not in it read as ``?ID``."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self.unknown = 0
        """References that could not be resolved."""

    def add(self, data: bytes) -> str:
        """STRINGS batches back to back. Returns what is wrong with them, or ""."""
        batches, problem = split_batches(data)
        for batch in batches:
            if batch.header.type is not BatchType.STRINGS:
                return f"{batch.where()}: wanted strings, got {batch.header.type.name}"
            try:
                for n, text in enumerate(unpack_values(batch.body, "strings"), batch.header.first_index):
                    if not isinstance(text, str):
                        return f"{batch.where()}: wanted strings, got {type(text).__name__}"
                    self._texts[n] = text
            except WireError as error:
                problem = f"{batch.where()}: {error}"
        return problem

    def resolve(self, ref: Value) -> str:
        """Of a field of type ``s``. Raises WireError when it is no reference."""
        if type(ref) is str:
            return ref
        if ref is None:
            return ""
        if type(ref) is not int:
            raise WireError(f"string: wanted an id or text, got {type(ref).__name__}")
        text = self._texts.get(ref)
        if text is None:
            self.unknown += 1
            return f"?{ref}"
        return text


def split_batches(data: bytes) -> tuple[list[Batch], str]:
    """The whole batches at the beginning of ``data``, and what is wrong with the rest, or ""."""
    batches: list[Batch] = []
    offset = 0
    while offset < len(data):
        try:
            header = decode_header(data, offset)
        except WireError as error:
            return batches, f"at byte {offset} of {len(data)}: {error}"
        start = offset + HEADER_SIZE
        offset = start + header.body_size
        batches.append(Batch(header, data[start:offset]))
    return batches, ""


@dataclass(slots=True)
class DecodedGeneration:
    """One generation's batches, sorted out but not yet decoded."""

    opening: Opening | None = None
    kinds: dict[int, KindSpec] = field(default_factory=lambda: KINDS)
    writers: dict[int, list[Batch]] = field(default_factory=dict)
    """Each writer's RECORDS batches in the order of their indices."""
    rows: tuple[WriterEnd, ...] | None = None
    """Of the end mark; None: there is none."""
    problems: list[str] = field(default_factory=list)


def decode_generation(data: bytes, end_mark: bytes, *, sealed_by_mark: bool) -> DecodedGeneration:
    """``data``: OPEN and RECORDS batches back to back; what cannot be read is said in ``problems``."""
    decoded = DecodedGeneration()
    batches, problem = split_batches(data)
    if problem:
        decoded.problems.append(problem)
    for batch in batches:
        if batch.header.type is BatchType.RECORDS:
            decoded.writers.setdefault(batch.header.writer, []).append(batch)
        elif batch.header.type is BatchType.OPEN and decoded.opening is None:
            try:
                decoded.opening = decode_opening(batch.body)
                decoded.kinds = dict(_readable(decoded.opening.kinds, decoded.problems))
            except WireError as error:
                decoded.problems.append(f"{batch.where()}: {error}")
        else:
            decoded.problems.append(f"{batch.where()}: wanted OPEN once and RECORDS, got {batch.header.type.name}")
    for of_writer in decoded.writers.values():
        of_writer.sort(key=lambda batch: batch.header.first_index)
    if sealed_by_mark or end_mark:
        try:
            decoded.rows = decode_end_mark(end_mark).writers
        except WireError as error:
            decoded.problems.append(str(error))
    return decoded


def _readable(kinds: dict[int, KindSpec], problems: list[str]) -> Iterator[tuple[int, KindSpec]]:
    """The table, in which a known name stands for the fields that it is known to have, and at the most for more behind them."""
    for kind, spec in kinds.items():
        known = _KNOWN_FIELDS.get(spec.name)
        if known is not None and spec.fields[: len(known)] != known:
            problems.append(f"kind {kind}: wanted {spec.name} with {' '.join(known)}, got {' '.join(spec.fields)}")
            yield kind, KindSpec(kind, f"kind {kind}", spec.fields)
        else:
            yield kind, spec


Convert = Callable[[Any], Any]


class RecordDecoder:
    """Decodes the batches of one stream."""

    def __init__(self, strings: Strings) -> None:
        self._strings = strings
        self._by_type: dict[str, Convert] = {
            "s": strings.resolve,
            "u": _unsigned,
            "v": _scalar,
            "b": _bytes,
            "m": self._attributes,
        }

    def records(
        self, batches: list[Batch], kinds: dict[int, KindSpec], problem: Callable[[Batch, int, str], None]
    ) -> Iterator[Raw]:
        """Those of one writer in one generation. ``problem(batch, index, reason)`` is told where a batch could be read no further."""
        track = op = 0
        shapes = {kind: (spec, [self._by_type[f[-1]] for f in spec.fields]) for kind, spec in kinds.items()}
        for batch in batches:
            header = batch.header
            index, end, now_ns, writer = (
                header.first_index,
                header.first_index + header.count,
                header.base_ns,
                header.writer,
            )
            values = unpack_values(batch.body, "records")
            take = values.__next__
            try:
                while index < end:
                    kind: Any = take()
                    delta: Any = take()
                    if type(delta) is not int or delta < 0:
                        raise WireError(f"delta: wanted ns, got {shown(delta)}")
                    shape = shapes.get(kind) if type(kind) is int else None
                    if shape is None:
                        raise WireError(f"kind: wanted one of the generation's table, got {shown(kind)}")
                    spec, converts = shape
                    now_ns += delta
                    if now_ns > MAX_TIME_NS:
                        raise WireError(f"time: wanted at most {MAX_TIME_NS} ns, got {now_ns}")
                    args = [convert(take()) for convert in converts]
                    if spec.name == "context":
                        track, op = args[0], args[2]
                    yield Raw(now_ns, writer, index, spec, args, track, op)
                    index += 1
            except WireError as error:
                problem(batch, index, str(error))
            except StopIteration:
                problem(
                    batch, index, f"wanted {header.count} records, the bytes end after {index - header.first_index}"
                )

    def _attributes(self, value: Any) -> dict[str, Value]:
        if value is None:
            return {}
        if type(value) is not dict:
            raise WireError(f"attributes: wanted a map, got {type(value).__name__}")
        return {self._strings.resolve(name): _scalar(item) for name, item in value.items()}


def _unsigned(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise WireError(f"wanted an unsigned integer, got {shown(value)}")
    return value


def _scalar(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        raise WireError(f"wanted a scalar, got {type(value).__name__}")
    return value


def _bytes(value: Any) -> bytes:
    if value is None:
        return b""
    if type(value) is not bytes:
        raise WireError(f"wanted bytes, got {type(value).__name__}")
    return value
