"""`Middleware` for ASGI applications: an operation for each request and each websocket.

    app = frzmq.asgi.Middleware(app)                # any application
    app.add_middleware(frzmq.asgi.Middleware)       # of Starlette and FastAPI

The operation lasts until the application returns, so a streamed body and the background tasks behind it are inside of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from frzmq import web

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_HERE: Final = "frzmq.asgi"
"""In the scope of a request that is recorded already."""


class Middleware:
    """Records each request of ``app``, continues its traceparent, and says the trace in the response (``trace_header=False``: it does not).

    The operation is called "GET /items/{id}" where Starlette, FastAPI or Django tells the route, else by its method ("WEBSOCKET" of a websocket); its attributes are
    path and status (of a websocket: the code that closed it). An exception, or a status of 500 and above, fails it.
    """

    def __init__(self, app: Application, *, trace_header: bool = True) -> None:
        self.app = app
        self._trace_header = trace_header
        web.watch_django(app)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or _HERE in scope:
            await self.app(scope, receive, send)
            return
        scope[_HERE] = True
        root_path = scope.get("root_path", "")
        websocket = scope["type"] == "websocket"
        method = web.WEBSOCKET if websocket else scope.get("method")
        operation = web.begin(method, scope.get("path"), scope.get("headers", ()))
        status: list[object] = []
        with operation:
            trace = web.trace_response() if self._trace_header else None

            async def watched_send(message: Message) -> None:
                kind = message["type"]
                if kind == "http.response.start":
                    status.append(message.get("status"))
                    if trace is not None:
                        field = (web.RESPONSE_HEADER.encode(), trace.encode())
                        message = {**message, "headers": [*message.get("headers", ()), field]}
                elif kind == "websocket.close":
                    status.append(message.get("code", 1000))
                await send(message)

            async def watched_receive() -> Message:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    status.append(message.get("code") or 1005)
                return message

            try:
                await self.app(scope, watched_receive if websocket else receive, watched_send)
            finally:
                web.finish(operation, _route(scope, root_path), status[0] if status else None)


def _route(scope: Scope, root_path: str) -> object:
    """By Django (`web.watch_django`), or Starlette and FastAPI: the template of the route below what is mounted."""
    if web.ROUTE in scope:
        return scope[web.ROUTE]
    route = scope.get("route")
    if route is None:
        # Starlette before 1.0 leaves the router and what it chose
        routes = getattr(scope.get("router"), "routes", ())
        endpoint = scope.get("endpoint")
        route = next((r for r in routes if endpoint is not None and getattr(r, "endpoint", None) is endpoint), None)
    path = getattr(route, "path", None)
    mounted = scope.get("root_path", "")
    return f"{mounted[len(root_path) :]}{path}" if type(path) is str and type(mounted) is str else None
