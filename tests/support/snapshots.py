"""Snapshots by hand: records as tuples, generations as a tracer would send them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.snapfile.format import Generation, GenerationInfo, SnapshotHeader, StreamBody, StreamHeader
from frzmq.snapfile.writer import write_snapshot
from frzmq.wire.batch import (
    BatchType,
    EndMark,
    Header,
    Opening,
    OpenItem,
    WriterEnd,
    WriterInfo,
    encode_batch,
    encode_end_mark,
    encode_opening,
)
from frzmq.wire.codec import pack
from frzmq.wire.kinds import KINDS, Kind, KindSpec
from frzmq.wire.ledger import Ledger

CREATED_NS = 1_000_000
WALL_NS = 1_700_000_000 * 10**9


@dataclasses.dataclass(frozen=True)
class At:
    """One record: when, by which writer, what."""

    time_ns: int
    kind: Kind
    args: tuple[Any, ...] = ()
    writer: int = 1


class Stream:
    """One tracer's stream as it grows, generation by generation."""

    def __init__(self, service: str = "s", pid: int = 1, **header: Any) -> None:
        self.uuid = bytes([pid % 256]) * 16
        self.header = StreamHeader(self.uuid, 1, service, pid, **{"machine": "m", **header})
        self.generations: list[Generation] = []
        self.strings: list[str] = []
        self._index: dict[int, int] = {}
        self._tseq = 0

    def ref(self, text: str) -> int:
        """The string's id; it is added to the table."""
        if text not in self.strings:
            self.strings.append(text)
        return self.strings.index(text) + 1

    def generation(
        self,
        number: int,
        records: Iterable[At] = (),
        *,
        at_ns: int = 0,
        open: tuple[OpenItem, ...] = (),
        open_omitted: int = 0,
        kinds: dict[int, KindSpec] = KINDS,
        writers: tuple[WriterInfo, ...] = (),
        skip: dict[int, int] | None = None,
        overwritten: bool = False,
        dropped: dict[int, int] | None = None,
        batch_of: int = 1000,
        **info: Any,
    ) -> Stream:
        """One more; ``skip``: by writer so many indices before its records are missing (or, if ``overwritten``, that); ``dropped``: by writer, so far."""
        records = sorted(records, key=lambda record: record.time_ns)
        opening = Opening(at_ns, at_ns, WALL_NS + at_ns - CREATED_NS, kinds, writers, open, open_omitted)
        frames = [self._batch(BatchType.OPEN, number, encode_opening(opening), base_ns=at_ns, last_ns=at_ns)]
        ends, batches, lost = [], 0, 0
        for writer in sorted({r.writer for r in records} | set(skip or ()) | set(dropped or ())):
            first = index = self._index.get(writer, 0)
            skipped = (skip or {}).get(writer, 0)
            lost += skipped
            index += skipped
            mine = [r for r in records if r.writer == writer]
            for start in range(0, len(mine), batch_of):
                part = mine[start : start + batch_of]
                before = mine[start - 1].time_ns if start else min(at_ns, part[0].time_ns)
                frames.append(self._records(number, writer, index, before, part))
                batches += 1
                index += len(part)
            self._index[writer] = index
            ranges = ((first, first + skipped),) if skipped and overwritten else ()
            ends.append(WriterEnd(writer, first, index, (dropped or {}).get(writer, 0), ranges))
        last_ns = max((r.time_ns for r in records), default=at_ns)
        facts = GenerationInfo(
            number, True, "end mark", at_ns, last_ns, len(records), batches, lost, encode_end_mark(EndMark(tuple(ends)))
        )
        self.generations.append(Generation(dataclasses.replace(facts, **info), tuple(frames)))
        return self

    def _records(self, generation: int, writer: int, index: int, base_ns: int, records: list[At]) -> bytes:
        body, now_ns = b"", base_ns
        for record in records:
            spec = KINDS[record.kind]
            body += pack(int(record.kind)) + pack(record.time_ns - now_ns)
            body += b"".join(pack(self._arg(field, arg)) for field, arg in zip(spec.fields, record.args, strict=True))
            now_ns = record.time_ns
        return self._batch(
            BatchType.RECORDS,
            generation,
            body,
            writer=writer,
            base_ns=base_ns,
            last_ns=now_ns,
            first_index=index,
            count=len(records),
        )

    def _arg(self, field: str, arg: Any) -> Any:
        if field.endswith(":s") and isinstance(arg, str) and arg:
            return self.ref(arg)
        if field.endswith(":m") and isinstance(arg, dict):
            return {self.ref(name): value for name, value in arg.items()}
        return arg

    def _batch(self, kind: BatchType, generation: int, body: bytes, **fields: int) -> bytes:
        self._tseq += 1
        return encode_batch(Header(kind, self.uuid, 1, 7, generation, self._tseq, **fields), body)

    def body(self) -> StreamBody:
        packed = b"".join(map(pack, self.strings))
        header = Header(BatchType.STRINGS, self.uuid, 1, 7, 0, self._tseq + 1, first_index=1, count=len(self.strings))
        strings = encode_batch(header, packed)
        return StreamBody((strings,) if self.strings else (), tuple(self.generations))

    def complete_header(self) -> StreamHeader:
        held = sum(g.info.records for g in self.generations)
        lost = sum(g.info.lost for g in self.generations)
        if self.header.ledger != Ledger():
            return self.header
        return dataclasses.replace(self.header, ledger=Ledger(recorded=held + lost, held=held, missing=lost))


