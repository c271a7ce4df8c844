"""The middlewares over applications of a few lines: what they record, pass on, and never do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

import pytest
from support.records import recording, take

import frzmq
from frzmq import asgi, wsgi
from frzmq.wire.codec import Value

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def operations(taken: list[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
    """Names, attributes and errors of one request's records."""
    rows: list[tuple[Value, ...]] = []
    for row in taken:
        if row[0] == "operation_begin":
            rows.append(("begin", row[1], row[6]))
        elif row[0] == "operation_update":
            rows.append(("update", row[2], row[3]))
        elif row[0] == "operation_end":
            rows.append(("end", row[2]))
        elif row[0] != "extract":
            rows.append((str(row[0]), row[1]))
    return rows


def trace_of(begin: tuple[Value, ...]) -> str:
    assert isinstance(begin[2], int)
    return f"00-{TRACE}-{begin[2]:016x}-01"


# --- wsgi


def call(app: Callable[..., Iterable[bytes]], **environ: Any) -> tuple[str, dict[str, str], bytes]:
    """As a server does it: status, headers, body."""
    began: list[Any] = []
    body = app(
        {"REQUEST_METHOD": "GET", "PATH_INFO": "/a", "SCRIPT_NAME": "", **environ},
        lambda status, headers, *_: began.extend([status, dict(headers)]),
    )
    try:
        data = b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return began[0], began[1], data


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    frzmq.event("inside")
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"hello"]


def test_wsgi_request_is_an_operation_with_path_and_status() -> None:
    with recording() as buffer:
        status, headers, body = call(wsgi.Middleware(hello), HTTP_TRACEPARENT=PARENT)
        rows = take(buffer)
    begin = next(row for row in rows if row[0] == "operation_begin")
    assert begin[4] == bytes.fromhex(TRACE)
    assert operations(rows) == [
        ("begin", "GET", {"path": "/a"}),
        ("event", "inside"),
        ("update", None, {"status": 200}),
        ("end", None),
    ]
    assert (status, body) == ("200 OK", b"hello")
    assert headers["traceresponse"] == trace_of(begin)


def test_wsgi_streamed_body_is_inside_until_it_is_closed() -> None:
    closed = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield b"1"
            frzmq.event("between")
            yield b"2"
        finally:
            closed.append(True)

    with recording() as buffer:
        assert call(wsgi.Middleware(app))[2] == b"12"
        frzmq.event("after")
        rows = operations(take(buffer))
    assert closed == [True]
    assert [row[0] for row in rows] == ["begin", "event", "update", "end", "event"]
    assert rows[-1] == ("event", "after")


@pytest.mark.parametrize("where", ["call", "body", "close"])
def test_wsgi_exception_fails_the_operation_and_propagates_as_it_is(where: str) -> None:
    error = KeyError("k")

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            if where == "body":
                raise error
            return iter([b"x"])

        def close(self) -> None:
            if where == "close":
                raise error

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if where == "call":
            raise error
        start_response("200 OK", [])
        return Body()

    with recording() as buffer:
        with pytest.raises(KeyError) as caught:
            call(wsgi.Middleware(app))
        assert caught.value is error
        rows = operations(take(buffer))
    assert rows[-1] == ("end", "KeyError")
    assert [row[0] for row in rows].count("end") == 1


def test_wsgi_status_of_500_and_above_fails_the_operation() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("503 Busy", [])
        return [b""]

    with recording() as buffer:
        call(wsgi.Middleware(app))
        assert operations(take(buffer))[1:] == [("update", None, {"status": 503}), ("end", "HTTP 503")]


