"""Ends of the process that run no exit handlers: ``os._exit``, as of forked workers; a signal that a process raises against itself, as uvicorn does when
its graceful end is done; and a worker of a Celery pool, which is killed a moment after it has said that it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

End = Callable[[str], object]
"""Called with a reason, in the last moment. It raises nothing, and is bounded in time; the second time there is nothing to do."""

_ORDERLY: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
"""Whoever raises another one does not want to wait."""
_UID: Final = "frzmq"

_originals: dict[str, tuple[Any, Any, Any]] = {}


def install(end: End) -> None:
    """Doing it twice is doing it once, but that Celery's receivers are called in the order in which they came: ours is to be the last."""
    if "_exit" not in _originals:
        exit_now = os._exit

        def _exit(status: int) -> NoReturn:
            try:
                end("exit")
            finally:
                exit_now(status)

        _put(os, "_exit", _exit)
    if "raise_signal" not in _originals:
        raise_now = signal.raise_signal

        def raise_signal(signalnum: int, /) -> None:
            if _ends_process(signalnum):
                end(signal.Signals(signalnum).name)
            raise_now(signalnum)

        _put(signal, "raise_signal", raise_signal)
    celery = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.disconnect(dispatch_uid=_UID)
        celery.worker_process_shutdown.connect(lambda **_: end("exit"), weak=False, dispatch_uid=_UID)


def uninstall() -> None:
    for name, (owner, original, wrapper) in list(_originals.items()):
        # else something has wrapped it since
        if getattr(owner, name) is wrapper:
            setattr(owner, name, original)
            del _originals[name]
    celery = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.disconnect(dispatch_uid=_UID)


def _put(owner: Any, name: str, wrapper: Any) -> None:
    _originals[name] = (owner, getattr(owner, name), wrapper)
    setattr(owner, name, wrapper)


def _ends_process(number: int) -> bool:
    return (
        number in _ORDERLY
        and signal.getsignal(number) is signal.SIG_DFL
        and number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    )
