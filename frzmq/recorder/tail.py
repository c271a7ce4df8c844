"""What a dead tracer's buffer file still holds: its strings, its records, what was open. Nothing in the file is trusted; pure, over a function that reads.

docs/buffer.md has the layout, and says in which order it was written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from frzmq.errors import WireError
from frzmq.recorder.ranges import Ranges
from frzmq.wire.batch import OpenItem
from frzmq.wire.chunk import (
    BASE_WORD,
    CHUNK_HEADER_BYTES,
    CUT_BASE_WORD,
    CUT_GENERATION_WORD,
    CUT_WORD,
    FIRST_INDEX_WORD,
    HEADER_BYTES,
    LAST_WORDS,
    OPEN_ENTRY,
    OPEN_ENTRY_BYTES,
    PUBLISHED_WORD,
    SERIAL_WORD,
    STATE_WORD,
    STRINGS_WORD,
    ChunkState,
    FileHeader,
    decode_file_header,
    unpack_word,
)
from frzmq.wire.codec import unpack_with_ends
from frzmq.wire.kinds import KINDS, Kind

Read = Callable[[int, int], bytes]
"""So many bytes from an offset; fewer at the end of the file."""
MAX_STRINGS: Final = 1 << 20
ATTEMPTS: Final = 16
MAX_TIME_NS: Final = (1 << 63) - 1
_HEAD: Final = struct.Struct(f"<{CHUNK_HEADER_BYTES // 8}Q")
_WORDS: Final = struct.Struct(f"<{HEADER_BYTES // 8}Q")


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one writer and one generation, back to back."""

    generation: int
    writer: int
    first_index: int
    count: int
    base_ns: int
    last_ns: int
    body: bytes = field(repr=False)

    @property
    def end(self) -> int:
        """The writer's index behind the last."""
        return self.first_index + self.count

    def part(self, start: int, end: int) -> Run:
        """Of its records those with the indices ``[start, end)``. Raises WireError when the bytes are not those records."""
        begin, base_ns = 0, self.base_ns
        stop, last_ns = 0, self.base_ns
        marks = _records(self.body)
        for n in range(end - self.first_index):
            if n == start - self.first_index:
                begin, base_ns = stop, last_ns
            _, stop, delta_ns = next(marks, (0, 0, -1))
            if delta_ns < 0:
                raise WireError(f"wanted {self.count} records in {len(self.body)} bytes, got {n}")
            last_ns += delta_ns
        if end == self.end and (stop, last_ns) != (len(self.body), self.last_ns):
            raise WireError(
                f"wanted the last record to end at {len(self.body)}, at {self.last_ns}, got {stop}, {last_ns}"
            )
        return Run(self.generation, self.writer, start, end - start, base_ns, last_ns, self.body[begin:stop])


@dataclass(frozen=True, slots=True)
class Tail:
    header: FileHeader
    strings: tuple[bytes, ...]
    """The n-th, from 1, has id n; each a msgpack str."""
    runs: tuple[Run, ...]
    """What was not stored; by generation, writer and index."""
    open: tuple[OpenItem, ...]
    """What had not ended."""
    problems: tuple[str, ...]
    torn: int = 0
    """Records that were being written."""
    says_end: bool = False
    """The last record of a writer is that of the process's end: it ended in order, and nobody was there to hear of it."""


def read_tail(
    read: Read, file_bytes: int, uuid: bytes, stored: Mapping[int, Ranges], *, released: bool = False
) -> Tail:
    """Of a file of ``file_bytes``; ``stored``: by writer, which records are here already, and need not be read;
    ``released``: also what was acknowledged and is not overwritten yet. Raises WireError when it is none of this tracer; what is wrong in a part of it costs that part, and is said."""
    page = read(0, HEADER_BYTES)
    header = decode_file_header(page, file_bytes)
    if header.uuid != uuid:
        raise WireError(f"buffer file: wanted that of tracer {uuid.hex()[:8]}, got {header.uuid.hex()[:8]}")
    if len(page) < HEADER_BYTES:
        raise WireError(f"buffer file: wanted {HEADER_BYTES} bytes of header, got {len(page)}")
    problems: list[str] = []
    strings = tuple(_strings(read, header, _WORDS.unpack(page)[STRINGS_WORD], problems))
    runs: list[Run] = []
    torn = 0
    for number in range(header.layout.chunk_count):
        try:
            runs += _chunk(read, header, number, stored, released)
            torn += _is_torn(read, header, number)
        except WireError as error:
            problems.append(f"chunk {number}: {error}")
    runs.sort(key=lambda run: (run.generation, run.writer, run.first_index))
    says_end = any(_last_kind(run) == Kind.PROCESS_END for run in {run.writer: run for run in runs}.values())
    return Tail(header, strings, tuple(runs), tuple(_open(read, header)), tuple(problems[:16]), torn, says_end)


def _last_kind(run: Run) -> int:
    kind = 0
    for kind, _, _ in _records(run.body):  # noqa: B007  # the last one is what is asked for
        pass
    return kind


def _strings(read: Read, header: FileHeader, word: int, problems: list[str]) -> Iterator[bytes]:
    count, end = unpack_word(word)
    if end > header.layout.strings_bytes or count > min(end, MAX_STRINGS):
        problems.append(f"strings: wanted them inside of {header.layout.strings_bytes} bytes, got {count} in {end}")
        return
    body = read(header.layout.strings_offset, end)
    begin = 0
    try:
        for value, stop in unpack_with_ends(body, "strings"):
            if type(value) is not str:
                raise WireError(f"strings: wanted a string at {begin}, got {type(value).__name__}")
            yield body[begin:stop]
            begin = stop
    except WireError as error:
        problems.append(str(error))