def test_wsgi_file_of_the_server_stays_its_own() -> None:
    class FileWrapper:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"file"])

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return FileWrapper()

    with recording() as buffer:
        body = wsgi.Middleware(app)(
            {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.file_wrapper": FileWrapper}, lambda *_: None
        )
        assert type(body) is FileWrapper
        assert operations(take(buffer))[-1] == ("end", None)


def test_wsgi_request_that_lies_is_bounded_or_ignored() -> None:
    with recording() as buffer:
        call(
            wsgi.Middleware(hello),
            REQUEST_METHOD="X" * 10_000,
            PATH_INFO="/\x1b[31m" + "p" * 10_000,
            HTTP_TRACEPARENT="00-" + "f" * 1_000_000,
        )
        begin = operations(take(buffer))[0]
        assert begin[1] == "HTTP"
        assert isinstance(begin[2], dict)
        assert len(str(begin[2]["path"])) == 256


def test_wsgi_off_passes_everything_on() -> None:
    status, headers, body = call(wsgi.Middleware(hello))
    assert (status, headers, body) == ("200 OK", {"content-type": "text/plain"}, b"hello")


def test_wsgi_without_a_trace_header_says_none() -> None:
    with recording():
        assert "traceresponse" not in call(wsgi.Middleware(hello, trace_header=False))[1]


def test_wsgi_request_is_no_part_of_what_its_server_was_started_in() -> None:
    with recording() as buffer:
        with frzmq.operation("main"):
            call(wsgi.Middleware(hello))
        main, request = [row for row in take(buffer) if row[0] == "operation_begin"]
        assert request[3] == 0
        assert request[4] != main[4]


# --- asgi

Message = MutableMapping[str, Any]
App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


def serve(app: App, scope: dict[str, Any], incoming: Iterable[Message] = ()) -> list[Message]:
    """What the application sent."""
    sent: list[Message] = []
    messages = iter(incoming)

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]  # an Awaitable is a coroutine here
    return sent


def http(**changes: Any) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/a/1", "headers": [], "root_path": "", **changes}


async def answers(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    frzmq.event("inside")
    await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"1", "more_body": True})
    frzmq.event("between")
    await send({"type": "http.response.body", "body": b"2"})


def test_asgi_request_is_an_operation_until_the_application_returns() -> None:
    with recording() as buffer:
        sent = serve(asgi.Middleware(answers), http(headers=[(b"traceparent", PARENT.encode())]))
        rows = take(buffer)
    begin = next(row for row in rows if row[0] == "operation_begin")
    assert begin[4] == bytes.fromhex(TRACE)
    assert operations(rows) == [
        ("begin", "GET", {"path": "/a/1"}),
        ("event", "inside"),
        ("event", "between"),
        ("update", None, {"status": 201}),
        ("end", None),
    ]
    assert sent[0]["headers"] == [(b"a", b"b"), (b"traceresponse", trace_of(begin).encode())]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ({"route": type("R", (), {"path": "/a/{id}"})}, "GET /a/{id}"),
        ({"route": type("R", (), {"path": "/{id}"}), "root_path": "/base/a"}, "GET /a/{id}"),
        ({"frzmq.route": "/a/<int:id>"}, "GET /a/<int:id>"),
        ({"endpoint": len, "router": type("X", (), {"routes": [type("R", (), {"endpoint": len, "path": "/old"})]})}, "GET /old"),
        ({}, None),
    ],
)  # fmt: skip
def test_asgi_route_is_what_the_framework_left_in_the_scope(found: dict[str, Any], name: str | None) -> None:
    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        scope.update(found)
        await send({"type": "http.response.start", "status": 200})

    with recording() as buffer:
        serve(asgi.Middleware(app), http(root_path="/base"))
        assert operations(take(buffer))[1] == ("update", name, {"status": 200})


def test_asgi_exception_fails_the_operation_and_propagates() -> None:
    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        raise KeyError("k")

    with recording() as buffer:
        with pytest.raises(KeyError):
            serve(asgi.Middleware(app), http())
        assert operations(take(buffer))[-1] == ("end", "KeyError")


def test_asgi_middleware_twice_records_once() -> None:
    with recording() as buffer:
        serve(asgi.Middleware(asgi.Middleware(answers)), http())
        assert [row[0] for row in operations(take(buffer))].count("begin") == 1


@pytest.mark.parametrize(
    ("last", "status", "error"),
    [
        ({"type": "websocket.close", "code": 1000}, 1000, None),
        ({"type": "websocket.close", "code": 1011}, 1011, "WebSocket 1011"),
        (None, 1001, None),
    ],
)
def test_asgi_websocket_is_an_operation_with_its_close_code(
    last: Message | None, status: int, error: str | None
) -> None:
    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        frzmq.event("talk")
        if last is None:
            await receive()
        else:
            await send(last)

    incoming: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]
    with recording() as buffer:
        serve(asgi.Middleware(app), {"type": "websocket", "path": "/ws", "headers": []}, incoming)
        assert operations(take(buffer)) == [
            ("begin", "WEBSOCKET", {"path": "/ws"}),
            ("event", "talk"),
            ("update", None, {"status": status}),
            ("end", error),
        ]


def test_asgi_lifespan_is_passed_on() -> None:
    seen = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    with recording() as buffer:
        serve(asgi.Middleware(app), {"type": "lifespan"})
        assert operations(take(buffer)) == []
    assert seen == ["lifespan"]
