"""Recording because the environment says so: ``FRZMQ_RECORDER`` in it, and ``import frzmq``.

Nothing is loaded but the hooks of `frzmq.tracer.instrument`: the first record brings the rest. What is wrong with the environment never reaches the program;
`problem` says it, and a line of the log.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock, _local
from types import FrameType
from typing import Any, Final, cast

from frzmq.tracer import api, hub

_NO: Final = frozenset({"0", "false", "no", "off"})

LOADING_S: Final = 1.0
"""A record waits no longer for another thread that loads the runtime."""

problem = ""
"""Why nothing is recorded although the environment asks for it, or ""."""


class _Unloaded:
    """In the place of a buffer: the first record loads the runtime, which puts its own there."""

    def __init__(self) -> None:
        self.local: Any = _local()
        self.errors = 0

    def writer(self) -> Any:
        begin()
        found = hub.recording
        return found.writer() if found is not None and found is not cast(Any, self) else None

    def intern(self, text: str) -> bytes:
        found = hub.recording
        return found.intern(text) if found is not None and found is not cast(Any, self) else b"\xa0"

    def slow_spans(self, slow: bool) -> None:
        """The real one is told when it comes."""


_unloaded: Final = _Unloaded()
_loading = RLock()


def arm() -> None:
    """From the next record on this process records, if its environment says where to."""
    environ = os.environ
    if not environ.get("FRZMQ_RECORDER") or os.getuid() != os.geteuid() or not _is_no("FRZMQ_DISABLE", True):
        return
    from frzmq.tracer import instrument

    instrument.install(
        with_logging=not _is_no("FRZMQ_LOGGING", False),
        with_exceptions=not _is_no("FRZMQ_EXCEPTIONS", False),
        with_threads=not _is_no("FRZMQ_THREADS", False),
    )
    api.install(cast(Any, _unloaded))
    if "signal" in environ.get("FRZMQ_TRIGGERS", ""):
        # what is to be caught may come before the first record, and would end the process
        _catch_signals(environ["FRZMQ_TRIGGERS"])


def _catch_signals(triggers: str) -> None:
    global problem
    try:
        from frzmq.tracer.watch import watch
        from frzmq.triggers import parse_triggers

        watch.add(t for t in parse_triggers(triggers, "FRZMQ_TRIGGERS") if t.on == "signal")
    except Exception as error:  # noqa: BLE001  # as in `begin`
        problem = f"{type(error).__name__}: {error}"


def begin_with_main() -> None:
    """The process records from the first line of its main module on, also when it never calls frzmq: for ``sitecustomize``, in which no thread may start."""
    arm()
    if hub.recording is cast(Any, _unloaded) and sys.getprofile() is None:
        sys.setprofile(_first_of_main)


def _first_of_main(frame: FrameType, what: str, _: object) -> None:
    if what == "call" and frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
        sys.setprofile(None)
        # a writer begins with the begin of the process
        hub.writer()


def _is_no(name: str, empty: bool) -> bool:
    text = os.environ.get(name, "").lower()
    return text in _NO if text else empty


def begin() -> None:
    """The runtime takes over; where the environment is wrong, nothing is recorded."""
    global problem
    if not _loading.acquire(timeout=LOADING_S):
        return
    try:
        # not so for a second thread, which has waited, and for a signal handler in the midst of it
        if hub.recording is cast(Any, _unloaded):
            api.uninstall()
            from frzmq.config import TracerConfig
            from frzmq.tracer import runtime

            runtime.configure(TracerConfig.from_env(os.environ), automatic=True)
    except Exception as error:  # noqa: BLE001  # it is the program's thread: it must not see it
        problem = f"{type(error).__name__}: {error}"
        _say(problem)
    finally:
        _loading.release()


def _say(problem: str) -> None:
    try:
        from frzmq.tracer.answers import warn_not_recorded

        warn_not_recorded(problem)
    except ImportError:
        hub.faults += 1  # an interpreter that ends


def _after_fork_in_child() -> None:
    global _loading
    _loading = RLock()
    if _armed_before_fork:
        api.install(cast(Any, _unloaded))


_armed_before_fork = False


def _before_fork() -> None:
    global _armed_before_fork
    _armed_before_fork = hub.recording is cast(Any, _unloaded)


# behind the api's own, which turns everything off in the child
os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
