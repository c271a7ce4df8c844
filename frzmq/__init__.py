"""The flight recorder for Python services.

``import frzmq`` starts nothing: where ``FRZMQ_RECORDER`` is in the environment, the first record does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frzmq.tracer import autostart as _autostart
from frzmq.tracer.api import event, extract, gauge, inject, operation, span

if TYPE_CHECKING:
    from frzmq import asgi, wsgi
    from frzmq.flight import FlightRecorder, flush, snapshot, start
    from frzmq.reader.snapshot import open_snapshot
    from frzmq.tracer.watch import trigger
    from frzmq.version import __version__ as __version__

__all__ = [
    "FlightRecorder", "asgi", "event", "extract", "flush", "gauge", "inject", "open_snapshot", "operation", "snapshot", "span", "start", "trigger", "wsgi",
]  # fmt: skip

_LAZY = {
    "__version__": "frzmq.version",
    "FlightRecorder": "frzmq.flight",
    "flush": "frzmq.flight",
    "open_snapshot": "frzmq.reader.snapshot",
    "snapshot": "frzmq.flight",
    "start": "frzmq.flight",
    "trigger": "frzmq.tracer.watch",
}
_MODULES = ("asgi", "wsgi")


def __getattr__(name: str) -> Any:
    if name in _LAZY or name in _MODULES:
        from importlib import import_module

        value: Any = import_module(f"frzmq.{name}") if name in _MODULES else getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_autostart.arm()
