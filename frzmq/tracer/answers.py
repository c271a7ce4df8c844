"""What the recorder answers, said in the program's log: where a snapshot is, and the suppressed lines of what failed.

Each from a thread of its own: a handler of the program's may wait, and the agent must not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final

from frzmq.tracer import hub
from frzmq.tracer.instrument.logs import GIVEN_BACK
from frzmq.wire.messages import Lines

OWN_LOGGER: Final = "frzmq"
MAX_ASIDE: Final = 8
"""Threads at a time; an answer beyond is dropped."""
MAX_CHARS: Final = 512
"""Of one thing that a recorder says, other than the lines that were asked for."""


def warn(path: str, reason: str, error: str) -> None:
    """One line: of the snapshot at ``path``, or why there is none."""

    def say() -> None:
        import logging

        logger = logging.getLogger(OWN_LOGGER)
        if error:
            logger.warning("no snapshot: %s; %s", _plain(error), _plain(reason))
        else:
            logger.warning("snapshot %s: %s", _plain(path), _plain(reason))

    _aside(say)


def warn_not_taken(reason: str) -> None:
    """One line: why the recorder takes nothing of this process."""
    _warn("the recorder does not take what this process records: %s", reason)


def warn_not_recorded(reason: str) -> None:
    """One line: why this process records nothing although it was asked to."""
    _warn("nothing is recorded: %s", reason)


def _plain(text: str) -> str:
    """What a recorder says, as one short line: it is not to write lines of its own into the program's log."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_CHARS])


def _warn(message: str, reason: str) -> None:
    def say() -> None:
        import logging

        logging.getLogger(OWN_LOGGER).warning(message, _plain(reason))

    _aside(say)


def give_back(found: Lines) -> None:
    """The suppressed lines to the loggers that they were meant for, each marked with the trace."""

    def say() -> None:
        import logging

        mark = found.trace[:8]
        if found.error:
            logging.getLogger(OWN_LOGGER).warning(
                "no suppressed lines of trace %s: %s", found.trace, _plain(found.error)
            )
        if found.more:
            logging.getLogger(OWN_LOGGER).warning("%d earlier suppressed lines of trace %s", found.more, found.trace)
        for line in found.lines:
            logger = logging.getLogger(line.logger)
            message = f"[frzmq {mark}] {line.process}: {line.message}"
            record = logger.makeRecord(
                line.logger, line.level, "", 0, message, (), None, extra={GIVEN_BACK: found.trace}
            )
            record.created = line.wall_ns / 1e9
            record.msecs = line.wall_ns // 10**6 % 1000
            _handle(logger, record)

    if found.lines or found.error:
        _aside(say)


def _handle(logger: Any, record: Any) -> None:
    """As ``logger.handle`` does, but for handlers that cannot format it: such as uvicorn's, which want the arguments. They would show a traceback."""
    if not logger.filter(record):
        return
    while logger is not None:
        for handler in logger.handlers:
            if record.levelno >= handler.level and _can_format(handler, record):
                handler.handle(record)
        logger = logger.parent if logger.propagate else None


def _can_format(handler: Any, record: Any) -> bool:
    try:
        handler.format(record)
    except Exception:  # noqa: BLE001  # a formatter of the program's
        return False
    return True


_room = threading.BoundedSemaphore(MAX_ASIDE)


def _after_fork_in_child() -> None:
    """The threads are the parent's, and so is whoever holds the lock of its room."""
    global _room
    _room = threading.BoundedSemaphore(MAX_ASIDE)


os.register_at_fork(after_in_child=_after_fork_in_child)


def _aside(say: Callable[[], None]) -> None:
    room = _room

    def run() -> None:
        try:
            say()
        finally:
            room.release()

    if not room.acquire(blocking=False):
        hub.faults += 1
        return
    try:
        threading.Thread(target=run, name="frzmq-log", daemon=True).start()
    except RuntimeError:
        # an interpreter that ends
        room.release()
        hub.faults += 1
