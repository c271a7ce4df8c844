"""What the middlewares of both interfaces share: the operation of a request, what it is called, and what a client must not be able to do to it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from frzmq.tracer.api import Operation, extract
from frzmq.tracer.context import current, format_traceparent

WEBSOCKET: Final = "WEBSOCKET"
METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY", WEBSOCKET}
)
SERVER_ERROR_CLOSE: Final = 1011
"""The close code of a websocket whose server failed."""
MAX_PATH_CHARS: Final = 256
RESPONSE_HEADER: Final = "traceresponse"
"""Of W3C Trace Context level 2: tells the caller the trace id of its request, for ``frzmq request``."""
ROUTE: Final = "frzmq.route"
"""Where Django's handler, once `watch_django` has been at it, leaves the route of a request: in its environ or scope."""


def begin(method: object, path: object, carrier: object) -> Operation:
    """The operation of a request, not entered yet. Until its route is known it is called by its method: paths are many, and a client's to choose."""
    return Operation(
        method if type(method) is str and method in METHODS else "HTTP",
        extract(carrier),
        {"path": path[:MAX_PATH_CHARS]} if type(path) is str else {},
        root=True,
    )


def finish(operation: Operation, route: object, status: object) -> None:
    """What is known only now: ``route``, a template such as /items/{id}; ``status``: None when no response was begun; of a websocket its close code."""
    attributes: dict[str, object] = {}
    if type(status) is int:
        attributes["status"] = status
        if operation.name == WEBSOCKET:
            if status == SERVER_ERROR_CLOSE:
                operation.fail(f"WebSocket {status}")
        elif status >= 500:
            operation.fail(f"HTTP {status}")
    operation.update(f"{operation.name} {route}" if type(route) is str and route else None, **attributes)


def trace_response() -> str | None:
    """The value of RESPONSE_HEADER, inside of the operation; None when off."""
    state = current.get()
    return format_traceparent(state.trace, state.id) if state is not None else None


def watch_django(app: Any) -> None:
    """Where ``app`` is a handler of Django, what it resolves a request to is left under ROUTE. Django itself says it to nobody outside."""
    base = sys.modules.get("django.core.handlers.base")
    if base is None or not isinstance(app, base.BaseHandler):
        return
    resolve: Callable[[Any], Any] = app.resolve_request

    def resolve_request(request: Any) -> Any:
        match = resolve(request)
        place = getattr(request, "environ", None) or getattr(request, "scope", None)
        if type(place) is dict:
            place[ROUTE] = f"/{match.route}"
        return match

    app.resolve_request = resolve_request
