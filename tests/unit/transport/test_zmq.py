"""What ZeroMQ was seen to do, point by point (design, section 6), and what keeps it from doing harm: in one process. With real processes: tests/fault/test_zmq_processes.py."""

from __future__ import annotations

import ast
import inspect
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import zmq
from support.peers import dealer_to, push_to
from support.until import until as until_within

import frzmq
from frzmq.config import RecorderConfig
from frzmq.errors import ConfigError
from frzmq.recorder.liveness import DirectoryLock
from frzmq.recorder.worker import Worker
from frzmq.tracer.events import SendFrame
from frzmq.tracer.outbox import Outbox
from frzmq.transport import sockets as transport
from frzmq.transport.addresses import Endpoints, parse_address
from frzmq.transport.outbound import ClientSocket, TracerSockets
from frzmq.transport.sockets import (
    DATA_HWM,
    MAX_PARTS,
    RecorderSockets,
    Socket,
    close_all,
    new_context,
    receive_all,
    router_socket,
    send_to,
)
from frzmq.transport.zap import Domain
from frzmq.wire.batch import COALESCE_BYTES, BatchType, Header, split_headers

DEADLINE_S = 10.0
until = partial(until_within, seconds=DEADLINE_S)
PACKAGE = Path(frzmq.__file__).parent


def frames_after_a_turn(worker: Worker) -> int:
    worker.turn()
    return worker.stats().frames


def every_socket(endpoints: Endpoints) -> Iterator[Socket]:
    """One of each kind that the package makes."""
    recorder = RecorderSockets(endpoints)
    tracer = TracerSockets(endpoints)
    client = ClientSocket(endpoints.control)
    yield from (recorder.pull, recorder.link, recorder.control, tracer._push, tracer._dealer, client._dealer)
    assert client.close(0) and tracer.close(0) and recorder.close(0)


def test_zmq_2_heartbeats_of_zmtp_are_off_and_keepalive_is_on_everywhere(endpoints: Endpoints) -> None:
    for each in every_socket(endpoints):
        assert each.getsockopt(zmq.HEARTBEAT_IVL) == 0
        assert each.getsockopt(zmq.TCP_KEEPALIVE) == 1


def test_zmq_3_no_pub_and_sub_and_one_connect_of_each_socket() -> None:
    # what a socket can be is made in one module, which a test of the layers sees to
    tree = ast.parse(inspect.getsource(transport))
    used = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "zmq"
    }
    kinds = {kind.name for kind in zmq.SocketType}
    # the REP answers libzmq itself, for each handshake with a key
    assert used & kinds == {"PUSH", "PULL", "DEALER", "ROUTER", "REP"}
    for owner in tree.body:
        connected = [
            ast.unparse(node.func.value)
            for node in ast.walk(owner)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "connect"
        ]
        assert len(connected) == len(set(connected)), connected


