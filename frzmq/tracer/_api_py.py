"""`span`, `event` and `gauge` in pure Python: the reference, and the fallback where nothing can be compiled.

The begin and end of a span and the event without attributes repeat the append of `frzmq.tracer._writer_py.Writer` in place (its page says in which
order, and why); anything out of the ordinary (the thread's first record, a full chunk, a long pause) surfaces as an exception and goes the slow way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import monotonic_ns as _clock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from frzmq.tracer import hub
from frzmq.tracer.attributes import NIL, pack_attributes, pack_value, type_name
from frzmq.tracer.context import current
from frzmq.tracer.decorate import decorated
from frzmq.tracer.faults import is_fault
from frzmq.tracer.hub import swallow, writer

if TYPE_CHECKING:
    from frzmq.tracer._buffer_py import Buffer
    from frzmq.tracer._writer_py import Writer

F = TypeVar("F", bound=Callable[..., Any])

# of Kind and of the chunk layout, which are not loaded before something records
_SPAN_BEGIN: Final = 1
_SPAN_END: Final = 2
_EVENT: Final = 5
_GAUGE: Final = 6
_PUBLISHED: Final = 4
_DELTA_32: Final = 0xCE
_BEGIN_HEAD: Final = _SPAN_BEGIN << 8 | _DELTA_32
_END_HEAD: Final = _SPAN_END << 8 | _DELTA_32
_EVENT_HEAD: Final = _EVENT << 8 | _DELTA_32

MAX_NAMES: Final = 4096
"""So many names of spans and events have their bytes kept ready."""
_MAX_SHAPES: Final = 1024

_current = current.get
# kind | writer << 32, begin, end 0, name | track << 32, op, parent 0 and no trace
_open_span: Final = struct.Struct("<QQ8xQQ24x").pack_into


class _Off:
    """In the place of a thread's writer while nothing records: busy for good."""

    __slots__ = ("busy", "writer")

    def __init__(self) -> None:
        self.busy = True
        self.writer = self
        """And in the place of a buffer's thread-local."""


_off: Final = _Off()
_local: Any = _off


def install(buffer: Any) -> None:
    """From now on everything is recorded into ``buffer``, of this kind; None: nothing is."""
    global _local
    _events.clear()
    for span in list(_spans.values()):
        # a buffer that is not recorded into any more is nobody's; those that are entered bind themselves anew
        span._buffer = None
    _local = _off if buffer is None else buffer.local


_shapes: dict[int, Callable[..., None]] = {}
_spans: dict[str, Span] = {}
_events: dict[str, tuple[Callable[..., None], bytes, int, int]] = {}


def _shape(size: int) -> Callable[..., None]:
    """Packs a head, a delta, a tail of ``size`` bytes and a zero behind them into a chunk; struct.error when it does not fit."""
    pack = _shapes.get(size)
    if pack is None:
        pack = struct.Struct(f">HI{size}sx").pack_into
        if len(_shapes) < _MAX_SHAPES:
            _shapes[size] = pack
    return pack


def _name(name: object) -> str:
    return name if type(name) is str else type_name(type(name))


def _recovered(error: BaseException) -> Writer | None:
    """After ``error`` in a fast append, raised before it wrote: the writer, for the slow append; None when there is nothing to do.
    Raises ``error`` when it is the program's, from a signal handler."""
    buffer = hub.recording
    if buffer is None:
        if is_fault(error):
            return None
        raise error
    w: Any = getattr(_local, "writer", None)
    # none yet; or another thread has put the native buffer in place in the meantime, which is not this api's
    if w is None or w is _off:
        if is_fault(error):
            return cast("Writer", buffer.writer())
        raise error
    w.busy = False
    if type(error) is struct.error and is_fault(error):
        return cast("Writer", w)
    if w.recover(error):
        w.dropped += 1
        return None
    raise error


