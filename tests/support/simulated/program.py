"""The program inside of a simulated process: threads that record, by the real writers of the real buffer, and the truth about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

from frzmq.tracer._buffer_py import Buffer, Chunk
from frzmq.tracer._writer_py import Entry, Writer
from frzmq.tracer.attributes import NIL, pack_attributes
from frzmq.wire.kinds import Kind
from support.simulated.world import World

BUFFER_BYTES = 256 << 10
BULK_BYTES = 1000
MAX_DEPTH = 2


@dataclass(frozen=True, slots=True)
class Made:
    """A record that the program made; None in its place: one that a writer made by itself."""

    kind: str
    name: str
    number: int
    time_ns: int


@dataclass(slots=True)
class Truth:
    """All of one writer, by index."""

    records: list[Made | None] = field(default_factory=list)
    overwritten: set[int] = field(default_factory=set)
    """In chunks that were given to another use, sent before or not."""


class TruthBuffer(Buffer):
    """The real one, which also says what it forgets."""

    def __init__(self, uuid: bytes) -> None:
        self.truth: dict[int, Truth] = {}
        super().__init__(uuid, 1, None, BUFFER_BYTES)

    def _overwrite(self, chunk: Chunk) -> None:
        assert chunk.writer is not None
        end = chunk.first_index + (chunk.words[4] >> 32)
        self.of(chunk.writer.id).overwritten.update(range(chunk.first_index, end))
        super()._overwrite(chunk)

    def tear(self, random: Random) -> int:
        """As a death in the middle of appends leaves it: of so many records the first bytes are there."""
        torn = 0
        for writer in self._writers.values():
            chunk = writer.chunk
            if chunk is not None and writer.pos < len(chunk.mem) and random.random() < 0.3:
                chunk.mem[writer.pos] = Kind.EVENT
                torn += 1
        return torn

    def of(self, writer: int) -> Truth:
        return self.truth.setdefault(writer, Truth())


@dataclass(slots=True)
class Thread:
    local: Any = field(default_factory=SimpleNamespace)
    """Its thread-local of the buffer."""
    spans: list[tuple[str, Entry | None]] = field(default_factory=list)
    operations: list[tuple[int, Entry | None]] = field(default_factory=list)


class Program:
    """``bulk``: how likely a record is a large one."""

    def __init__(self, world: World, buffer: TruthBuffer, skew_ns: int, *, bulk: float, names: int) -> None:
        self._world, self._buffer, self._skew_ns = world, buffer, skew_ns
        self._bulk, self._names = bulk, names
        self._threads = [Thread()]
        self._number = 0
        self.recording = True

    def counts(self) -> dict[int, int]:
        """Records by writer."""
        return {writer: len(truth.records) for writer, truth in self._buffer.truth.items()}

    def step(self, records: int) -> None:
        """About so many records of one thread."""
        world = self._world
        thread = world.random.choice(self._threads)
        if not self.recording:
            return
        before_skew_ns, world.skew_ns = world.skew_ns, self._skew_ns
        before_local, self._buffer.local = self._buffer.local, thread.local
        for _ in range(records):
            self._one(thread)
        self._buffer.local = before_local
        if len(self._threads) > 1 and world.chance(0.05):
            self._end(thread)
        elif len(self._threads) < 4 and world.chance(0.1):
            self._threads.append(Thread())
        world.skew_ns = before_skew_ns

    def storm(self, records: int) -> None:
        """So many large ones."""
        before, self._bulk = self._bulk, 1.0
        self.step(records)
        self._bulk = before

    def _one(self, thread: Thread) -> None:
        drawn = self._world.random.random()
        name = f"n{self._world.random.randrange(self._names)}"
        if drawn < 0.1 and len(thread.spans) < MAX_DEPTH:
            self._begin_span(thread, name)
        elif drawn < 0.22 and thread.spans:
            self._end_span(thread)
        elif drawn < 0.3 and len(thread.operations) < MAX_DEPTH:
            self._begin_operation(thread, name)
        elif drawn < 0.4 and thread.operations:
            number, entry = thread.operations.pop()
            if entry is not None:
                self._make(thread, "operation_end", "", number, lambda w: w.end_operation(entry, number, ""))
        else:
            self._event(thread, name)

    def _event(self, thread: Thread, name: str) -> None:
        self._number += 1
        attributes: dict[str, object] = {"n": self._number}
        if self._world.chance(self._bulk):
            attributes["bulk"] = "x" * BULK_BYTES
        intern = self._buffer.intern
        tail = intern(name) + pack_attributes(attributes, intern)
        self._make(thread, "event", name, self._number, lambda w: w.append(Kind.EVENT, tail))

    def _begin_span(self, thread: Thread, name: str) -> None:
        buffer, tail = self._buffer, self._buffer.intern(name) + NIL
        entry: Entry | None = None

        def begin(w: Writer) -> None:
            nonlocal entry
            if w.append(Kind.SPAN_BEGIN, tail):
                entry = buffer.open(Kind.SPAN_BEGIN, w.id, w.last, name, w.track, w.op_id, 0, b"")

        self._make(thread, "span_begin", name, 0, begin)
        thread.spans.append((name, entry))

    def _end_span(self, thread: Thread) -> None:
        name, entry = thread.spans.pop()
        tail = self._buffer.intern(name) + NIL

        def end(w: Writer) -> None:
            if w.append(Kind.SPAN_END, tail) and entry is not None:
                self._buffer.free_entry(entry, w.last)

        self._make(thread, "span_end", name, 0, end)

    def _begin_operation(self, thread: Thread, name: str) -> None:
        self._number += 1
        number = self._number
        entry: Entry | None = None

        def begin(w: Writer) -> None:
            nonlocal entry
            entry = w.begin_operation(name, number, 0, b"t" * 16, 0, {})

        self._make(thread, "operation_begin", name, number, begin)
        thread.operations.append((number, entry))

    def _make(self, thread: Thread, kind: str, name: str, number: int, make: Callable[[Writer], object]) -> None:
        writer = self._buffer.writer()
        truth = self._buffer.of(writer.id).records
        dropped = writer.dropped
        make(writer)
        automatic = writer.next_index - len(truth)
        if writer.dropped == dropped:
            truth += [None] * (automatic - 1)
            truth.append(Made(kind, name, number, writer.last))
        else:
            truth += [None] * automatic

    def _end(self, thread: Thread) -> None:
        self._threads.remove(thread)
        writer = getattr(thread.local, "writer", None)
        if writer is not None:
            self._buffer.local = SimpleNamespace()
            self._buffer.end_thread(writer)
            truth = self._buffer.of(writer.id).records
            truth += [None] * (writer.next_index - len(truth))
