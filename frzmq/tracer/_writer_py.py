"""One thread's stream of records, in pure Python: the program's side of the buffer.

`frzmq.tracer.api` has the begin and end of a span and the plain event written out once more against the slots of `Writer`, because a call costs
as much as half of an append. All of them keep to this order, so that a death at any point leaves whole records:
the record's bytes, its time in a LAST_WORDS slot, the PUBLISHED_WORD, and only then the attributes here, which `recover` reads back from there.

A re-entrant append (a signal handler, ``__del__``, a collector's callback in the middle of one) meets ``busy`` and is dropped.
"""

from __future__ import annotations

import struct
import sys
from _thread import get_native_id
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns as clock
from typing import TYPE_CHECKING, Any, Final

from frzmq.tracer.attributes import NIL, pack_attributes, pack_bytes, pack_text, pack_uint
from frzmq.tracer.context import OperationState, current
from frzmq.tracer.faults import is_fault
from frzmq.tracer.places import AUTOMATIC_NAME, install_asyncio_hook
from frzmq.wire.chunk import (
    CHUNK_HEADER_BYTES,
    CUT_BASE_WORD,
    CUT_GENERATION_WORD,
    CUT_WORD,
    LAST_WORDS,
    PUBLISHED_WORD,
)
from frzmq.wire.kinds import Kind

if TYPE_CHECKING:
    from frzmq.tracer._buffer_py import Buffer, Chunk

NOTICE: Final[Any] = object()
"""Put by the agent into `Writer.op`, where it is never equal to the current operation: the next append looks at the generation."""

_SMALL_HEAD: Final = struct.Struct(">BBI").pack_into
_LARGE_HEAD: Final = struct.Struct(">BBQ").pack_into
_EMPTY: Final = memoryview(b"")

# while asyncio is not loaded, asking for the running loop is a look into sys.modules; what it finds sends the append to `Writer.switch`
_find_asyncio: Final[Callable[[], Any]] = partial(sys.modules.get, "asyncio.tasks")


def _unknown_task(_: object) -> Any:
    return NOTICE


def _no_task() -> None:
    return None


@dataclass(frozen=True, slots=True)
class At:
    """Where a generation of one writer begins: before the record ``index``, in the use ``serial`` of a chunk at ``word``, older uses all before it."""

    index: int
    serial: int
    word: int
    last_ns: int


class Entry:
    """One entry of the open table. ``owner`` is what a matching end must bring."""

    __slots__ = ("end_word", "name", "offset", "owner")

    def __init__(self, offset: int, end_word: int) -> None:
        self.offset = offset
        self.end_word = end_word
        self.owner: Any = None
        self.name: str | None = None
        """Where it is not in the string table."""


class Track:
    """The thread itself (id 0) or an asyncio task, with the open entries of its spans, innermost last."""

    __slots__ = ("id", "label", "packed_label", "ref", "stack")

    def __init__(self, id: int, label: str, ref: Callable[[], Any] = _no_task) -> None:
        self.id = id
        self.label = label
        self.packed_label = pack_text(label) if label.startswith(AUTOMATIC_NAME) else b""
        """A name that no other task has: in each record, and not in the string table, which would be full of them."""
        self.ref = ref
        self.stack: list[Entry] = []