class Span:
    """An interval on this thread or asyncio task; see `span`. May be kept, nested in itself and shared between threads."""

    __slots__ = (
        "__weakref__", "_attributes", "_begin_pack", "_begin_size", "_begin_step", "_begin_tail", "_buffer", "_end_pack", "_end_size", "_end_step",
        "_end_tail", "_name_id", "name",
    )  # fmt: skip

    def __init__(self, name: str, attributes: dict[str, object]) -> None:
        self.name = name
        self._attributes = attributes
        self._buffer: Buffer | None = None

    def _bind(self, buffer: Buffer) -> None:
        ref = buffer.intern(self.name)
        tail = self._begin_tail = ref + pack_attributes(self._attributes, buffer.intern)
        self._begin_pack = _shape(len(tail))
        self._begin_size = len(tail) + 6
        self._begin_step = 1 << 32 | self._begin_size
        tail = self._end_tail = ref + NIL
        self._end_pack = _shape(len(tail))
        self._end_size = len(tail) + 6
        self._end_step = 1 << 32 | self._end_size
        self._name_id = buffer.name_id(self.name)
        self._buffer = buffer

    def __enter__(self) -> Self:
        try:
            w = _local.writer
            if w is _off:
                return self
            if w.busy:
                w.dropped += 1
                return self
            w.busy = True
            running_loop = w.running_loop
            loop = running_loop()
            if _current() is not w.op or (w.track if loop is None else w.task_ref() is not w.current_task(loop)):
                w.switch()
            if self._buffer is not w.buffer:
                self._bind(w.buffer)
            pos = w.pos
            pack = self._begin_pack
            now = _clock()
            pack(w.mem, pos, _BEGIN_HEAD, now - w.last, self._begin_tail)
            words = w.words
            words[w.last_word] = now
            words[_PUBLISHED] = w.word = w.word + self._begin_step
            w.last = now
            w.pos = pos + self._begin_size
            w.last_word ^= 3
            if w.free:
                take = w.take_entry
                entry = take()
                entry.owner = self
                _open_span(w.table, entry.offset, w.span_mark, now, self._name_id | w.track_high, w.op_id)
                w.stack.append(entry)
            else:
                self._open_slowly(w)
            w.busy = False
        except BaseException as error:  # noqa: BLE001  # raised again unless it is ours
            if (w := _recovered(error)) is not None:
                self._begin_slowly(w)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._fail(kind)
            return
        try:
            w = _local.writer
            if w is _off:
                return
            if w.busy:
                w.dropped += 1
                return
            w.busy = True
            running_loop = w.running_loop
            loop = running_loop()
            if _current() is not w.op or (w.track if loop is None else w.task_ref() is not w.current_task(loop)):
                w.switch()
            if self._buffer is not w.buffer:
                self._bind(w.buffer)
            pos = w.pos
            pack = self._end_pack
            now = _clock()
            pack(w.mem, pos, _END_HEAD, now - w.last, self._end_tail)
            words = w.words
            words[w.last_word] = now
            words[_PUBLISHED] = w.word = w.word + self._end_step
            w.last = now
            w.pos = pos + self._end_size
            w.last_word ^= 3
            stack = w.stack
            if stack and (entry := stack[-1]).owner is self:
                del stack[-1]
                entry.owner = None
                w.table_words[entry.end_word] = now
                give = w.give_entry
                give(entry)
            else:
                self._close_slowly(w)
            w.busy = False
        except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
            if (w := _recovered(fault)) is not None and w.append(_SPAN_END, self._end_tail_for(w)):
                self._close_slowly(w)

    def _begin_slowly(self, w: Writer) -> None:
        if self._buffer is not w.buffer:
            self._bind(w.buffer)
        if w.append(_SPAN_BEGIN, self._begin_tail):
            self._open_slowly(w)

    def _end_tail_for(self, w: Writer) -> bytes:
        if self._buffer is not w.buffer:
            self._bind(w.buffer)
        return self._end_tail

    def _open_slowly(self, w: Writer) -> None:
        entry = w.buffer.open(_SPAN_BEGIN, w.id, w.last, self.name, w.track, w.op_id, 0, b"")
        # one that is only counted, or looked at, must not take the fast way out
        entry.owner = self if entry.offset >= 0 and hub.on_span is None else (self,)
        w.stack.append(entry)

    def _close_slowly(self, w: Writer) -> None:
        """The innermost entry of this span on this track, wherever it is in the stack: an iteration may end after what began inside of it."""
        stack = w.stack
        for n in range(len(stack) - 1, -1, -1):
            owner = stack[n].owner
            if owner is self or (type(owner) is tuple and owner[0] is self):
                entry = stack.pop(n)
                if hub.on_span is not None and entry.offset >= 0:
                    hub.on_span(self.name, w.last - w.table_words[entry.end_word - 1])
                w.buffer.free_entry(entry, w.last)
                break

    def _fail(self, kind: type[BaseException]) -> None:
        try:
            w = cast("Writer | None", writer())
            if w is not None and w.append(_SPAN_END, w.buffer.intern(self.name) + w.buffer.intern(type_name(kind))):
                self._close_slowly(w)
        except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
            swallow(fault)

    def __call__(self, function: F) -> F:
        """``function`` with a span around each call, or each whole iteration of a generator."""
        return decorated(function, lambda: self, operation=False)


