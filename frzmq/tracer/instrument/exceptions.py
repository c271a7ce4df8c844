"""Exceptions that nothing caught: of the main thread, of other threads, of asyncio's loops. The hooks that were there before are called as before."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Final

from frzmq.tracer import hub
from frzmq.tracer.attributes import pack_text, type_name

MAX_MESSAGE_BYTES: Final = 4096
MAX_TRACEBACK_BYTES: Final = 16 << 10
MAX_FRAMES: Final = 64
"""The innermost ones are kept."""
_MAX_WALK: Final = 100_000
_EXCEPTION: Final = 8
_EXACT: Final = frozenset({int, float, bool, str, bytes, type(None)})
_args = BaseException.__dict__["args"].__get__
_traceback = BaseException.__dict__["__traceback__"].__get__


class _Hook:
    """One function of a module or class, wrapped."""

    __slots__ = ("name", "original", "owner", "wrapper")

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name
        self.original = getattr(owner, name)
        self.wrapper: Any = None

    def put(self, wrapper: Any) -> None:
        self.wrapper = wrapper
        setattr(self.owner, self.name, wrapper)

    def take_out(self) -> bool:
        """False when something else has wrapped it since."""
        if getattr(self.owner, self.name) is not self.wrapper:
            return False
        setattr(self.owner, self.name, self.original)
        return True


_hooks: dict[str, _Hook] = {}


def install() -> None:
    if "main" not in _hooks:
        _hooks["main"] = main = _Hook(sys, "excepthook")

        def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            record_exception(error, "main", traceback)
            main.original(kind, error, traceback)

        main.put(excepthook)
    if "thread" not in _hooks:
        import threading

        _hooks["thread"] = thread = _Hook(threading, "excepthook")

        def thread_excepthook(args: Any) -> None:
            if args.exc_value is not None and args.exc_type is not SystemExit:
                record_exception(args.exc_value, "thread", args.exc_traceback)
            thread.original(args)

        thread.put(thread_excepthook)
    install_asyncio()


def install_asyncio() -> None:
    """Once asyncio is loaded; called again by the first record after that."""
    events = sys.modules.get("asyncio.base_events")
    if events is None or "asyncio" in _hooks or not hasattr(events, "BaseEventLoop"):
        return
    _hooks["asyncio"] = loops = _Hook(events.BaseEventLoop, "call_exception_handler")

    def call_exception_handler(self: Any, context: Any) -> None:
        error = context.get("exception") if type(context) is dict else None
        if isinstance(error, BaseException):
            record_exception(error, "asyncio")
        loops.original(self, context)

    loops.put(call_exception_handler)


def installed() -> bool:
    return bool(_hooks)


def uninstall() -> None:
    for key, hook in list(_hooks.items()):
        if hook.take_out():
            del _hooks[key]


def record_exception(error: BaseException, where: str, traceback: TracebackType | None = None) -> None:
    """One EXCEPTION record; ``where``: main, thread or asyncio."""
    try:
        writer = hub.writer()
        if writer is None:
            return
        intern = writer.buffer.intern
        writer.append(
            _EXCEPTION,
            intern(type_name(type(error)))
            + pack_text(message_of(error), MAX_MESSAGE_BYTES)
            + intern(where)
            + pack_text(traceback_lines(traceback or _traceback(error)), MAX_TRACEBACK_BYTES),
        )
        if hub.on_exception is not None:
            hub.on_exception(type_name(type(error)), where)
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        hub.swallow(fault)


def message_of(error: BaseException) -> str:
    """The exception's arguments as text, those that are exact built-in scalars; of others the name of their type. Its own ``__str__`` is not run."""
    args = _args(error)
    if type(args) is not tuple:
        return ""
    return ", ".join(str(arg)[:MAX_MESSAGE_BYTES] if type(arg) in _EXACT else type_name(type(arg)) for arg in args[:16])


def traceback_lines(traceback: TracebackType | None) -> str:
    """Lines ``file:line function``, innermost last."""
    frames = []
    walked = 0
    while traceback is not None and walked < _MAX_WALK:
        frames.append(traceback)
        del frames[:-MAX_FRAMES]
        traceback = traceback.tb_next
        walked += 1
    codes = ((frame.tb_frame.f_code, frame.tb_lineno) for frame in frames)
    return "\n".join(f"{code.co_filename}:{line} {getattr(code, 'co_qualname', code.co_name)}" for code, line in codes)
