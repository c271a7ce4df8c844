"""`Gate` over real listeners: who connects is accepted when told, and not before."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from frzmq.transport.addresses import Endpoints
from frzmq.transport.gate import Gate
from frzmq.transport.sockets import RecorderSockets

DEADLINE_S = 10.0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="wants the epoll of Linux, as /proc shows it")


@pytest.fixture
def sockets(endpoints: Endpoints) -> Iterator[RecorderSockets]:
    made = RecorderSockets(endpoints)
    yield made
    assert made.close(0)


def found(gate: Gate) -> list[int]:
    fds: list[int] = []
    deadline = time.monotonic() + DEADLINE_S
    while not gate.complete:
        assert time.monotonic() < deadline, "its thread shows no listeners"
        fds += gate.find()
    return fds


def accepted(peer: socket.socket, within_s: float) -> bool:
    """zmq greets whom it has accepted."""
    return bool(select.select([peer], [], [], within_s)[0])


def test_gate_lets_in_one_at_a_time(sockets: RecorderSockets, endpoints: Endpoints) -> None:
    gate = sockets.gate()
    fds = found(gate)
    assert len(fds) == 3
    assert gate.find() == []
    path = endpoints.control.removeprefix("ipc://")
    [control] = [fd for fd in fds if _name(fd) == path]
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(4)]
        for peer in peers:
            peer.connect(path)
        # one had been let in from the begin
        for n, peer in enumerate(peers):
            if n:
                assert select.select([control], [], [], DEADLINE_S)[0], "nobody waits"
                gate.let_in(control)
            assert accepted(peer, DEADLINE_S)
            assert [accepted(other, 0.02) for other in peers[n + 1 :]] == [False] * (3 - n)


def test_gate_where_nothing_listens_finds_nothing(endpoints: Endpoints) -> None:
    gate = Gate(endpoints)
    assert (gate.find(), gate.complete) == ([], False)


def test_gated_listeners_close_as_others_do(sockets: RecorderSockets) -> None:
    found(sockets.gate())
    assert sockets.close(0)


def _name(fd: int) -> object:
    borrowed = socket.socket(fileno=fd)
    try:
        return borrowed.getsockname()
    finally:
        borrowed.detach()
