"""Every call of the program: which of them are recorded, and by what they are noticed. The recording itself is in the native buffer.

From Python 3.12 on the interpreter reports them by `sys.monitoring`, to a tool id of our own; on 3.11 by the hook of `sys.setprofile`, which a thread has one of:
there they are recorded of the thread that starts the recording, and of those that `threading` starts after it.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from frzmq.errors import ConfigError
from frzmq.tracer.attributes import MAX_NAME_BYTES, bounded
from frzmq.tracer.choice import missing, native

if TYPE_CHECKING:
    from frzmq.config import TracerConfig

TOOL: Final = "frzmq"
_TOOL_IDS: Final = (3, 4, 5, 2, 1, 0)
"""The last three only if no other is free: they are for profilers, coverage and debuggers."""
_LIBRARY: Final = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")})
_ASIDE: Final = ("zmq", "msgpack", "_distutils_hack", "namedtuple_*")
"""What this package calls itself, to ask for a snapshot for example; what setuptools puts into each import; what `collections.namedtuple` makes."""
_PACKAGES: Final = ("site-packages", "dist-packages")
_MIN_FILE_BYTES: Final = 80


def check(config: TracerConfig) -> None:
    """Raises ConfigError when calls are wanted, and cannot be recorded."""
    if not config.calls:
        return
    if config.buffer_kind == "py" or native is None:
        why = missing or "the buffer in pure Python was asked for"
        raise ConfigError(f"calls: wanted the native buffer, which alone can record them, got none: {why}")
    if sys.version_info >= (3, 12) and _own_tool() is None and _free_tool() is None:
        raise ConfigError("calls: wanted a free tool id of sys.monitoring, got none: other tools have all six")


def start(config: TracerConfig) -> None:
    """From now on they are recorded. Raises ConfigError: they cannot be."""
    check(config)
    assert native is not None
    judge = _Judge(config.calls_include, config.calls_exclude)
    about = (judge.judge, ",".join(judge.include), ",".join(judge.exclude), config.calls_per_second)
    if sys.version_info < (3, 12):
        native.calls_begin(*about, None, None, None)
        if threading.getprofile() is None:
            threading.setprofile(native.calls_of_thread)
        return
    monitoring = sys.monitoring
    tool = _own_tool()
    if tool is None:
        tool = _free_tool()
        assert tool is not None  # `check` has seen it
        monitoring.use_tool_id(tool, TOOL)
    if native.calls_begin(*about, monitoring.DISABLE, monitoring.restart_events, monitoring.get_tool):
        monitoring.restart_events()
    events = 0
    for name, hook in native.call_hooks.items():
        event = getattr(monitoring.events, name)
        monitoring.register_callback(tool, event, hook)
        events |= event
    monitoring.set_events(tool, events)


def stop() -> None:
    """From now on none is recorded."""
    if native is None:
        return
    disabled = native.calls_end()
    if sys.version_info < (3, 12):
        if threading.getprofile() is native.calls_of_thread:
            threading.setprofile(None)
        return
    tool = _own_tool()
    if tool is not None:
        sys.monitoring.set_events(tool, 0)
        for name in native.call_hooks:
            sys.monitoring.register_callback(tool, getattr(sys.monitoring.events, name), None)
        sys.monitoring.free_tool_id(tool)
        if disabled:
            # they would stay so for the next tool of this id
            sys.monitoring.restart_events()


def not_here() -> None:
    """No call of this thread is recorded: it is one of this package's own."""
    if native is not None:
        native.calls_not_here()


def _own_tool() -> int | None:
    if sys.version_info < (3, 12):
        return None
    return next((n for n in _TOOL_IDS if sys.monitoring.get_tool(n) == TOOL), None)


def _free_tool() -> int | None:
    if sys.version_info < (3, 12):
        return None
    return next((n for n in _TOOL_IDS if sys.monitoring.get_tool(n) is None), None)


class _Judge:
    """``include`` and ``exclude``: patterns of modules. A pattern stands for the modules that it matches and all that is in them; without any to include, all
    modules are wanted but those of the standard library and `_ASIDE`."""

    def __init__(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> None:
        self.include, self.exclude = include, exclude
        self._wanted: Callable[[str], bool | None] = lru_cache(maxsize=4096)(self._look)

    def judge(self, code: CodeType, namespace: Any) -> str | None:
        """The name under which calls of ``code`` are recorded; None: they are not."""
        module = namespace.get("__name__") if type(namespace) is dict else None
        if type(module) is not str:
            module = "?"
        file = code.co_filename
        wanted = self._wanted(module)
        if wanted is None:
            wanted = not _is_library(file)
        return call_name(f"{module}.{code.co_qualname}", file, code.co_firstlineno) if wanted else None

    def _look(self, module: str) -> bool | None:
        """None: unless it is the standard library's."""
        if _matches(module, ("frzmq", *self.exclude)):
            return False
        if self.include:
            return _matches(module, self.include)
        return False if _matches(module, _ASIDE) else None


def _matches(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(module, p) or fnmatchcase(module, f"{p}.*") for p in patterns)


def _is_library(file: str) -> bool:
    if file.startswith("<frozen "):
        return True
    return any(
        file.startswith(path) and not file.startswith(tuple(path + name for name in _PACKAGES)) for path in _LIBRARY
    )


def call_name(name: str, file: str, line: int) -> str:
    """``module.qualname (file:line)``, short enough for the table of names: of a long file name the end is kept."""
    name = bounded(name, MAX_NAME_BYTES - _MIN_FILE_BYTES)
    tail = f":{line})"
    room = MAX_NAME_BYTES - len(name.encode("utf-8", "backslashreplace")) - len(tail) - 2
    data = file.encode("utf-8", "backslashreplace")
    if len(data) > room:
        file = "…" + data[len("…".encode()) - room :].decode("utf-8", "ignore")
    return f"{name} ({file}{tail}"
