"""Peers of the two HTTP servers, a recorder's metrics and `frzmq view`, that stay, drip and flood: so many at a time, and the honest one is answered."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from support.until import until

from frzmq.httpserver import BoundedMixIn
from frzmq.recorder.metrics import MetricsServer
from frzmq.view.server import Site, serving
from frzmq.wire.messages import Status

TIMEOUT_S = 20.0
MOST = BoundedMixIn.max_connections
STATUS = Status("on", "1", 1, bytes(16), 2, 1, 1, 1)


@contextlib.contextmanager
def metrics() -> Iterator[tuple[int, str]]:
    server = MetricsServer("127.0.0.1:0", lambda: STATUS, lambda: 0)
    try:
        yield server.port, "/metrics"
    finally:
        server.close()


@contextlib.contextmanager
def view() -> Iterator[tuple[int, str]]:
    site = Site("slow", b"trace")
    with serving(site) as base:
        yield int(base.rpartition(":")[2]), site.trace_path


Serve = Callable[[], AbstractContextManager[tuple[int, str]]]
each_server = pytest.mark.parametrize("serve", [metrics, view])


def ask(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)


def is_closed(peer: socket.socket) -> bool:
    peer.settimeout(0)
    try:
        return peer.recv(4096) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@each_server
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nX: "])
def test_malicious_idle_http_connections_are_bounded_and_the_honest_answered(serve: Serve, said: bytes) -> None:
    before = threading.active_count()
    with serve() as (port, path), contextlib.ExitStack() as stack:
        peers = []
        for _ in range(10 * MOST):
            peer = stack.enter_context(connected(port))
            with contextlib.suppress(OSError):
                peer.sendall(said)
            peers.append(peer)
        assert ask(port, path) == 200
        until(lambda: threading.active_count() <= before + MOST + 4, "a bounded number of threads")
        until(lambda: sum(is_closed(peer) for peer in peers) >= 9 * MOST, "the end of the oldest")
        assert not is_closed(peers[-1])
    until(lambda: threading.active_count() <= before, "the end of all threads")


@each_server
def test_malicious_http_request_that_drips_is_ended_in_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from frzmq.recorder import metrics as of_metrics
    from frzmq.view import server as of_view

    with serve() as (port, path), connected(port) as peer, monkeypatch.context() as patch:
        for server in (of_metrics._Server, of_view._Server):
            patch.setattr(server, "longest_s", 0.3)
        peer.sendall(b"GET / HTTP/1.1\r\n")

        def drips() -> bool:
            # a byte now and then would go on for ever by the time-out of one read
            with contextlib.suppress(OSError):
                peer.sendall(b"x")
            return is_closed(peer)

        until(drips, "its end")
        patch.undo()
        assert ask(port, path) == 200


@each_server
@pytest.mark.parametrize(
    "said", [b"GET /" + b"x" * 100_000, b"\0" * 1000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000]
)
def test_malicious_http_request_is_refused(serve: Serve, said: bytes) -> None:
    with serve() as (port, path):
        with connected(port) as peer:
            with contextlib.suppress(OSError):
                peer.sendall(said + b"\r\n\r\n")
            until(lambda: is_closed(peer) or b"200" not in _read(peer), "a refusal")
        assert ask(port, path) == 200


def _read(peer: socket.socket) -> bytes:
    peer.settimeout(TIMEOUT_S)
    try:
        return peer.recv(64)
    except ConnectionResetError:
        return b""
