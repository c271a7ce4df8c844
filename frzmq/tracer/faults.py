"""Tells a fault of this package from what a signal handler of the program raised in the middle of its code."""

from __future__ import annotations

import struct
from typing import Final

_BUILTIN: Final = (
    struct.error, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError, RecursionError, RuntimeError,
)  # fmt: skip


def is_fault(error: BaseException) -> bool:
    """Whether ``error`` was raised by this package: an ordinary exception whose innermost frame is one of the tracer's. An exception that another
    thread sets in this one (`PyThreadState_SetAsyncExc`) has no frame of its own: only those of other types are known for what they are."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if type(error) not in _BUILTIN or traceback is None:
        return False
    return traceback.tb_frame.f_globals.get("__package__") == __package__
