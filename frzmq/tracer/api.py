"""What a program calls: `operation`, `span`, `event`, `gauge`, `inject`, `extract`. Nothing here raises into it, and off it is nearly free.

The begin and end of a span and the event without attributes repeat the append of `frzmq.tracer._writer_py.Writer` in place (its page says in which
order, and why); anything out of the ordinary (the thread's first record, a full chunk, a long pause) surfaces as an exception and goes the slow way.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from time import monotonic_ns as _clock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from frzmq.tracer.attributes import NIL, pack_attributes, pack_bytes, pack_uint, pack_value, type_name
from frzmq.tracer.context import (
    HEADER,
    OperationState,
    current,
    find_traceparent,
    format_traceparent,
    new_id,
    new_trace,
    parse_traceparent,
)
from frzmq.tracer.decorate import decorated
from frzmq.tracer.faults import is_fault

if TYPE_CHECKING:
    from frzmq.tracer._buffer_py import Buffer
    from frzmq.tracer._writer_py import Writer

F = TypeVar("F", bound=Callable[..., Any])

# of Kind and of the chunk layout, which are not loaded before something records
_SPAN_BEGIN: Final = 1
_SPAN_END: Final = 2
_OPERATION_BEGIN: Final = 3
_OPERATION_END: Final = 4
_EVENT: Final = 5
_GAUGE: Final = 6
_INJECT: Final = 14
_EXTRACT: Final = 15
_OPERATION_UPDATE: Final = 16
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
recording: Buffer | None = None
"""Set by `install`."""
on_operation: Callable[[OperationState, int, str], None] | None = None
"""Of `frzmq.tracer.watch`, as the next three: called when an operation has ended, with what it took (ns) and its error or ""."""
on_span: Callable[[str, int], None] | None = None
on_exception: Callable[[str, str], None] | None = None
on_log: Callable[[int, str, str], None] | None = None
faults = 0
"""Of this page and the instruments, none of which reached the program; a buffer counts its own (``errors``)."""


def install(buffer: Buffer) -> None:
    """From now on everything is recorded into ``buffer``."""
    global _local, recording
    _events.clear()
    recording = buffer
    _local = buffer.local
    if on_span is not None:
        buffer.slow_spans(True)


def watch_spans(hook: Callable[[str, int], None] | None) -> None:
    """While ``hook`` is set every span takes the slow way out, which calls it: so that it costs the others nothing."""
    global on_span
    on_span = hook
    if recording is not None:
        recording.slow_spans(hook is not None)


def uninstall() -> None:
    """From now on nothing is recorded; the buffer is the caller's again."""
    global _local, recording
    _local = _off
    recording = None


# first of all that this package does in a forked child: the shared memory is the parent's
os.register_at_fork(after_in_child=uninstall)

_shapes: dict[int, Callable[..., None]] = {}
_spans: dict[str, Span] = {}
_events: dict[str, tuple[Callable[..., None], bytes, int, int]] = {}


def _shape(size: int) -> Callable[..., None]:
    """Packs a head, a delta and a tail of ``size`` bytes into a chunk; struct.error when either does not fit."""
    pack = _shapes.get(size)
    if pack is None:
        pack = struct.Struct(f">HI{size}s").pack_into
        if len(_shapes) < _MAX_SHAPES:
            _shapes[size] = pack
    return pack


def _name(name: object) -> str:
    return name if type(name) is str else type_name(type(name))


def writer() -> Writer | None:
    """This thread's; None when off."""
    return None if recording is None else recording.writer()


def _recovered(error: BaseException) -> Writer | None:
    """After ``error`` in a fast append, raised before it wrote: the writer, for the slow append; None when there is nothing to do.
    Raises ``error`` when it is the program's, from a signal handler."""
    buffer = recording
    if buffer is None:
        if is_fault(error):
            return None
        raise error
    w: Writer | None = getattr(buffer.local, "writer", None)
    if w is None:
        if is_fault(error):
            return buffer.writer()
        raise error
    w.busy = False
    if type(error) is struct.error and is_fault(error):
        return w
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
        entry.owner = self if entry.offset >= 0 and on_span is None else (self,)
        w.stack.append(entry)

    def _close_slowly(self, w: Writer) -> None:
        """The innermost entry of this span on this track, wherever it is in the stack: an iteration may end after what began inside of it."""
        stack = w.stack
        for n in range(len(stack) - 1, -1, -1):
            owner = stack[n].owner
            if owner is self or (type(owner) is tuple and owner[0] is self):
                entry = stack.pop(n)
                if on_span is not None and entry.offset >= 0:
                    on_span(self.name, w.last - w.table_words[entry.end_word - 1])
                w.buffer.free_entry(entry, w.last)
                break

    def _fail(self, kind: type[BaseException]) -> None:
        try:
            w = writer()
            if w is not None and w.append(_SPAN_END, w.buffer.intern(self.name) + w.buffer.intern(type_name(kind))):
                self._close_slowly(w)
        except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
            swallow(fault)

    def __call__(self, function: F) -> F:
        """``function`` with a span around each call, or each whole iteration of a generator."""
        return decorated(function, lambda: self, None)


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


def swallow(fault: BaseException) -> None:
    """Counts a fault of this package; raises what is not one."""
    global faults
    if not is_fault(fault):
        raise fault
    faults += 1