class Writer:
    __slots__ = (
        "buffer", "busy", "chunk", "current_task", "cut", "dropped", "ended", "free", "give_entry", "id", "index", "last", "last_word", "lost",
        "mem", "name", "native_id", "op", "op_id", "pos", "reported", "running_loop", "span_mark", "stack", "table", "table_words", "take_entry",
        "task_ref", "thread_track", "track", "track_high", "word", "words",
    )  # fmt: skip

    def __init__(self, buffer: Buffer, id: int, name: str) -> None:
        self.buffer = buffer
        self.id = id
        self.name = name
        self.native_id = get_native_id()
        self.busy = False
        self.ended = False
        self.dropped = 0
        """Re-entrant, full or oversized; what is dropped has no index."""
        self.index = 0
        """Of the first record of the chunk in use."""
        self.lost: list[tuple[int, int]] = []
        """Ranges overwritten before they were taken, not yet reported."""
        self.reported = (0, 0)
        """Next index and drops, as of the last end of a generation."""
        self.chunk: Chunk | None = None
        self.mem = self.words = _EMPTY
        self.pos = 0
        self.word = 0
        self.last_word = LAST_WORDS
        self.last = clock()
        self.cut: tuple[int, At] = (-1, At(0, 0, 0, 0))
        """The generation noticed last, and where it begins; none yet, so that the first append notices one."""
        self.op: OperationState | None = NOTICE
        self.op_id = 0
        self.running_loop = _find_asyncio
        self.current_task: Callable[[Any], Any] = _unknown_task
        self.task_ref: Callable[[], Any] = _no_task
        self.thread_track = Track(0, "")
        self.track = 0
        self.track_high = 0
        self.stack = self.thread_track.stack
        self.span_mark = int(Kind.SPAN_BEGIN) | id << 32
        self.free: deque[Entry] | tuple[()] = () if buffer.spans_are_slow else buffer.free_entries
        """Empty: a span is opened and closed the slow way."""
        self.take_entry = buffer.free_entries.popleft
        self.give_entry = buffer.free_entries.append
        self.table = buffer.table
        self.table_words = buffer.table_words

    def append(self, kind: int, tail: bytes) -> bool:
        """One record, now; ``tail``: its packed args. False when it was dropped."""
        if self.busy:
            self.dropped += 1
            return False
        self.busy = True
        try:
            self.look()
            return self.put(kind, tail)
        except BaseException as error:
            if not self.recover(error):
                raise
            self.dropped += 1
            return False
        finally:
            self.busy = False

    def begin_operation(
        self, name: str, id: int, parent: int, trace: bytes, remote: int, attributes: Mapping[str, object]
    ) -> Entry | None:
        """Its record, and its entry in the open table; None when the record was dropped."""
        intern = self.buffer.intern
        head = intern(name) + pack_uint(id) + pack_uint(parent) + pack_bytes(trace) + pack_uint(remote)
        if not self.append(Kind.OPERATION_BEGIN, head + pack_attributes(attributes, intern)):
            return None
        return self.buffer.open(Kind.OPERATION_BEGIN, self.id, self.last, name, self.track, id, parent, trace)

    def end_operation(self, entry: Entry, id: int, error: str) -> None:
        self.append(Kind.OPERATION_END, pack_uint(id) + (self.buffer.intern(error) if error else NIL))
        self.buffer.free_entry(entry, self.last)

    def look(self) -> None:
        """Whether the task or the operation changed, or the agent wants to be noticed; while busy."""
        loop = self.running_loop()
        if current.get() is not self.op or (
            self.track if loop is None else self.task_ref() is not self.current_task(loop)
        ):
            self.switch()

    def put(self, kind: int, tail: bytes) -> bool:
        """The record as it is, while busy."""
        size = len(tail) + 6
        # 4 more: a delta that needs 64 bits
        if self.pos + size + 4 > len(self.mem) and not self.buffer.take(self, size + 4):
            self.dropped += 1
            return False
        now = clock()
        delta = now - self.last
        pos = self.pos
        if delta < 1 << 32:
            _SMALL_HEAD(self.mem, pos, kind, 0xCE, delta)
            self.mem[pos + 6 : pos + size] = tail
        else:
            size += 4
            _LARGE_HEAD(self.mem, pos, kind, 0xCF, delta)
            self.mem[pos + 10 : pos + size] = tail
        words = self.words
        words[self.last_word] = now
        words[PUBLISHED_WORD] = self.word = self.word + (1 << 32 | size)
        self.last = now
        self.pos = pos + size
        self.last_word ^= 3
        return True

    def recover(self, error: BaseException) -> bool:
        """After ``error`` was raised in an append. True: a fault of this code, now counted. False: raise it again, for what a signal handler
        of the program raises belongs to the program."""
        if self.chunk is not None:
            self.word = self.words[PUBLISHED_WORD]
            count, self.pos = self.word >> 32, self.word & 0xFFFF_FFFF
            self.last = self.words[LAST_WORDS + (count & 1)]
            self.last_word = LAST_WORDS + (~count & 1)
        self.op = NOTICE
        if not is_fault(error):
            return False
        self.buffer.errors += 1
        return True

    def switch(self) -> None:
        """Says in a CONTEXT record whose records follow, and notices a new generation; while busy."""
        op = current.get()
        track = self.thread_track
        loop = self.running_loop()
        if loop is not None and self.running_loop is _find_asyncio:
            loop = self._found_asyncio(loop)
        if loop is not None:
            task = self.current_task(loop)
            if task is not None:
                track = self.buffer.track_of(task)
        self.task_ref = track.ref
        self.track = track.id
        self.track_high = track.id << 32
        self.stack = track.stack
        self.op_id = 0 if op is None else op.id
        self.op = op
        # behind the store above: an agent that opens a generation after this line marks `op` again
        generation = self.buffer.generation
        if generation != self.cut[0]:
            self._notice(generation)
        label = track.packed_label or self.buffer.intern(track.label)
        self.put(Kind.CONTEXT, pack_uint(track.id) + label + pack_uint(self.op_id))

    def _found_asyncio(self, tasks: Any) -> Any:
        events = sys.modules.get("asyncio.events")
        running_loop = getattr(events, "_get_running_loop", None)
        current_task = getattr(tasks, "current_task", None)
        if running_loop is None or current_task is None:
            # it is being imported
            return None
        self.current_task = current_task
        self.running_loop = running_loop
        install_asyncio_hook()
        return running_loop()

    def _notice(self, generation: int) -> None:
        chunk = self.chunk
        if chunk is None:
            at = At(self.index, self.buffer.serial, 1 << 64, 0)
        else:
            at = At(self.next_index, chunk.serial, self.word, self.last)
            words = self.words
            words[CUT_WORD] = self.word
            words[CUT_BASE_WORD] = self.last
            words[CUT_GENERATION_WORD] = generation
        self.cut = (generation, at)

    def use(self, chunk: Chunk) -> None:
        """The buffer has made ``chunk`` this writer's, empty."""
        self.mem = chunk.mem
        self.words = chunk.words
        self.word = self.pos = CHUNK_HEADER_BYTES
        self.last_word = LAST_WORDS + 1
        self.chunk = chunk

    def unuse(self) -> None:
        """Its chunk is sealed."""
        self.chunk = None
        self.mem = self.words = _EMPTY
        self.pos = 0

    def notice(self) -> None:
        """The next append looks where it is, as after a cut."""
        self.op = NOTICE

    @property
    def next_index(self) -> int:
        """How many records it wrote, as any thread may ask."""
        chunk = self.chunk
        return self.index if chunk is None else chunk.first_index + (chunk.words[PUBLISHED_WORD] >> 32)
