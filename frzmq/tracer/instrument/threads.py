"""The begin and end of every thread of `threading`, also of one that records nothing else.

The hook is around ``Thread._bootstrap_inner``, in which a new thread runs first of all: above the frames that a traceback shows, and whatever subclasses
make of ``run``. A thread's writer begins with its begin, and the end of its thread-local is its end.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import Any, Final

from frzmq.tracer import hub
from frzmq.tracer.context import STARTING

OWN_PREFIX: Final = "frzmq-"
"""Of the names of our own threads."""

_original: Any = None
_hook: Any = None


def install() -> None:
    global _original, _hook
    import threading

    original = getattr(threading.Thread, "_bootstrap_inner", None)
    if original is None or original is _hook:
        return

    def _bootstrap_inner(self: Any) -> None:
        if hub.recording is not None:
            record_begin(self)
        original(self)

    _original, _hook = original, _bootstrap_inner
    threading.Thread._bootstrap_inner = _bootstrap_inner  # type: ignore[attr-defined]  # threading's own


def uninstall() -> None:
    global _hook
    threading: Any = sys.modules.get("threading")
    if _hook is not None and threading is not None and threading.Thread._bootstrap_inner is _hook:
        threading.Thread._bootstrap_inner = _original
        _hook = None


def record_begin(thread: Any) -> None:
    """The thread that runs, which is to be ``thread``, has a writer from here on."""
    try:
        name = object.__getattribute__(thread, "__dict__").get("_name")
        if type(name) is str and name.startswith(OWN_PREFIX):
            return
        # threading itself knows it a moment later
        STARTING[get_ident()] = thread
        try:
            hub.writer()
        finally:
            del STARTING[get_ident()]
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        hub.swallow(fault)
