"""Log records that the program's own levels and loggers' filters let through.

The hook is around ``Logger.callHandlers``: there is no handler that ``logging.config`` could close or a level of ours that could wake up debug records.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from frzmq.tracer import hub
from frzmq.tracer.attributes import MAX_NAME_BYTES, bounded, pack_attributes, pack_text, pack_uint, type_name

MAX_MESSAGE_BYTES: Final = 4096
GIVEN_BACK: Final = "frzmq_trace"
"""An attribute of log records that were recorded before, and are given back to the program."""
_LOG: Final = 7
_EXACT: Final = frozenset({int, float, bool, str, bytes, type(None)})
_MAX_ARGS: Final = 64

_original: Any = None
_hook: Any = None


def install() -> None:
    global _original, _hook
    import logging

    if _hook is not None and logging.Logger.callHandlers is _hook:
        return
    original = _original = logging.Logger.callHandlers

    def callHandlers(self: Any, record: Any) -> None:  # noqa: N802  # the name that it replaces
        if hub.recording is not None:
            record_log(record)
        original(self, record)

    _hook = callHandlers
    logging.Logger.callHandlers = callHandlers  # type: ignore[method-assign]  # this is the hook


def uninstall() -> None:
    global _hook
    logging = sys.modules.get("logging")
    if _hook is not None and logging is not None and logging.Logger.callHandlers is _hook:
        logging.Logger.callHandlers = _original
        _hook = None


def record_log(record: Any) -> None:
    """One LOG record of a `logging.LogRecord`."""
    try:
        writer = hub.writer()
        if writer is None:
            return
        intern = writer.buffer.intern
        fields = object.__getattribute__(record, "__dict__")
        if GIVEN_BACK in fields:
            return
        level, logger = fields.get("levelno"), fields.get("name")
        attributes: dict[str, object] = {}
        path, line = fields.get("pathname"), fields.get("lineno")
        if type(path) is str and type(line) is int:
            attributes["at"] = f"{path}:{line}"
        exc_info = fields.get("exc_info")
        if type(exc_info) is tuple and exc_info and isinstance(exc_info[0], type):
            attributes["exception"] = type_name(exc_info[0])
        level = level if type(level) is int and 0 <= level < 1 << 32 else 0
        logger = bounded(logger, MAX_NAME_BYTES) if type(logger) is str else ""
        message = message_of(fields.get("msg"), fields.get("args"))
        tail = pack_uint(level) + intern(logger) + pack_text(message, MAX_MESSAGE_BYTES)
        writer.append(_LOG, tail + pack_attributes(attributes, intern))
        if hub.on_log is not None:
            hub.on_log(level, logger, message)
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        hub.swallow(fault)


def message_of(message: object, args: object) -> str:
    """What ``LogRecord.getMessage`` would say, with the name of its type in the place of each object that is no exact built-in scalar."""
    if type(message) is not str:
        return type_name(type(message)) if type(message) not in _EXACT else str(message)
    if not args:
        return message
    try:
        if type(args) is tuple:
            return message % tuple(map(_plain, args[:_MAX_ARGS]))
        if type(args) is dict:
            return message % {key: _plain(value) for key, value in args.items() if type(key) is str}
    except (TypeError, ValueError, KeyError, OverflowError):
        # such as "%d" for what is only a type's name now
        pass
    return message


def _plain(value: object) -> object:
    if type(value) is str:
        return value[:MAX_MESSAGE_BYTES]
    return value if type(value) in _EXACT else type_name(type(value))
