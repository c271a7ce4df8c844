"""Logging calls below the enabled level, kept unformatted for the case that their operation fails (``debug_on_failure``).

The hooks are around ``Logger.debug``, ``info`` and ``log``: what those let through goes on as before. Only what is said inside of an operation is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from frzmq.tracer import hub
from frzmq.tracer.attributes import (
    MAX_NAME_BYTES,
    bounded,
    pack_attributes,
    pack_text,
    pack_uint,
    pack_value,
    type_name,
)
from frzmq.tracer.context import current

MAX_TEMPLATE_BYTES: Final = 1024
MAX_ARGS: Final = 15
"""More is left out."""
_LOG_SUPPRESSED: Final = 17
_NUMBERS: Final = tuple(map(str, range(MAX_ARGS)))

_hooks: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {}
"""By name: what was there, and what is."""


def install() -> None:
    import logging

    if _hooks:
        return
    cls: Any = logging.Logger
    for name, level in (("debug", logging.DEBUG), ("info", logging.INFO)):
        _put(cls, name, _below(level, getattr(cls, name)))
    _put(cls, "log", _below_given(cls.log))


def uninstall() -> None:
    cls: Any = getattr(sys.modules.get("logging"), "Logger", None)
    for name, (before, hook) in list(_hooks.items()):
        if getattr(cls, name) is hook:
            setattr(cls, name, before)
            del _hooks[name]


def _put(cls: Any, name: str, hook: Callable[..., None]) -> None:
    _hooks[name] = (getattr(cls, name), hook)
    setattr(cls, name, hook)


def _below(level: int, original: Callable[..., None]) -> Callable[..., None]:
    def hook(self: Any, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            # the line that is shown is the caller's, not this one
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            original(self, msg, *args, **kwargs)
        elif current.get() is not None:
            record_suppressed(self, level, msg, args)

    return hook


def _below_given(original: Callable[..., None]) -> Callable[..., None]:
    def hook(self: Any, level: Any, msg: object, *args: object, **kwargs: Any) -> None:
        if type(level) is not int or self.isEnabledFor(level):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            original(self, level, msg, *args, **kwargs)
        elif current.get() is not None:
            record_suppressed(self, level, msg, args)

    return hook


def record_suppressed(logger: Any, level: int, message: object, args: tuple[object, ...]) -> None:
    """One LOG_SUPPRESSED record."""
    try:
        writer = hub.writer()
        if writer is None:
            return
        intern = writer.buffer.intern
        name = logger.name
        if type(message) is not str:
            template = pack_value(message)
        elif args:
            # literals, which are few; a message that is built anew each time has no arguments
            template = (
                intern(bounded(message, MAX_NAME_BYTES))
                if len(message) <= 60
                else pack_text(message, MAX_TEMPLATE_BYTES)
            )
        else:
            template = pack_text(message, MAX_TEMPLATE_BYTES)
        if not args:
            packed = b"\xc0"
        elif len(args) == 1 and type(args[0]) is dict and args[0]:
            packed = pack_attributes(args[0], intern)
        else:
            values = args[:MAX_ARGS]
            packed = (0x80 | len(values)).to_bytes(1, "big")
            for number, value in zip(_NUMBERS, values, strict=False):
                packed += intern(number) + pack_value(value)
        tail = pack_uint(level if 0 <= level < 1 << 32 else 0) + intern(
            name if type(name) is str else type_name(type(name))
        )
        writer.append(_LOG_SUPPRESSED, tail + template + packed)
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        hub.swallow(fault)
