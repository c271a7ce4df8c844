"""The buffer in pure Python: the reference, and the fallback where nothing can be compiled.

Two sides: the program's threads append by their `Writer` and never wait for more than the few microseconds that the other side holds the lock;
the agent's one thread cuts, takes slices, and releases. A thread inside the lock has ``inside`` set in its thread-local, so that a record
that a signal handler or the collector makes there is dropped instead of waiting for itself.
"""

from __future__ import annotations

import os
import weakref
from _thread import _local, allocate_lock
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count as counter
from time import monotonic_ns as clock
from typing import Any, Final

from frzmq.tracer._writer_py import NOTICE, At, Entry, Track, Writer
from frzmq.tracer.attributes import MAX_NAME_BYTES, ZERO, pack_text, pack_uint
from frzmq.tracer.memory import make_memory
from frzmq.tracer.places import task_label, thread_name
from frzmq.tracer.slices import Cut, Slice, Totals
from frzmq.wire.batch import OpenItem, WriterEnd, WriterInfo
from frzmq.wire.chunk import (
    BASE_WORD,
    CHUNK_HEADER_BYTES,
    CUT_BASE_WORD,
    CUT_GENERATION_WORD,
    CUT_WORD,
    FIRST_INDEX_WORD,
    GENERATION_WORD,
    LARGE_CHUNK_BYTES,
    LAST_WORDS,
    OPEN_END_WORD,
    OPEN_ENTRY,
    OPEN_ENTRY_BYTES,
    OPEN_OMITTED_WORD,
    PUBLISHED_WORD,
    SERIAL_WORD,
    SMALL_CHUNK_BYTES,
    STATE_WORD,
    STRINGS_WORD,
    ChunkState,
    pack_word,
    unpack_word,
)
from frzmq.wire.kinds import Kind

__all__ = ["Buffer", "Cut", "Slice", "Totals"]

MAX_STRINGS_BYTES: Final = 512 << 10
"""Of the string table: it is shipped in one batch."""
_EMPTY_WORD: Final = pack_word(0, CHUNK_HEADER_BYTES)
_NO_TRACE: Final = bytes(16)
_NO_MOMENTS: Final[dict[int, int]] = {}
_NEVER_USED_NS: Final = 1
"""The end of an entry that was never taken: long ago."""


class Chunk:
    """A chunk of the pool, with what the two sides know of its present use. It changes under the lock only."""

    __slots__ = (
        "base_ns",
        "first_index",
        "index",
        "mem",
        "serial",
        "state",
        "taken",
        "taken_ns",
        "told_final",
        "words",
        "writer",
    )

    def __init__(self, index: int, mem: memoryview) -> None:
        self.index = index
        self.mem = mem
        self.words = mem.cast("Q")
        self.state = ChunkState.FREE
        self.serial = 0
        self.writer: Writer | None = None
        self.first_index = 0
        self.base_ns = 0
        self.taken = _EMPTY_WORD
        """Up to here the agent has it: a published word of the past."""
        self.taken_ns = 0
        """The time of the last record before ``taken``."""
        self.told_final = False

    def published(self) -> tuple[int, int]:
        """The published word and the time of its last record, of one moment."""
        words = self.words
        while True:
            word = words[PUBLISHED_WORD]
            last_ns = words[LAST_WORDS + (word >> 32 & 1)] if word >> 32 else self.base_ns
            if words[PUBLISHED_WORD] == word:
                return word, last_ns


class _ThreadEnd:
    """Kept in the thread-local: goes when the thread ends."""

    __slots__ = ("writer",)

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def __del__(self) -> None:
        try:
            self.writer.buffer.end_thread(self.writer)
        except Exception:  # noqa: BLE001  # nothing may come out of a finalizer of ours; the interpreter may be half gone
            self.writer.dropped += 1