def header_of(streams: Iterable[Stream], **fields: Any) -> SnapshotHeader:
    values = {"machine": "m", "host": "h", **fields}
    return SnapshotHeader("1", WALL_NS, CREATED_NS, streams=tuple(s.complete_header() for s in streams), **values)


def to_bytes(*streams: Stream, **fields: Any) -> bytes:
    parts: list[bytes] = []
    write_snapshot(parts.append, header_of(streams, **fields), [stream.body() for stream in streams])
    return b"".join(parts)


def snapshot(directory: Path, *streams: Stream, align: bool = True, **fields: Any) -> Snapshot:
    """Written to a file and opened."""
    path = directory / f"s{len(list(directory.iterdir()))}.frz"
    path.write_bytes(to_bytes(*streams, **fields))
    return open_snapshot(path, align=align)


def begin(time_ns: int, name: str, writer: int = 1, **attributes: Any) -> At:
    return At(time_ns, Kind.SPAN_BEGIN, (name, attributes or None), writer)


def end(time_ns: int, name: str, writer: int = 1, error: str | None = None) -> At:
    return At(time_ns, Kind.SPAN_END, (name, error), writer)


def event(time_ns: int, name: str, writer: int = 1, **attributes: Any) -> At:
    return At(time_ns, Kind.EVENT, (name, attributes or None), writer)


def context(time_ns: int, track: int = 0, label: str = "", op: int = 0, writer: int = 1) -> At:
    return At(time_ns, Kind.CONTEXT, (track, label, op), writer)


def operation_begin(
    time_ns: int, name: str, op: int, parent: int = 0, trace: bytes = b"t" * 16, remote: int = 0, writer: int = 1
) -> At:
    return At(time_ns, Kind.OPERATION_BEGIN, (name, op, parent, trace, remote, None), writer)


def operation_update(time_ns: int, op: int, name: str | None = None, writer: int = 1, **attributes: Any) -> At:
    return At(time_ns, Kind.OPERATION_UPDATE, (op, name, attributes or None), writer)


def operation_end(time_ns: int, op: int, writer: int = 1, error: str | None = None) -> At:
    return At(time_ns, Kind.OPERATION_END, (op, error), writer)


def open_span(begin_ns: int, name: str, *, writer: int = 1, track: int = 0, op: int = 0) -> OpenItem:
    return OpenItem(Kind.SPAN_BEGIN, writer, track, begin_ns, name, op, 0, b"")


def open_operation(begin_ns: int, name: str, op: int, *, writer: int = 1, trace: bytes = b"t" * 16) -> OpenItem:
    return OpenItem(Kind.OPERATION_BEGIN, writer, 0, begin_ns, name, op, 0, trace)
