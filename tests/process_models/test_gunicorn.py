"""gunicorn, with each kind of worker: forked from a master that has or has not loaded the app."""

from __future__ import annotations

import os
import signal
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.held import PATIENT, Held, counted, died
from support.servers import Server, ask, write
from support.until import until

from frzmq.reader.validate import validate

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("gunicorn", "flask", "starlette", "uvicorn_worker"))),
    reason="gunicorn or what runs in it is not installed",
)

BY_ENVIRONMENT = "import frzmq"
BY_START = "import frzmq; frzmq.start(service='web')"

WSGI = """
import os, time
{how}
{patient}
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
"""

ASGI = """
import os
{how}
{patient}
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def ready(request):
    return PlainTextResponse("yes")

async def answer(request):
    frzmq.event("request", pid=os.getpid())
    return PlainTextResponse(str(os.getpid()))

async def flushed(request):
    frzmq.event("request", pid=os.getpid())
    assert frzmq.flush()
    return PlainTextResponse(str(os.getpid()))

app = Starlette(routes=[Route("/ready", ready), Route("/", answer), Route("/flushed", flushed)])
"""

KINDS = {"sync": WSGI, "gthread": WSGI, "uvicorn_worker.UvicornWorker": ASGI}


def gunicorn(directory: Path, held: Held, *arguments: str, kind: str = "sync", how: str = BY_ENVIRONMENT) -> Server:
    write(directory / "web.py", KINDS[kind].format(how=how, patient=PATIENT))
    # without the thread that serves its control socket, the master has nothing to do; older versions pass over what they do not know
    write(directory / "gunicorn.conf.py", "control_socket_disable = True")
    command = ["gunicorn", "--bind", f"unix:{directory}/http", "--workers", "2", "--worker-class", kind]
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


def test_gunicorn_idle_master_is_in_a_snapshot_with_all_its_moments(directory: Path, held: Held) -> None:
    with gunicorn(directory, held, "--preload", how=BY_START) as server:
        answers = server.answers(20, workers=2)
        # the recorder may hear of a worker only after its first answer
        until(lambda: counted(held.taken(), "request") == answers, "all of the answers")
        opened = held.taken()
        assert validate(opened) == []
        assert {process.pid: process.state for process in opened.processes} == dict.fromkeys(
            [server.process.pid, *answers], "live"
        )


@pytest.mark.parametrize("kind", [long("sync"), long("gthread"), long("uvicorn_worker.UvicornWorker")])
def test_gunicorn_max_requests_holds_the_requests_of_workers_that_were_restarted(
    directory: Path, held: Held, kind: str
) -> None:
    with gunicorn(directory, held, "--max-requests", "10", kind=kind) as server:
        answers = server.answers(60, workers=4)
        assert server.end() == 0
    opened = held.whole()
    assert counted(opened, "request") == answers


@pytest.mark.parametrize("preload", [True, long(False)])
def test_gunicorn_reload_holds_the_requests_of_both_sets_of_workers(directory: Path, held: Held, preload: bool) -> None:
    with gunicorn(directory, held, *["--preload"] * preload, how=BY_START) as server:
        before = server.answers(20, workers=2)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: not set(before) & set(server.processes()), "the end of the first workers")
        after = server.answers(20, workers=2)
        assert server.end() == 0
    assert not set(before) & set(after)
    assert counted(held.whole(), "request") == before + after


@pytest.mark.parametrize("kind", ["gthread", long("sync")])
def test_gunicorn_killed_worker_has_what_it_shipped_and_an_incomplete_stream(
    directory: Path, held: Held, kind: str
) -> None:
    with gunicorn(directory, held, kind=kind) as server:
        answers = server.answers(20, workers=2)
        killed = int(ask(server.address, "/flushed"))
        answers[killed] += 1
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in server.processes(), "the death of the worker")
        answers += server.answers(20, workers=2)
        assert server.end() == 0
    opened = held.taken()
    assert counted(opened, "request") == answers
    assert died(opened) == {killed}


@pytest.mark.parametrize("kind", [long("sync"), long("gthread"), long("uvicorn_worker.UvicornWorker")])
def test_gunicorn_worker_that_is_killed_for_its_timeout_has_what_it_shipped(
    directory: Path, held: Held, kind: str
) -> None:
    with gunicorn(directory, held, "--timeout", "3", kind=kind) as server:
        answers = server.answers(20, workers=2)
        killed = int(ask(server.address, "/flushed"))
        answers[killed] += 1
        # it does not even hear the SIGABRT that comes first
        os.kill(killed, signal.SIGSTOP)
        until(lambda: killed not in server.processes(), "the death of the worker")
        answers += server.answers(20, workers=2)
        assert server.end() == 0
    opened = held.taken()
    assert counted(opened, "request") == answers
    assert died(opened) == {killed}


@pytest.mark.long
def test_gunicorn_worker_that_is_aborted_for_its_timeout_says_goodbye(directory: Path, held: Held) -> None:
    with gunicorn(directory, held, "--timeout", "3", how=BY_START) as server:
        answers = server.answers(20, workers=2)
        with pytest.raises((OSError, HTTPException)):
            ask(server.address, "/hang")
        after = server.answers(20, workers=2)
        assert server.end() == 0
    opened = held.whole()
    assert counted(opened, "request").total() == (answers + after).total() + 1