def _chunk(read: Read, header: FileHeader, number: int, stored: Mapping[int, Ranges], released: bool) -> list[Run]:
    """A tracer that lives may write at the same time: then until header and records are of one moment, or one use at least."""
    problem = WireError("it was reused again and again while it was read")
    for _ in range(ATTEMPTS):
        words = _head(read, header, number)
        try:
            runs = _chunk_of(words, read, header, number, stored, released)
        except WireError as error:
            problem = error
            if _head(read, header, number) == words:
                break
        else:
            now = _head(read, header, number)
            if (now[STATE_WORD], now[SERIAL_WORD]) == (words[STATE_WORD], words[SERIAL_WORD]):
                return runs
    raise problem


def _is_torn(read: Read, header: FileHeader, number: int) -> bool:
    """Behind the last record of a chunk in use is a zero, until the next one is begun."""
    words = _head(read, header, number)
    state, end = words[STATE_WORD] >> 32, words[PUBLISHED_WORD] & 0xFFFF_FFFF
    if state != ChunkState.OWNED or not CHUNK_HEADER_BYTES <= end < header.layout.chunk_bytes(number):
        return False
    return read(header.layout.chunk_offset(number) + end, 1) not in (b"\0", b"")


def _head(read: Read, header: FileHeader, number: int) -> tuple[int, ...]:
    head = read(header.layout.chunk_offset(number), CHUNK_HEADER_BYTES)
    if len(head) < CHUNK_HEADER_BYTES:
        raise WireError(f"wanted a header of {CHUNK_HEADER_BYTES} bytes, got {len(head)}")
    return _HEAD.unpack(head)


def _chunk_of(
    words: tuple[int, ...], read: Read, header: FileHeader, number: int, stored: Mapping[int, Ranges], released: bool
) -> list[Run]:
    offset, size = header.layout.chunk_offset(number), header.layout.chunk_bytes(number)
    state, writer = unpack_word(words[STATE_WORD])
    # a free chunk that still names its writer was acknowledged, and not used since
    held = state in (ChunkState.OWNED, ChunkState.SEALED) or (released and state == ChunkState.FREE and writer)
    if not held or words[SERIAL_WORD] == 0:
        return []
    count, end = unpack_word(words[PUBLISHED_WORD])
    first, base_ns, last_ns = words[FIRST_INDEX_WORD], words[BASE_WORD], words[LAST_WORDS + (count & 1)]
    if count == 0:
        return []
    if not CHUNK_HEADER_BYTES < end <= size or count > end or first >> 62 or max(base_ns, last_ns) > MAX_TIME_NS:
        raise WireError(f"wanted {count} records inside of {size} bytes, got an end at {end}")
    missing = stored.get(writer, Ranges()).gaps(first, first + count)
    if not missing:
        return []
    body = read(offset + CHUNK_HEADER_BYTES, end - CHUNK_HEADER_BYTES)
    if len(body) < end - CHUNK_HEADER_BYTES:
        raise WireError(f"wanted {end - CHUNK_HEADER_BYTES} bytes, got {len(body)}")
    return [
        run.part(max(start, run.first_index), min(end, run.end))
        for run in _runs(words, writer, first, count, base_ns, last_ns, body)
        for start, end in missing
        if start < run.end and end > run.first_index
    ]


def _runs(
    words: tuple[int, ...], writer: int, first: int, count: int, base_ns: int, last_ns: int, body: bytes
) -> Iterator[Run]:
    """Before and behind the cut."""
    generation = words[CUT_GENERATION_WORD]
    cut, cut_end = unpack_word(words[CUT_WORD])
    cut_at, cut_ns = cut_end - CHUNK_HEADER_BYTES, words[CUT_BASE_WORD]
    if not 0 <= cut <= count or not 0 <= cut_at <= len(body) or generation >> 62 or not base_ns <= cut_ns <= last_ns:
        raise WireError(f"wanted a cut inside of {count} records, got {cut} at {cut_end}")
    if cut:
        yield Run(max(generation - 1, 0), writer, first, cut, base_ns, cut_ns, body[:cut_at])
    if cut < count:
        base_ns = cut_ns if cut else base_ns
        yield Run(generation, writer, first + cut, count - cut, base_ns, last_ns, body[cut_at:])


def _records(body: bytes) -> Iterator[tuple[int, int, int]]:
    """``(its kind, the offset behind it, its delta)`` of each record. Raises WireError."""
    values = unpack_with_ends(body, "records")
    for kind, _ in values:
        spec = KINDS.get(kind) if type(kind) is int else None
        if spec is None:
            raise WireError(f"records: wanted a kind of this version, got {kind!r:.40}")
        delta, stop = next(values, (None, 0))
        if type(delta) is not int or not 0 <= delta <= MAX_TIME_NS:
            raise WireError(f"records: wanted the time since the one before, got {delta!r:.40}")
        for field_ in spec.fields:
            _, stop = next(values, (None, -1))
            if stop < 0:
                raise WireError(f"records: wanted {field_} of {spec.name}, got the end")
        yield spec.kind, stop, delta


def _open(read: Read, header: FileHeader) -> Iterator[OpenItem]:
    table = read(header.layout.open_offset, header.layout.open_entries * OPEN_ENTRY_BYTES)
    for at in range(0, len(table) - OPEN_ENTRY_BYTES + 1, OPEN_ENTRY_BYTES):
        kind, writer, begin_ns, end_ns, name, track, op, parent, trace = OPEN_ENTRY.unpack_from(table, at)
        if kind in (Kind.SPAN_BEGIN, Kind.OPERATION_BEGIN) and end_ns == 0 and 0 < begin_ns <= MAX_TIME_NS:
            yield OpenItem(kind, writer, track, begin_ns, name or None, op, parent, trace if any(trace) else b"")
