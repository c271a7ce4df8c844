"""Where the program is: the current operation, and its W3C traceparent on the way between processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any, Final

HEADER: Final = "traceparent"
_HEX: Final = frozenset("0123456789abcdef")
_MAX_CHARS: Final = 512
_MAX_HEADERS: Final = 1024


class OperationState:
    """One entered operation. ``parent`` is what was current before it; None once it ended, so that no chain of ended ones is kept."""

    __slots__ = (
        "begin_ns",
        "buffer",
        "ended",
        "entry",
        "error",
        "id",
        "name",
        "notes",
        "owner",
        "parent",
        "remote",
        "trace",
    )

    def __init__(self, owner: object, name: str, trace: bytes, id: int, parent: OperationState | None) -> None:
        self.owner = owner
        self.name = name
        self.trace = trace
        self.id = id
        self.parent = parent
        self.remote = 0
        """The parent id of the traceparent that it continues."""
        self.buffer: Any = None
        self.entry: Any = None
        """Its entry in the open table of ``buffer``."""
        self.ended = False
        self.begin_ns = 0
        self.notes: dict[str, object] | None = None
        """Its attributes, for the triggers."""
        self.error = ""
        """What its end says, unless an exception ends it."""


current: Final[ContextVar[OperationState | None]] = ContextVar("frzmq_operation", default=None)


def _nobody() -> None:
    pass


notice: Callable[[], None] = _nobody
"""Of the native buffer: told when this thread's operation changes within its context, which is all that it compares."""


def set_current(state: OperationState | None) -> None:
    current.set(state)
    notice()


STARTING: Final[dict[int, Any]] = {}
"""By ident the threads that run, and that `threading` does not know yet."""

_random = Random(os.urandom(32))  # noqa: S311  # ids must differ, not be unguessable


def reseed() -> None:
    """In a forked child: its ids must not repeat the parent's."""
    _random.seed(os.urandom(32))


os.register_at_fork(after_in_child=reseed)


def new_id() -> int:
    """8 random bytes, not 0."""
    return _random.getrandbits(64) or 1


def new_trace() -> bytes:
    """16 random bytes, not all 0."""
    return (_random.getrandbits(128) or 1).to_bytes(16, "big")


def parse_traceparent(text: object) -> tuple[bytes, int] | None:
    """``(trace, parent id)`` of a valid traceparent, by the rules of W3C Trace Context level 1: str or bytes, else None."""
    if type(text) is bytes:
        if len(text) > _MAX_CHARS or not text.isascii():
            return None
        text = text.decode("ascii")
    if type(text) is not str or len(text) > _MAX_CHARS:
        return None
    parts = text.strip(" \t").split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2] or not _HEX.issuperset("".join(parts[:4])):
        return None
    version, trace, parent = parts[:3]
    if version == "ff" or (version == "00" and len(parts) != 4) or not trace.strip("0") or not parent.strip("0"):
        return None
    return bytes.fromhex(trace), int(parent, 16)


def format_traceparent(trace: bytes, id: int) -> str:
    return f"00-{trace.hex()}-{id:016x}-01"


def find_traceparent(carrier: object) -> str | None:
    """The valid traceparent in a text, a mapping of headers (any case, also WSGI's) or a list of pairs as ASGI has it; None without one.

    Runs the methods of a carrier that is the program's own class, and raises what they raise.
    """
    if type(carrier) is str or type(carrier) is bytes:
        found: object = carrier
    else:
        found = _header(carrier)
    if parse_traceparent(found) is None:
        return None
    text = found.decode("ascii") if type(found) is bytes else found
    return text.strip(" \t") if type(text) is str else None


def _header(carrier: object) -> object:
    items = getattr(carrier, "items", None)
    for n, pair in enumerate(items() if items is not None else iter(carrier)):  # type: ignore[call-overload]  # a carrier that cannot be iterated raises
        if n == _MAX_HEADERS:
            break
        name, value = pair
        if type(name) is bytes and len(name) <= 32:
            name = name.decode("latin-1")
        if type(name) is str and name.lower().replace("_", "-").removeprefix("http-") == HEADER:
            return value[0] if type(value) is list and value else value
    return None
