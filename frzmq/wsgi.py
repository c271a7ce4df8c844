"""`Middleware` for WSGI applications: an operation for each request.

    application = frzmq.wsgi.Middleware(application)

The operation lasts until the server closes the response, so a streamed body is inside of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from frzmq import web
from frzmq.tracer.api import Operation

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class Middleware:
    """Records each request of ``app``, continues its traceparent, and says the trace in the response (``trace_header=False``: it does not).

    The operation is called "GET /items/<id>" where Flask or Django tells the route, else by its method; its attributes are path and status. An exception, or a
    status of 500 and above, fails it.
    """

    def __init__(self, app: Application, *, trace_header: bool = True) -> None:
        self.app = app
        self._trace_header = trace_header
        web.watch_django(app)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        request = _Request(web.begin(environ.get("REQUEST_METHOD"), path, environ), environ, start_response)
        request.operation.__enter__()
        if self._trace_header:
            request.trace = web.trace_response()
        try:
            body = self.app(environ, request.start_response)
        except BaseException:
            request.end(*sys.exc_info())
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            # the server sends such a file by itself, which it does not recognize in anything around it
            request.end()
            return body
        return _Body(body, request)


class _Request:
    __slots__ = ("_environ", "_start_response", "ended", "operation", "route", "status", "trace")

    def __init__(self, operation: Operation, environ: Environ, start_response: StartResponse) -> None:
        self.operation = operation
        self.route: object = None
        self.status: int | None = None
        self.trace: str | None = None
        self.ended = False
        self._environ = environ
        self._start_response = start_response

    def start_response(self, status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        code = status[:3] if type(status) is str else ""
        self.status = int(code) if code.isascii() and code.isdigit() else None
        # Flask takes its request out of the environ before the response is closed
        self.route = _route(self._environ)
        if self.trace is not None:
            headers = [*headers, (web.RESPONSE_HEADER, self.trace)]
        return self._start_response(status, headers, *more)

    def end(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if not self.ended:
            self.ended = True
            web.finish(self.operation, self.route or _route(self._environ), self.status)
            self.operation.__exit__(kind, error, traceback)


class _Body:
    """A response, which ends its operation when it is closed, or raises."""

    __slots__ = ("_body", "_iterator", "_request")

    def __init__(self, body: Iterable[bytes], request: _Request) -> None:
        self._body = body
        self._request = request
        self._iterator: Iterator[bytes] | None = None

    def __len__(self) -> int:
        # servers take the length of a body of one piece for its content length
        return len(self._body)  # type: ignore[arg-type]  # TypeError is what they expect of one without

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        except StopIteration:
            raise
        except BaseException:
            self._request.end(*sys.exc_info())
            raise

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self._request.end(*sys.exc_info())
            raise
        self._request.end()


def _route(environ: Environ) -> object:
    """By Django (`web.watch_django`), or Werkzeug and so Flask, which leaves its request with the rule that it matched."""
    return environ.get(web.ROUTE) or getattr(getattr(environ.get("werkzeug.request"), "url_rule", None), "rule", None)