class Operation:
    """A logical unit of work with a trace id; see `operation`. May be kept, and nested in itself."""

    __slots__ = ("_attributes", "_entered", "_root", "_traceparent", "name")

    def __init__(self, name: str, traceparent: object, attributes: dict[str, object], *, root: bool = False) -> None:
        """``root``: it belongs to no operation around it, as the request of a server that was started within one."""
        self.name = name
        self._traceparent = traceparent
        self._attributes = attributes
        self._root = root
        self._entered: list[OperationState] = []

    def __enter__(self) -> Self:
        try:
            state = self._begin()
            if state is not None:
                current.set(state)
                if state.remote:
                    _put(_EXTRACT, pack_uint(state.id) + pack_bytes(state.trace) + pack_uint(state.remote))
        except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
            swallow(fault)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            here = current.get()
            state = self._state(here)
            if state is not None:
                self._end(state, kind)
                current.set(state.parent)
                state.parent = None
            elif self._entered:
                # ends in another context than it began in: that one is not to be had
                self._end(self._entered[-1], kind)
                if here is not None and here.parent is not None and here.parent.ended:
                    here.parent = here.parent.parent
        except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
            swallow(fault)

    def update(self, name: str | None = None, /, **attributes: object) -> None:
        """While it is open: gives it another name, or more attributes, such as the route and the status of a request, which are known late."""
        try:
            state = self._state(current.get()) or (self._entered[-1] if self._entered else None)
            w = writer()
            if state is None or w is None or state.entry is None or state.buffer is not w.buffer:
                return
            intern = w.buffer.intern
            new_name = NIL
            if name is not None:
                state.name = _name(name)
                new_name = intern(state.name)
                w.buffer.rename(state.entry, state.name)
            if on_operation is not None:
                state.notes = {**(state.notes or {}), **attributes}
            w.append(_OPERATION_UPDATE, pack_uint(state.id) + new_name + pack_attributes(attributes, intern))
        except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
            swallow(fault)

    def fail(self, error: str) -> None:
        """While it is open: it has failed, though no exception ends it; ``error`` says how, such as "HTTP 503"."""
        state = self._state(current.get()) or (self._entered[-1] if self._entered else None)
        if state is not None:
            state.error = _name(error)

    def _state(self, state: OperationState | None) -> OperationState | None:
        """The innermost of ``state`` and those around it that is of this operation."""
        while state is not None and state.owner is not self:
            state = state.parent
        return state

    def _begin(self) -> OperationState | None:
        w = writer()
        if w is None:
            return None
        around = current.get()
        parent = None if self._root else around
        remote = None if self._traceparent is None else parse_traceparent(self._traceparent)
        trace = remote[0] if remote is not None else parent.trace if parent is not None else new_trace()
        state = OperationState(self, self.name, trace, new_id(), around)
        state.remote = remote[1] if remote is not None else 0
        parent_id = parent.id if parent is not None else 0
        intern = w.buffer.intern
        tail = (
            intern(self.name) + pack_uint(state.id) + pack_uint(parent_id) + pack_bytes(trace) + pack_uint(state.remote)
        )
        if w.append(_OPERATION_BEGIN, tail + pack_attributes(self._attributes, intern)):
            state.entry = w.buffer.open(_OPERATION_BEGIN, w.id, w.last, self.name, w.track, state.id, parent_id, trace)
            state.entry.owner = self
            state.buffer = w.buffer
            state.begin_ns = w.last
            state.notes = self._attributes
        self._entered.append(state)
        return state

    def _end(self, state: OperationState, kind: type[BaseException] | None) -> None:
        self._entered.remove(state)
        state.ended = True
        w = writer()
        if w is None or state.entry is None or state.buffer is not w.buffer:
            return
        error = type_name(kind) if kind is not None else state.error
        w.append(_OPERATION_END, pack_uint(state.id) + (w.buffer.intern(error) if error else NIL))
        w.buffer.free_entry(state.entry, w.last)
        state.entry = state.buffer = None
        if on_operation is not None:
            on_operation(state, w.last - state.begin_ns, error)

    def __call__(self, function: F) -> F:
        """``function`` with a new operation around each call, or each whole iteration of a generator."""
        return decorated(
            function, lambda: Operation(self.name, self._traceparent, self._attributes, root=self._root), current
        )


def operation(name: str, /, traceparent: str | bytes | None = None, **attributes: object) -> Operation:
    """A unit of work, as a context manager or a decorator: begins a trace, continues the one of ``traceparent`` (ignored unless it is valid), or
    belongs to the operation around it."""
    return Operation(_name(name), traceparent, attributes)


def _put(kind: int, tail: bytes) -> None:
    w = writer()
    if w is not None:
        w.append(kind, tail)


def inject(carrier: Any = None) -> str | None:
    """The traceparent for a message that leaves this operation, also set in ``carrier`` (a mapping of headers); None outside of an operation."""
    try:
        state = current.get()
        if state is None or recording is None:
            return None
        message_id = new_id()
        _put(_INJECT, pack_uint(state.id) + pack_bytes(state.trace) + pack_uint(message_id))
        text = format_traceparent(state.trace, message_id)
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        swallow(fault)
        return None
    if carrier is not None:
        carrier[HEADER] = text
    return text


def extract(carrier: Any) -> str | None:
    """The valid traceparent in headers (a mapping, a list of pairs, or the text itself), for `operation`; None without one."""
    try:
        return find_traceparent(carrier)
    except Exception:  # noqa: BLE001  # the carrier is the program's object, and a request without a trace is no reason to fail it
        return None
