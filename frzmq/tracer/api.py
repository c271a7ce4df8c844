"""What a program calls: `operation`, `span`, `event`, `gauge`, `inject`, `extract`. Nothing here raises into it, and off it is nearly free.

`span`, `event` and `gauge` are those of the native buffer where it is built, else those of `frzmq.tracer._api_py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from frzmq.tracer import _api_py, context, hub
from frzmq.tracer.attributes import NIL, pack_attributes, pack_bytes, pack_uint, type_name
from frzmq.tracer.choice import native
from frzmq.tracer.context import (
    HEADER,
    OperationState,
    current,
    find_traceparent,
    format_traceparent,
    new_id,
    new_trace,
    parse_traceparent,
    set_current,
)
from frzmq.tracer.decorate import decorated
from frzmq.tracer.hub import swallow, writer

if TYPE_CHECKING:
    from frzmq.tracer.buffer import Buffer

F = TypeVar("F", bound=Callable[..., Any])

# of Kind, which is not loaded before something records
_INJECT: Final = 14
_EXTRACT: Final = 15
_OPERATION_UPDATE: Final = 16

if TYPE_CHECKING or native is None:
    Span = _api_py.Span
    span = _api_py.span
    event = _api_py.event
    gauge = _api_py.gauge
else:
    Span, span, event, gauge = native.Span, native.span, native.event, native.gauge
    context.notice = native.notice


def install(buffer: Buffer) -> None:
    """From now on everything is recorded into ``buffer``."""
    _install(buffer)
    if hub.on_span is not None:
        buffer.slow_spans(True)


def uninstall() -> None:
    """From now on nothing is recorded; the buffer is the caller's again."""
    _install(None)


def _install(buffer: Buffer | None) -> None:
    hub.recording = buffer
    if native is not None:
        native.install(buffer)
    _api_py.install(None if native is not None and type(buffer) is native.Buffer else buffer)


def watch_spans(hook: Callable[[str, int], None] | None) -> None:
    """While ``hook`` is set it is called with the name of each span that ends, and what it took, ns. Unset it costs nothing."""
    hub.on_span = hook
    if native is not None:
        native.watch_spans(hook)
    if hub.recording is not None:
        hub.recording.slow_spans(hook is not None)


# first of all that this package does in a forked child: the shared memory is the parent's
os.register_at_fork(after_in_child=uninstall)


def _name(name: object) -> str:
    return name if type(name) is str else type_name(type(name))


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
                set_current(state)
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
                set_current(state.parent)
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
            if hub.on_operation is not None:
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
        entry = w.begin_operation(self.name, state.id, parent_id, trace, state.remote, self._attributes)
        if entry is not None:
            state.entry = entry
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
        w.end_operation(state.entry, state.id, error)
        state.entry = state.buffer = None
        if hub.on_operation is not None:
            hub.on_operation(state, w.last - state.begin_ns, error)

    def __call__(self, function: F) -> F:
        """``function`` with a new operation around each call, or each whole iteration of a generator."""
        return decorated(
            function, lambda: Operation(self.name, self._traceparent, self._attributes, root=self._root), operation=True
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
        if state is None or hub.recording is None:
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