class Buffer:
    """A tracer's memory. ``directory``: where the shared file goes; None, or where it cannot be made: private memory."""

    def __init__(self, uuid: bytes, incarnation: int, directory: str | None, size_bytes: int) -> None:
        self.kind = "py"
        self.path, self._map, self.layout = make_memory(uuid, incarnation, directory, size_bytes)
        self.size_bytes = len(self._map)
        self.errors = 0
        """Faults of this code, none of which reached the program."""
        self.generation = 0
        self.local: Any = _local()
        """``writer``: the thread's; ``inside``: it has the lock."""
        self._lock = allocate_lock()
        self._view = memoryview(self._map)
        self._words = self._view.cast("Q")
        layout = self.layout
        self._init_strings()
        self._init_open_table()
        self._chunks = [
            Chunk(i, self._view[layout.chunk_offset(i) : layout.chunk_offset(i) + layout.chunk_bytes(i)])
            for i in range(layout.chunk_count)
        ]
        self._free_small = deque(self._chunks[: layout.small_chunks])
        self._free_large = deque(self._chunks[layout.small_chunks :])
        self._sealed: deque[Chunk] = deque()
        self.serial = 0
        self._writers: dict[int, Writer] = {}
        self._writer_ids = counter(1)
        self._past = Totals(0, 0, 0)
        self._overwritten = 0
        self._refused = 0
        self._pid = os.getpid()
        self._closed = False
        self._ended_inside: deque[Writer] = deque()
        self.tracks: dict[int, Track] = {}
        self._track_ids = counter(1)

    # --- the program's side

    def writer(self) -> Writer:
        """This thread's, made at first use. Inside the lock, or while it is being made: one that drops everything."""
        local = self.local
        try:
            found: Writer = local.writer
        except AttributeError:
            pass
        else:
            return found
        if getattr(local, "inside", False):
            return self._refusing
        local.inside = True
        try:
            writer = Writer(self, next(self._writer_ids), thread_name())
            with self._lock:
                self._writers[writer.id] = writer
            local.writer = writer
            local.end = _ThreadEnd(writer)
        finally:
            local.inside = False
        if writer.id == 1:
            writer.append(Kind.PROCESS_BEGIN, pack_uint(self._pid) + pack_uint(os.getppid()))
        writer.append(Kind.THREAD_BEGIN, self.intern(writer.name) + pack_uint(writer.native_id))
        return writer

    @property
    def _refusing(self) -> Writer:
        writer = Writer(self, 0, "")
        writer.busy = True
        self._refused += 1
        return writer

    def end_thread(self, writer: Writer) -> None:
        """The thread has ended: its chunk returns, its counts stay until the next cut has reported them."""
        # a forked child clears the thread-locals of the parent's other threads: nothing of that may reach the shared memory
        if writer.ended or self._closed or os.getpid() != self._pid:
            return
        if getattr(self.local, "inside", False):
            self._ended_inside.append(writer)
            return
        # for good: nothing more, also not from what else the thread tears down
        writer.busy = True
        if writer.track or writer.op_id:
            writer.put(Kind.CONTEXT, ZERO + self.intern("") + ZERO)
        writer.put(Kind.THREAD_END, b"")
        now = clock()
        while writer.thread_track.stack:
            self.free_entry(writer.thread_track.stack.pop(), now)
        with self._exclusive():
            self._seal(writer)
            writer.ended = True

    def take(self, writer: Writer, need: int) -> bool:
        """Seals the writer's chunk and gives it another one with room for ``need`` bytes. False: none is free, and none may be overwritten."""
        if need > LARGE_CHUNK_BYTES - CHUNK_HEADER_BYTES or getattr(self.local, "inside", False):
            return False
        with self._exclusive():
            self._seal(writer)
            chunk = self._find_chunk(writer, need + CHUNK_HEADER_BYTES)
            if chunk is None:
                return False
            self.serial += 1
            chunk.serial = self.serial
            chunk.state = ChunkState.OWNED
            chunk.writer = writer
            chunk.first_index = writer.index
            chunk.base_ns = chunk.taken_ns = writer.last
            chunk.taken = _EMPTY_WORD
            chunk.told_final = False
            words = chunk.words
            words[STATE_WORD] = 0
            words[PUBLISHED_WORD] = _EMPTY_WORD
            words[BASE_WORD] = words[LAST_WORDS] = words[LAST_WORDS + 1] = words[CUT_BASE_WORD] = writer.last
            words[FIRST_INDEX_WORD] = writer.index
            words[CUT_WORD] = _EMPTY_WORD
            words[CUT_GENERATION_WORD] = max(writer.cut[0], 0)
            words[SERIAL_WORD] = self.serial
            chunk.mem[CHUNK_HEADER_BYTES] = 0
            words[STATE_WORD] = pack_word(ChunkState.OWNED, writer.id)
            writer.use(chunk)
        return True

    def _find_chunk(self, writer: Writer, size_bytes: int) -> Chunk | None:
        pools = [self._free_large, self._free_small] if writer.index else [self._free_small, self._free_large]
        for pool in pools:
            if pool and len(pool[0].mem) >= size_bytes:
                return pool.popleft()
        for chunk in self._sealed:
            if len(chunk.mem) >= size_bytes:
                self._overwrite(chunk)
                return chunk
        return None

    def _overwrite(self, chunk: Chunk) -> None:
        self._sealed.remove(chunk)
        first = chunk.first_index + (chunk.taken >> 32)
        end = chunk.first_index + (chunk.words[PUBLISHED_WORD] >> 32)
        if first < end and chunk.writer is not None:
            chunk.writer.lost.append((first, end))
            self._overwritten += end - first

    def _seal(self, writer: Writer) -> None:
        chunk = writer.chunk
        if chunk is None:
            return
        writer.index = chunk.first_index + (chunk.words[PUBLISHED_WORD] >> 32)
        writer.unuse()
        if chunk.words[PUBLISHED_WORD] == _EMPTY_WORD:
            self._set_free(chunk)
            return
        chunk.state = ChunkState.SEALED
        chunk.words[STATE_WORD] = pack_word(ChunkState.SEALED, writer.id)
        self._sealed.append(chunk)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """The lock, for a thread that is not inside it."""
        local = self.local
        local.inside = True
        try:
            with self._lock:
                yield
        finally:
            local.inside = False
        while self._ended_inside:
            self.end_thread(self._ended_inside.popleft())

    def track_of(self, task: Any) -> Track:
        """The track of an asyncio task; forgotten, and its entries freed, when the task goes."""
        key = id(task)
        track = self.tracks.get(key)
        if track is None or track.ref() is not task:
            track = Track(next(self._track_ids) & 0xFFFF_FFFF, task_label(task))

            def gone(_: object, key: int = key, track: Track = track) -> None:
                if self.tracks.get(key) is track:
                    del self.tracks[key]
                now = clock()
                while track.stack:
                    self.free_entry(track.stack.pop(), now)

            track.ref = weakref.ref(task, gone)
            self.tracks[key] = track
        return track

    # --- strings

    def _init_strings(self) -> None:
        offset = self.layout.strings_offset
        self._strings = self._view[offset : offset + min(self.layout.strings_bytes, MAX_STRINGS_BYTES)]
        self._string_refs: dict[str, bytes] = {}
        self._strings_word = 0
        self._strings_taken = 0

    def intern(self, text: str) -> bytes:
        """A packed reference to an exact str: its id in the string table, or itself when that is full."""
        ref = self._string_refs.get(text)
        if ref is not None:
            return ref
        data = pack_text(text, MAX_NAME_BYTES)
        if not text:
            return data
        count, end = unpack_word(self._strings_word)
        if end + len(data) > len(self._strings) or getattr(self.local, "inside", False):
            return data
        with self._exclusive():
            ref = self._string_refs.get(text)
            if ref is not None:
                return ref
            count, end = unpack_word(self._strings_word)
            if end + len(data) > len(self._strings):
                return data
            self._strings[end : end + len(data)] = data
            self._words[STRINGS_WORD] = self._strings_word = pack_word(count + 1, end + len(data))
            ref = self._string_refs[text] = pack_uint(count + 1)
        return ref

    def new_strings(self) -> tuple[int, int, bytes] | None:
        """``(first id, count, a run of msgpack str)``: what the table gained since the last call."""
        count, start = unpack_word(self._strings_taken)
        self._strings_taken = word = self._strings_word
        end_count, end = unpack_word(word)
        if count == end_count:
            return None
        return count + 1, end_count - count, bytes(self._strings[start:end])

    def strings_from_start(self) -> tuple[int, int, bytes] | None:
        """The whole table."""
        self._strings_taken = 0
        return self.new_strings()

    # --- the open table

    def _init_open_table(self) -> None:
        offset = self.layout.open_offset
        self.table = self._view[offset : offset + self.layout.open_entries * OPEN_ENTRY_BYTES]
        self.table_words = self.table.cast("Q")
        step = OPEN_ENTRY_BYTES // 8
        for n in range(self.layout.open_entries):
            self.table_words[n * step + OPEN_END_WORD] = _NEVER_USED_NS
        self._entries = [Entry(n * OPEN_ENTRY_BYTES, n * step + OPEN_END_WORD) for n in range(self.layout.open_entries)]
        self.free_entries = deque(self._entries)
        self._omitted = 0
        self.spans_are_slow = False

    def open(
        self, kind: int, writer: int, begin_ns: int, name: str, track: int, op: int, parent: int, trace: bytes
    ) -> Entry:
        """Takes an entry; beyond the table one that is only counted. `free_entry` gives it back."""
        try:
            entry = self.free_entries.popleft()
        except IndexError:
            entry = Entry(-1, -1)
            self._words[OPEN_OMITTED_WORD] = self._omitted = self._omitted + 1
        if entry.offset >= 0:
            ref = self.name_id(name)
            entry.name = None if ref else name
            OPEN_ENTRY.pack_into(
                self.table, entry.offset, kind, writer, begin_ns, 0, ref, track, op, parent, trace or _NO_TRACE
            )
        return entry

    @property
    def free_chunks(self) -> int:
        return len(self._free_small) + len(self._free_large)

    def slow_spans(self, slow: bool) -> None:
        """Whether the spans of all threads open and close by calls of this class, or by themselves."""
        with self._exclusive():
            self.spans_are_slow = slow
            for writer in self._writers.values():
                writer.free = () if slow else self.free_entries

    def rename(self, entry: Entry, name: str) -> None:
        """What ``entry`` stands for is called ``name`` from now on."""
        if entry.offset >= 0:
            # name and track are the two halves of one word
            word = entry.end_word + 1
            ref = self.name_id(name)
            entry.name = None if ref else name
            self.table_words[word] = self.table_words[word] >> 32 << 32 | ref

    def free_entry(self, entry: Entry, end_ns: int) -> None:
        entry.owner = None
        if entry.offset < 0:
            self._words[OPEN_OMITTED_WORD] = self._omitted = self._omitted - 1
            return
        self.table_words[entry.end_word] = end_ns
        self.free_entries.append(entry)

    def name_id(self, name: str) -> int:
        """The string's id in the table, 0 when it is not in there."""
        ref = self.intern(name)
        if ref[0] < 0x80:
            return ref[0]
        return int.from_bytes(ref[1:], "big") if ref[0] in (0xCE, 0xCF) else 0

    def open_items(self, at_ns: int, moments: dict[int, int] = _NO_MOMENTS, /) -> tuple[list[OpenItem], int]:
        """What was open at ``at_ns``, of a writer in ``moments`` at that moment, and how many more are open beyond the table."""
        free = self.free_entries
        first_ns = min(at_ns, *moments.values()) if moments else at_ns
        if len(free) == len(self._entries) and self.table_words[free[-1].end_word] < first_ns:
            # none is open, and the one freed last was so before
            return [], self._omitted
        # of 4096 entries a few are open: to unpack all took 0.7 ms of each cut, to look at their ends takes 0.1
        ends = self.table_words[OPEN_END_WORD :: OPEN_ENTRY_BYTES // 8].tolist()
        items = []
        for n in [n for n, end_ns in enumerate(ends) if end_ns == 0 or end_ns >= first_ns]:
            row = OPEN_ENTRY.unpack_from(self.table, n * OPEN_ENTRY_BYTES)
            kind, writer, begin_ns, end_ns, name_id, track, op, parent, trace = row
            moment_ns = moments.get(writer, at_ns)
            if begin_ns < moment_ns and (end_ns == 0 or end_ns >= moment_ns):
                entry = self._entries[n]
                name = name_id or getattr(entry.owner, "name", None) or entry.name
                items.append(
                    OpenItem(kind, writer, track, begin_ns, name, op, parent, trace if trace != _NO_TRACE else b"")
                )
        return items, self._omitted

    # --- the agent's side, one thread

    def cut(self, generation: int) -> Cut:
        """Opens ``generation``: from here on `slices` is of it. Returns the rest of the one before."""
        self.generation = generation
        self._words[GENERATION_WORD] = generation
        writers = list(self._writers.values())
        for writer in writers:
            writer.op = NOTICE
        cuts = {writer.id: self._cut_of(writer, generation) for writer in writers}
        slices = []
        for chunk, serial in self._in_use():
            at = cuts.get(chunk.writer.id) if chunk.writer is not None else None
            if at is None or serial > at.serial:
                continue
            piece = self._take_slice(chunk, serial, at if serial == at.serial else None)
            if piece is not None:
                slices.append(piece)
        with self._exclusive():
            ends = [end for writer in writers if (end := self._end_of(writer, cuts[writer.id])) is not None]
        return Cut(slices, tuple(ends))

    def _cut_of(self, writer: Writer, generation: int) -> At:
        """Where the writer's new generation begins: where it noticed by itself, else at what it has published."""
        with self._exclusive():
            chunk = writer.chunk
            if chunk is None:
                at = At(writer.index, self.serial, 1 << 64, 0)
            else:
                word, last_ns = chunk.published()
                at = At(chunk.first_index + (word >> 32), chunk.serial, word, last_ns)
            # after the read above: a cut that the writer makes from now on is behind it
            noticed, own = writer.cut
            return own if noticed == generation else at

    def _end_of(self, writer: Writer, at: At) -> WriterEnd | None:
        first, dropped_before = writer.reported
        dropped = writer.dropped
        mine = [(start, min(end, at.index)) for start, end in writer.lost if start < at.index]
        writer.lost = [(max(start, at.index), end) for start, end in writer.lost if end > at.index]
        writer.reported = (at.index, dropped)
        if writer.ended and at.index == writer.index:
            del self._writers[writer.id]
            past = self._past
            self._past = Totals(past.recorded + writer.index, past.dropped + dropped, past.overwritten)
        if first == at.index and dropped == dropped_before:
            return None
        return WriterEnd(writer.id, first, at.index, dropped, tuple(mine))

    def slices(self, max_bytes: int) -> list[Slice]:
        """What was published of this generation since the last call: about ``max_bytes``, at least one slice if there is any."""
        pieces: list[Slice] = []
        size = 0
        for chunk, serial in self._in_use():
            if size >= max_bytes:
                break
            piece = self._take_slice(chunk, serial, None)
            if piece is not None:
                pieces.append(piece)
                size += piece.size
        return pieces

    def _in_use(self) -> list[tuple[Chunk, int]]:
        """Sealed chunks, oldest first, then owned ones."""
        with self._exclusive():
            chunks = list(self._sealed)
            chunks += [writer.chunk for writer in self._writers.values() if writer.chunk is not None]
            return [(chunk, chunk.serial) for chunk in chunks]

    def _take_slice(self, chunk: Chunk, serial: int, at: At | None) -> Slice | None:
        with self._exclusive():
            if chunk.serial != serial or chunk.told_final or chunk.state is ChunkState.FREE or chunk.writer is None:
                return None
            word, last_ns = chunk.published()
            final = chunk.state is ChunkState.SEALED
            if at is not None and at.word < word:
                word, last_ns, final = at.word, at.last_ns, False
            taken_count, start = unpack_word(chunk.taken)
            count, end = unpack_word(word)
            if end <= start and not final:
                return None
            base_ns = chunk.taken_ns
            chunk.taken, chunk.taken_ns, chunk.told_final = word, last_ns, final
            body = bytes(chunk.mem[start:end])
            first_index = chunk.first_index + taken_count
            return Slice(
                chunk.index,
                serial,
                start,
                end - start,
                chunk.writer.id,
                first_index,
                count - taken_count,
                base_ns,
                last_ns,
                body,
                final,
            )

    def read(self, piece: Slice) -> bytes | None:
        """The bytes again; None when the chunk is in another use."""
        chunk = self._chunks[piece.chunk]
        with self._exclusive():
            if chunk.serial != piece.serial:
                return None
            return bytes(chunk.mem[piece.offset : piece.offset + piece.size])

    def release(self, chunk: int, serial: int) -> None:
        """All of this use of the chunk is acknowledged: it may be used again. Does nothing when it already is in another use."""
        found = self._chunks[chunk]
        with self._exclusive():
            if found.serial == serial and found.state is ChunkState.SEALED and found.told_final:
                self._sealed.remove(found)
                self._set_free(found)

    def _set_free(self, chunk: Chunk) -> None:
        chunk.state = ChunkState.FREE
        # with the writer: until it is used again it still says what it held
        chunk.words[STATE_WORD] = pack_word(ChunkState.FREE, chunk.writer.id if chunk.writer is not None else 0)
        (self._free_small if len(chunk.mem) == SMALL_CHUNK_BYTES else self._free_large).append(chunk)

    def writer_infos(self) -> list[WriterInfo]:
        return [WriterInfo(writer.id, writer.name, writer.native_id) for writer in list(self._writers.values())]

    def totals(self) -> Totals:
        writers = list(self._writers.values())
        recorded = self._past.recorded + sum(writer.next_index for writer in writers)
        dropped = self._past.dropped + self._refused + sum(writer.dropped for writer in writers)
        return Totals(recorded, dropped, self._overwritten)

    def close(self) -> None:
        """Removes the file. The mapping goes with the last thread that may still be in the middle of an append."""
        if not self._closed and self.path is not None:
            with suppress(OSError):
                os.unlink(self.path)
        self._closed = True

    def abandon(self) -> None:
        """In a forked child: this is the parent's."""
        self._closed = True
