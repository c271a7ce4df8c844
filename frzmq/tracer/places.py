"""Names of the places where a program records: its threads and its asyncio tasks. Nothing here runs code of the program's objects."""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import Any, Final

from frzmq.tracer.context import STARTING

AUTOMATIC_NAME: Final = "Task-"
"""Of the tasks that asyncio names."""


def install_asyncio_hook() -> None:
    """asyncio has been loaded: what was instrumented before may now go on with it."""
    exceptions = sys.modules.get("frzmq.tracer.instrument.exceptions")
    if exceptions is not None and exceptions.installed():
        exceptions.install_asyncio()


def task_label(task: Any) -> str:
    """An asyncio task's name, by asyncio's own method."""
    tasks = sys.modules.get("asyncio.tasks")
    cls = getattr(tasks, "Task", None)
    if cls is None or not isinstance(task, cls):
        return ""
    name = cls.get_name(task)
    return name if type(name) is str else ""


def thread_name() -> str:
    """This thread's name, "" when `threading` does not know the thread (asking it would make a dummy) or the name is no exact str."""
    thread = getattr(sys.modules.get("threading"), "_active", {}).get(get_ident()) or STARTING.get(get_ident())
    if thread is None:
        return ""
    name = object.__getattribute__(thread, "__dict__").get("_name")
    return name if type(name) is str else ""