def span(name: str, /, **attributes: object) -> Span:
    """An interval, as a context manager or a decorator; nests; an exception that ends it is noted by its type."""
    if type(name) is str and not attributes:
        found = _spans.get(name)
        if found is not None:
            return found
        found = Span(name, attributes)
        if len(_spans) < MAX_NAMES:
            _spans[name] = found
        return found
    return Span(_name(name), attributes)


def event(name: str, /, **attributes: object) -> None:
    """An instant."""
    try:
        w = _local.writer
        if w.busy:
            if w is not _off:
                w.dropped += 1
            return
        if attributes or type(name) is not str or (ready := _events.get(name)) is None:
            _event_slowly(name, attributes)
            return
        w.busy = True
        running_loop = w.running_loop
        loop = running_loop()
        if _current() is not w.op or (w.track if loop is None else w.task_ref() is not w.current_task(loop)):
            w.switch()
        pack, tail, size, step = ready
        pos = w.pos
        now = _clock()
        pack(w.mem, pos, _EVENT_HEAD, now - w.last, tail)
        words = w.words
        words[w.last_word] = now
        words[_PUBLISHED] = w.word = w.word + step
        w.last = now
        w.pos = pos + size
        w.last_word ^= 3
        w.busy = False
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        if _recovered(fault) is not None:
            _event_slowly(name, attributes)


def _event_slowly(name: object, attributes: dict[str, object]) -> None:
    try:
        w = writer()
        if w is None:
            return
        name = _name(name)
        tail = w.buffer.intern(name) + pack_attributes(attributes, w.buffer.intern)
        if not attributes and len(_events) < MAX_NAMES:
            size = len(tail) + 6
            _events[name] = (_shape(len(tail)), tail, size, 1 << 32 | size)
        w.append(_EVENT, tail)
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        swallow(fault)


def gauge(name: str, value: float, /) -> None:
    """A named value over time."""
    try:
        w = writer()
        if w is not None:
            w.append(_GAUGE, w.buffer.intern(_name(name)) + pack_value(value))
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        swallow(fault)


# --- for the native ones


def event_slowly(name: object, /, **attributes: object) -> None:
    """An event that is not easily packed."""
    _event_slowly(name, attributes)


def decorate_with_span(span: Any, function: F, plain: Callable[[Any, F], F]) -> F:
    """``plain``: makes it of a function that is neither a coroutine nor a generator."""
    return decorated(function, lambda: span, operation=False, plain=lambda function: plain(span, function))