def test_zmq_4_context_with_a_socket_or_a_monitor_left_open_is_given_up_in_time(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CLOSE_DEADLINE_S", 2.0)
    context = new_context()
    left = dealer_to(context, endpoints.link)
    monitor = left.get_monitor_socket()
    began = time.monotonic()
    try:
        assert close_all(context, [], 0) is False
        assert time.monotonic() - began < 15
    finally:
        left.disable_monitor()
        monitor.close(0)
        left.close(0)
    until(lambda: context.closed or not any(t.name == "frzmq-close" for t in threading.enumerate()))


def test_zmq_7_bytes_without_a_handshake_are_delivered_and_are_no_batch(
    recorder: RecorderSockets, endpoints: Endpoints
) -> None:
    """The nine bytes are a peer of ZMTP 1.0: an identity of no bytes, and one message."""
    worker = Worker(RecorderConfig(), recorder)
    try:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(endpoints.data.removeprefix("ipc://"))
            raw.sendall(b"\x01\x00" + b"\x06\x00hello")
            until(lambda: frames_after_a_turn(worker))
        assert worker._machine.status(time.monotonic_ns()).rejected_frames == 1
        assert worker.stats().faults == 0
    finally:
        worker.close()


def test_zmq_7_message_of_many_parts_is_kept_in_bounds(recorder: RecorderSockets, endpoints: Endpoints) -> None:
    context = new_context()
    dealer = dealer_to(context, endpoints.link)
    assert dealer.poll(10_000, zmq.POLLOUT)
    dealer.send_multipart([b"x"] * 1000)
    assert recorder.link.poll(10_000)
    assert [len(message) for message in receive_all(recorder.link)] == [MAX_PARTS]
    assert close_all(context, [dealer], 0)


def test_zmq_8_second_bind_on_an_ipc_path_steals_it_and_a_lock_forbids_that(endpoints: Endpoints) -> None:
    context = new_context()
    first, second = context.socket(zmq.PULL), context.socket(zmq.PULL)
    first.bind(endpoints.data)
    second.bind(endpoints.data)
    push = push_to(context, endpoints.data)
    assert push.poll(10_000, zmq.POLLOUT)
    push.send(b"frame")
    assert second.poll(10_000) and not first.poll(0)
    assert close_all(context, [first, second, push], 0)
    assert endpoints.directory is not None
    lock = DirectoryLock(endpoints.directory)
    code = "import sys; from frzmq.recorder.liveness import DirectoryLock; DirectoryLock(sys.argv[1])"
    refused = subprocess.run(
        [sys.executable, "-c", code, endpoints.directory], capture_output=True, text=True, check=False, timeout=30
    )
    assert "another recorder" in refused.stderr
    lock.release()


def test_zmq_8_path_that_a_socket_cannot_have_is_refused_before_it_is_bound() -> None:
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        parse_address("/" + "d" * 107)


def test_zmq_10_connection_that_never_greets_is_closed(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in every_socket(endpoints):
        assert each.getsockopt(zmq.HANDSHAKE_IVL) == transport.HANDSHAKE_MS == 5_000
    monkeypatch.setattr(transport, "HANDSHAKE_MS", 100)
    recorder = RecorderSockets(endpoints)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(DEADLINE_S)
        raw.connect(endpoints.control.removeprefix("ipc://"))
        while raw.recv(100):
            pass
    assert recorder.close(0)


def test_zmq_12_second_peer_of_one_identity_is_unheard_and_each_has_its_own(
    recorder: RecorderSockets, endpoints: Endpoints
) -> None:
    context = new_context()
    honest, other = (dealer_to(context, endpoints.link) for _ in range(2))
    for each in (honest, other):
        # the ROUTER names each connection
        assert each.getsockopt(zmq.IDENTITY) == b""
        each.send(b"hello")
    heard: list[list[bytes]] = []
    while len(heard) < 2:
        assert recorder.link.poll(10_000)
        heard += receive_all(recorder.link)
    first, second = (message[0] for message in heard)
    assert first != second
    thief = context.socket(zmq.DEALER)
    thief.setsockopt(zmq.IDENTITY, first)
    thief.connect(endpoints.link)
    thief.send(b"thief")
    # replies come after whatever the thief could say
    assert not thief.poll(200)
    for name in (first, second):
        assert send_to(recorder.link, name, b"reply") is True
    assert [each.poll(10_000) and each.recv() for each in (honest, other)] == [b"reply"] * 2
    assert not thief.poll(100)
    assert receive_all(recorder.link) == []
    assert close_all(context, [honest, other, thief], 0)


def test_zmq_12_router_says_so_of_a_peer_that_is_gone(endpoints: Endpoints) -> None:
    context = new_context()
    router = router_socket(context, endpoints.link, Domain.RECORD, 8)
    assert send_to(router, b"nobody", b"reply") is None
    assert close_all(context, [router], 0)


def test_zmq_13_what_is_received_is_copied(recorder: RecorderSockets, endpoints: Endpoints) -> None:
    tracer = TracerSockets(endpoints)
    until(lambda: tracer.send_batch(b"x" * 48))
    until(lambda: recorder.pull in recorder.poll(100))
    assert type(recorder.frame_receiver()()) is bytes
    until(lambda: tracer.send(b"y" * 48))
    until(lambda: recorder.link in recorder.poll(100))
    [received] = recorder.receive(recorder.link)
    assert [type(part) for part in received.parts] == [bytes, bytes]
    assert tracer.close(0)
    # there it is asked whose key a frame came with, and copied then
    said = [path.name for path in PACKAGE.rglob("*.py") if "copy=False" in path.read_text()]
    assert said == ["sockets.py"]


def test_zmq_14_one_wait_of_the_recorder_takes_many_frames(recorder: RecorderSockets, endpoints: Endpoints) -> None:
    worker = Worker(RecorderConfig(), recorder)
    tracer = TracerSockets(endpoints)
    # no batch, and more than the kernel holds of a connection
    frame = bytes(256 << 10)
    try:
        for _ in range(2 * DATA_HWM):
            until(lambda: tracer.send_batch(frame))
        # the last was taken, so that DATA_HWM have left the tracer's side: all wait here, but for what is under way
        until(lambda: recorder.pull.poll(100))
        assert frames_after_a_turn(worker) >= DATA_HWM // 2
    finally:
        assert tracer.close(0)
        worker.close()


def test_zmq_14_agent_joins_batches_to_large_frames() -> None:
    outbox = Outbox()
    for tseq in range(1, 101):
        outbox.put(Header(BatchType.STRINGS, bytes(16), 1, 0, 1, tseq, first_index=1, count=1), bytes(4000))
    sizes = []
    while (frame := outbox.next_frame(7)) is not None:
        assert isinstance(frame, SendFrame)
        sizes.append(len(split_headers(frame.data)))
        assert len(frame.data) <= COALESCE_BYTES
        outbox.frame_sent()
    assert sum(sizes) == 100
    assert len(sizes) == 2
