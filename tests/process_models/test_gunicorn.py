"""gunicorn, with each kind of worker: forked from a master that has or has not loaded the app."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from support.held import Held, counted
from support.servers import Server, write

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("gunicorn", "flask", "starlette", "uvicorn_worker"))),
    reason="gunicorn or what runs in it is not installed",
)

BY_ENVIRONMENT = "import frzmq"
BY_START = "import frzmq; frzmq.start(service='web')"

WSGI = """
import os, signal, time
{how}
from flask import Flask

app = Flask(__name__)

@app.get("/ready")
def ready():
    return "yes"

@app.get("/")
def request():
    frzmq.event("request", pid=os.getpid())
    return str(os.getpid())

@app.get("/flushed")
def flushed():
    frzmq.event("request", pid=os.getpid())
    assert frzmq.flush()
    return str(os.getpid())

@app.get("/hang")
def hang():
    frzmq.event("request", pid=os.getpid())
    assert frzmq.flush()
    time.sleep(1000)

@app.get("/deaf")
def deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGABRT}})
    hang()
"""

ASGI = """
import os
{how}
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def ready(request):
    return PlainTextResponse("yes")

async def answer(request):
    frzmq.event("request", pid=os.getpid())
    return PlainTextResponse(str(os.getpid()))

app = Starlette(routes=[Route("/ready", ready), Route("/", answer)])
"""

KINDS = {"sync": WSGI, "gthread": WSGI, "uvicorn_worker.UvicornWorker": ASGI}


def gunicorn(directory: Path, held: Held, *arguments: str, kind: str = "sync", how: str = BY_ENVIRONMENT) -> Server:
    write(directory / "web.py", KINDS[kind].format(how=how))
    bind = f"unix:{directory}/http"
    command = ["gunicorn", "--no-control-socket", "--bind", bind, "--workers", "2", "--worker-class", kind]
    return Server(directory, *command, *arguments, "web:app", **held.variables)


def long(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("kind", "preload", "how"),
    [
        ("sync", True, BY_START),
        ("uvicorn_worker.UvicornWorker", False, BY_ENVIRONMENT),
        long("sync", False, BY_START),
        long("sync", True, BY_ENVIRONMENT),
        long("sync", False, BY_ENVIRONMENT),
        long("gthread", True, BY_START),
        long("gthread", False, BY_START),
        long("gthread", True, BY_ENVIRONMENT),
        long("gthread", False, BY_ENVIRONMENT),
        long("uvicorn_worker.UvicornWorker", True, BY_START),
        long("uvicorn_worker.UvicornWorker", False, BY_START),
        long("uvicorn_worker.UvicornWorker", True, BY_ENVIRONMENT),
    ],
)
def test_gunicorn_graceful_end_holds_every_workers_requests(
    directory: Path, held: Held, kind: str, preload: bool, how: str
) -> None:
    with gunicorn(directory, held, *["--preload"] * preload, kind=kind, how=how) as server:
        answers = server.answers(50, workers=2)
        assert server.end() == 0
    assert counted(held.whole(), "request") == answers
