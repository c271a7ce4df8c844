"""Slices of a buffer as records that a test can compare."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frzmq.tracer import api, hub
from frzmq.tracer.buffer import make_buffer
from frzmq.tracer.slices import Slice
from frzmq.wire.codec import Value, unpack_values
from frzmq.wire.kinds import KINDS

if TYPE_CHECKING:
    from frzmq.tracer.buffer import Buffer

SIZE_BYTES = 256 << 10


@dataclass(frozen=True)
class Record:
    writer: int
    index: int
    time_ns: int
    name: str
    args: tuple[Value, ...]


class Strings:
    """The stream's string table, as far as it was shipped."""

    def __init__(self) -> None:
        self.texts: list[str] = [""]

    def take(self, buffer: Buffer) -> None:
        new = buffer.new_strings()
        if new is not None:
            first_id, count, body = new
            assert first_id == len(self.texts)
            texts = [text for text in unpack_values(body) if isinstance(text, str)]
            assert len(texts) == count
            self.texts += texts

    def of(self, ref: Value) -> Value:
        return self.texts[ref] if isinstance(ref, int) else ref


def decode(slices: Iterable[Slice], strings: Strings | None = None) -> list[Record]:
    """All records of the slices; string refs resolved when the table is given."""
    records = []
    for piece in slices:
        assert len(piece.body) == piece.size
        values = iter(unpack_values(piece.body))
        now_ns, index = piece.base_ns, piece.first_index
        for kind in values:
            assert isinstance(kind, int)
            delta = next(values)
            assert isinstance(delta, int)
            spec = KINDS[kind]
            now_ns += delta
            args = [next(values) for _ in spec.fields]
            if strings is not None:
                args = [_resolve(arg, field, strings) for arg, field in zip(args, spec.fields, strict=True)]
            records.append(Record(piece.writer, index, now_ns, spec.name, tuple(args)))
            index += 1
        assert index == piece.first_index + piece.count
        assert now_ns == piece.last_ns
    return records


def _resolve(arg: Value, field: str, strings: Strings) -> Value:
    if field.endswith(":s"):
        return strings.of(arg)
    if field.endswith(":m") and isinstance(arg, dict):
        return {str(strings.of(key)): value for key, value in arg.items()}
    return arg


def take(buffer: Buffer, *, without_context: bool = True) -> list[tuple[Value, ...]]:
    """What was recorded since the last time, as ``(kind's name, args...)``; the records that a writer makes by itself left out if asked."""
    table = _tables.setdefault(id(buffer), Strings())
    slices = buffer.slices(1 << 30)
    table.take(buffer)
    own = {"context", "thread_begin", "process_begin"} if without_context else set()
    return [(r.name, *r.args) for r in decode(slices, table) if r.name not in own]


_tables: dict[int, Strings] = {}


@contextmanager
def recording(size_bytes: int = SIZE_BYTES, directory: str | None = None, kind: str = "") -> Iterator[Buffer]:
    """The api records into a buffer of its own, of the ``kind`` that the environment says; no fault of ours may have happened at the end."""
    buffer = make_buffer(kind, os.urandom(16), 1, directory, size_bytes)
    _tables[id(buffer)] = Strings()
    before = hub.faults
    api.install(buffer)
    try:
        yield buffer
        assert (buffer.errors, hub.faults) == (0, before)
    finally:
        api.uninstall()
        buffer.close()
        del _tables[id(buffer)]
