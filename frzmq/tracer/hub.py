"""What is recorded into, who listens, and what went wrong: the part that the api shares with what is beside it. ``frzmq.tracer.api.install`` sets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from frzmq.tracer.faults import is_fault

if TYPE_CHECKING:
    from frzmq.tracer.buffer import Buffer, Writer
    from frzmq.tracer.context import OperationState

recording: Buffer | None = None
on_operation: Callable[[OperationState, int, str], None] | None = None
"""Of `frzmq.tracer.watch`, as the next three: called when an operation has ended, with what it took (ns) and its error or ""."""
on_span: Callable[[str, int], None] | None = None
"""Set by `frzmq.tracer.api.watch_spans`."""
on_exception: Callable[[str, str], None] | None = None
on_log: Callable[[int, str, str], None] | None = None
faults = 0
"""Of the api and the instruments, none of which reached the program; a buffer counts its own (``errors``)."""


def writer() -> Writer | None:
    """This thread's; None when off."""
    return None if recording is None else recording.writer()


def swallow(fault: BaseException) -> None:
    """Counts a fault of this package; raises what is not one."""
    global faults
    if not is_fault(fault):
        raise fault
    faults += 1
