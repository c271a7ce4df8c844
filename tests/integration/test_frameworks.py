"""The middlewares in real frameworks under real servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.flights import taken
from support.programs import DEADLINE_S, environment
from support.unix_http import get

import frzmq
from frzmq.reader.model import Operation

pytestmark = pytest.mark.usefixtures("runtime_directory")

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"

STARLETTE = """
    import frzmq, frzmq.asgi
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Mount, Route, WebSocketRoute

    async def item(request):
        with frzmq.span("look up"):
            return PlainTextResponse(str(request.path_params["n"]))

    async def fail(request):
        raise KeyError("k")

    async def stream(request):
        async def body():
            yield b"1"
            frzmq.event("between")
            yield b"2"
        return StreamingResponse(body())

    async def socket(websocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    routes = [Route("/{n:int}", item)]
    app = Starlette(routes=[
        Mount("/items", routes=routes), Route("/fail", fail), Route("/stream", stream), WebSocketRoute("/talk/{n}", socket),
    ])
    app.add_middleware(frzmq.asgi.Middleware)
"""
FASTAPI = """
    import frzmq, frzmq.asgi
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    app = FastAPI()

    @app.get("/items/{n}")
    def item(n: int) -> str:
        with frzmq.span("look up"):
            return str(n)

    @app.get("/fail")
    async def fail() -> str:
        raise KeyError("k")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        def body():
            yield b"1"
            frzmq.event("between")
            yield b"2"
        return StreamingResponse(body())

    app = frzmq.asgi.Middleware(app)
"""
DJANGO = """
    import django, frzmq, frzmq.asgi, frzmq.wsgi
    from django.conf import settings
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", LOGGING_CONFIG=None, MIDDLEWARE=[])
    django.setup()

    def item(request, n):
        with frzmq.span("look up"):
            return HttpResponse(str(n))

    def fail(request):
        raise KeyError("k")

    def stream(request):
        def body():
            yield b"1"
            frzmq.event("between")
            yield b"2"
        return StreamingHttpResponse(body())

    urlpatterns = [path("items/<int:n>", item), path("fail", fail), path("stream", stream)]
"""
DJANGO_WSGI = """
    from django.core.wsgi import get_wsgi_application
    app = frzmq.wsgi.Middleware(get_wsgi_application())
"""
DJANGO_ASGI = """
    from django.core.asgi import get_asgi_application
    app = frzmq.asgi.Middleware(get_asgi_application())
"""
FLASK = """
    import flask, frzmq, frzmq.wsgi

    app = flask.Flask(__name__)

    @app.get("/items/<int:n>")
    def item(n):
        with frzmq.span("look up"):
            return str(n)

    @app.get("/fail")
    def fail():
        raise KeyError("k")

    @app.get("/stream")
    def stream():
        def body():
            yield b"1"
            frzmq.event("between")
            yield b"2"
        return flask.Response(body())

    app.wsgi_app = frzmq.wsgi.Middleware(app.wsgi_app)
"""
UVICORN = ["uvicorn", "--log-level", "critical", "--uds"]
GUNICORN = ["gunicorn", "--log-level", "critical", "--no-control-socket", "--bind"]


@contextmanager
def server(tmp_path: Path, code: str, command: list[str]) -> Iterator[Path]:
    """The path of its socket. It ends by SIGTERM, in time."""
    (tmp_path / "app.py").write_text(textwrap.dedent(code))
    socket = tmp_path / "s"
    bind = f"unix:{socket}" if command is GUNICORN else str(socket)
    process = subprocess.Popen(
        [sys.executable, "-m", *command, bind, "app:app"],
        cwd=tmp_path,
        env=environment(
            PYTHONPATH=f"{environment()['PYTHONPATH']}{os.pathsep}{tmp_path}",
            FRZMQ_RECORDER=os.environ["FRZMQ_RECORDER"],
            FRZMQ_SERVICE="web",
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield socket
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)
    finally:
        process.kill()
        process.wait()


def told(operation: Operation) -> tuple[str, Any, Any, str]:
    return operation.name, operation.attributes.get("path"), operation.attributes.get("status"), operation.error


@pytest.mark.parametrize(
    ("code", "command", "item", "failed"),
    [
        (STARLETTE, UVICORN, "/items/{n:int}", "KeyError"),
        (FASTAPI, UVICORN, "/items/{n}", "KeyError"),
        (textwrap.dedent(DJANGO) + textwrap.dedent(DJANGO_WSGI), GUNICORN, "/items/<int:n>", "HTTP 500"),
        (textwrap.dedent(DJANGO) + textwrap.dedent(DJANGO_ASGI), UVICORN, "/items/<int:n>", "HTTP 500"),
        (FLASK, GUNICORN, "/items/<int:n>", "HTTP 500"),
    ],
    ids=["starlette", "fastapi", "django-wsgi", "django-asgi", "flask"],
)
def test_requests_of_a_framework_are_operations_with_their_routes(
    tmp_path: Path, code: str, command: list[str], item: str, failed: str
) -> None:
    with frzmq.start(service="test") as flight:
        with server(tmp_path, code, command) as socket:
            status, headers, body = get(socket, "/items/7?secret=1", traceparent=PARENT)
            assert (status, body.strip(b'"')) == (200, b"7")
            assert headers["traceresponse"].startswith(f"00-{TRACE}-")
            assert get(socket, "/fail")[0] == 500
            assert get(socket, "/stream")[2] == b"12"
            assert get(socket, "/nothing")[0] == 404
        opened = taken(flight, tmp_path)
    requests = [o for o in opened.operations if opened.processes[o.process].service == "web"]
    missing = requests.pop()
    assert missing.attributes == {"path": "/nothing", "status": 404}
    assert [told(o) for o in requests] == [
        (f"GET {item}", "/items/7", 200, ""),
        ("GET /fail", "/fail", 500 if failed != "KeyError" else requests[1].attributes.get("status"), failed),
        ("GET /stream", "/stream", 200, ""),
    ]
    assert requests[0].trace == TRACE
    assert [opened.operations[s.operation or 0].name for s in opened.spans] == [f"GET {item}"]
    assert [opened.operations[e.operation or 0].name for e in opened.events] == ["GET /stream"]


def test_websocket_of_starlette_is_an_operation_with_its_route(tmp_path: Path) -> None:
    client = pytest.importorskip("websockets.sync.client")
    with frzmq.start(service="test") as flight:
        with server(tmp_path, STARLETTE, UVICORN) as socket:
            get(socket, "/items/1")
            with client.unix_connect(str(socket), "ws://localhost/talk/3") as connection:
                connection.send("hello")
                assert connection.recv() == "hello"
        opened = taken(flight, tmp_path)
    assert [told(o) for o in opened.operations if o.name.startswith("WEBSOCKET")] == [
        ("WEBSOCKET /talk/{n}", "/talk/3", 1000, "")
    ]
