"""uvicorn with workers of its own, which it spawns."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.held import PATIENT, Held, counted
from support.servers import Server, write
from support.until import until

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("uvicorn", "starlette"))), reason="uvicorn or starlette is not installed"
)

APP = """
import os
from contextlib import asynccontextmanager
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

@asynccontextmanager
async def lifespan(app):
    yield
    frzmq.event("shutdown", pid=os.getpid())

app = Starlette(routes=[Route("/ready", ready), Route("/", answer)], lifespan=lifespan)
"""


def uvicorn(directory: Path, held: Held, how: str, *arguments: str) -> Server:
    write(directory / "web.py", APP.format(how=how, patient=PATIENT))
    return Server(directory, "uvicorn", "--uds", str(directory / "http"), *arguments, "web:app", **held.variables)


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("import frzmq; frzmq.start(service='web')", signal.SIGTERM),
        pytest.param("import frzmq", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("import frzmq", signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_uvicorn_graceful_end_holds_every_workers_requests(
    directory: Path, held: Held, how: str, number: signal.Signals
) -> None:
    with uvicorn(directory, held, how, "--workers", "2") as server:
        answers = server.answers(50, workers=2)
        assert server.end(number) == 0
    opened = held.whole()
    assert counted(opened, "request") == answers
    assert counted(opened, "shutdown") == dict.fromkeys(answers, 1)


@pytest.mark.long
def test_uvicorn_reload_of_workers_holds_the_requests_of_both_sets(directory: Path, held: Held) -> None:
    with uvicorn(directory, held, "import frzmq", "--workers", "2") as server:
        before = server.answers(20, workers=2)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: not set(before) & set(server.processes()), "the end of the first workers")
        after = server.answers(20, workers=2)
        assert server.end() == 0
    assert counted(held.whole(), "request") == before + after


@pytest.mark.long
def test_uvicorn_alone_dies_of_the_signal_and_holds_its_requests(directory: Path, held: Held) -> None:
    with uvicorn(directory, held, "import frzmq") as server:
        answers = server.answers(20)
        assert server.end() == -signal.SIGTERM
    opened = held.whole()
    assert counted(opened, "request") == answers
    assert [process.end_reason for process in opened.processes] == ["SIGTERM"]
