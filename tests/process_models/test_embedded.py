"""The same servers without a recorder beside them: under ``frzmq run``, and with the one that an app's `start` brings."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.held import PATIENT, counted
from support.servers import Server, ask, write
from support.until import until

from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import validate

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("gunicorn", "flask", "uvicorn", "starlette"))),
    reason="gunicorn, uvicorn or what runs in them is not installed",
)

WSGI = """
import os, frzmq
{start}
from flask import Flask

app = Flask(__name__)

@app.get("/ready")
def ready():
    return "yes"

@app.get("/")
def answer():
    frzmq.event("request", pid=os.getpid())
    return str(os.getpid())

@app.get("/snapshot")
def snapshot():
    return str(frzmq.snapshot("s.frz", overwrite=True))
"""

ASGI = """
import os, frzmq
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


def serve(directory: Path, code: str, *arguments: str) -> Server:
    write(directory / "web.py", f"{PATIENT}\n{code}")
    write(directory / "gunicorn.conf.py", "control_socket_disable = True")
    return Server(directory, *arguments, "--workers", "2", "web:app", FRZMQ_RUNTIME_DIR=str(directory / "r"))


def opened_in(directory: Path) -> Snapshot:
    opened = open_snapshot(directory / "s.frz")
    assert validate(opened) == []
    assert opened.ledger.lost == 0
    return opened


@pytest.mark.parametrize("preload", [True, pytest.param(False, marks=pytest.mark.long)])
def test_run_of_gunicorn_leaves_a_snapshot_of_every_worker(directory: Path, preload: bool) -> None:
    bind = ["--bind", f"unix:{directory}/http", *["--preload"] * preload]
    command = ["frzmq", "run", "-o", "s.frz", "-m", "gunicorn", *bind]
    with serve(directory, WSGI.format(start=""), *command) as server:
        answers = server.answers(50, workers=2)
        assert server.end() == 0
    opened = opened_in(directory)
    assert counted(opened, "request") == answers
    assert {process.state for process in opened.processes} == {"gone"}


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_of_uvicorn_leaves_a_snapshot_of_every_worker(directory: Path, number: signal.Signals) -> None:
    command = ["frzmq", "run", "-o", "s.frz", "-m", "uvicorn", "--uds", str(directory / "http")]
    with serve(directory, ASGI, *command) as server:
        answers = server.answers(50, workers=2)
        # as a terminal sends its own to all, and anybody else a SIGTERM to the first
        (os.killpg if number == signal.SIGINT else os.kill)(server.process.pid, number)
        assert server.wait() == 0
    assert counted(opened_in(directory), "request") == answers


def test_gunicorn_preloaded_app_brings_one_recorder_for_all(directory: Path) -> None:
    command = ["gunicorn", "--bind", f"unix:{directory}/http", "--preload"]
    with serve(directory, WSGI.format(start="frzmq.start(service='web')"), *command) as server:
        answers = server.answers(50, workers=2)

        def snapshot() -> Snapshot:
            assert int(ask(server.address, "/snapshot")) > 0
            return opened_in(directory)

        # the recorder may hear of a worker only after its first answer
        until(lambda: counted(snapshot(), "request") == answers, "a snapshot of all that was answered")
        opened = snapshot()
        assert server.end() == 0
    assert {process.pid for process in opened.processes} == {server.process.pid, *answers}
    until(lambda: list((directory / "r").iterdir()) == [], "the end of the recorder's directory")
