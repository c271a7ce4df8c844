"""Real sockets in one process; each test closes its contexts in bounded time."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import zmq
from support.peers import dealer_to
from support.recorder_process import on_tcp
from support.until import until as until_within

from frzmq.errors import ConfigError
from frzmq.transport import sockets as transport
from frzmq.transport.addresses import Endpoints, parse_address
from frzmq.transport.outbound import TracerSockets, is_listening
from frzmq.transport.sockets import (
    MAX_TO_RECORDER_BYTES,
    PARTS_A_CALL,
    Again,
    RecorderSockets,
    Socket,
    close_all,
    new_context,
    receive_all,
    send_now,
    send_to,
)

DEADLINE_S = 10.0
until = partial(until_within, seconds=DEADLINE_S)


@pytest.fixture
def tracer(endpoints: Endpoints, recorder: RecorderSockets) -> Iterator[TracerSockets]:
    sockets = TracerSockets(endpoints)
    yield sockets
    assert sockets.close(0)


def receive(recorder: RecorderSockets) -> bytes:
    frame = recorder.frame_receiver()
    until(lambda: recorder.pull in recorder.poll(100))
    return frame()


def receive_from_link(recorder: RecorderSockets) -> list[bytes]:
    """The only message that waits: who sent it, and what."""
    until(lambda: recorder.link in recorder.poll(100))
    (message,) = receive_all(recorder.link)
    return message


def listening_on_tcp() -> tuple[RecorderSockets, Endpoints]:
    def serve(address: str) -> tuple[RecorderSockets, Endpoints]:
        endpoints = parse_address(address)
        return RecorderSockets(endpoints), endpoints

    return on_tcp(serve)


def test_send_batch_arrives_as_sent(recorder: RecorderSockets, tracer: TracerSockets) -> None:
    until(lambda: tracer.send_batch(b"frame"))
    assert receive(recorder) == b"frame"
    with pytest.raises(Again):
        recorder.frame_receiver()()


def test_is_listening_is_true_of_a_socket_that_is_served_and_false_of_one_that_was(endpoints: Endpoints) -> None:
    assert not is_listening(endpoints.link)
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(endpoints.link.removeprefix("ipc://"))
        served.listen(1)
        # nobody accepts: at last there is no room for one that waits
        assert all(is_listening(endpoints.link) for _ in range(5))
    assert not is_listening(endpoints.link)


def test_send_batch_without_a_recorder_is_refused_at_once(endpoints: Endpoints) -> None:
    tracer = TracerSockets(endpoints)
    assert tracer.send_batch(b"frame") is False
    assert tracer.send(b"hello") is False
    assert tracer.close(0)


def test_send_batch_to_a_stalled_recorder_is_refused_in_bounded_memory(
    recorder: RecorderSockets, tracer: TracerSockets
) -> None:
    frame = bytes(256 << 10)
    until(lambda: tracer.send_batch(frame))
    sent = 1
    while tracer.send_batch(frame) or tracer.poll(100, room=True):
        sent += 1
        assert sent < 200
    assert receive(recorder) == frame


def test_link_message_is_answered_to_the_one_who_sent_it(
    recorder: RecorderSockets, tracer: TracerSockets, endpoints: Endpoints
) -> None:
    other = TracerSockets(endpoints)
    until(lambda: other.send(b"other"))
    until(lambda: tracer.send(b"hello"))
    peers: dict[bytes, bytes] = {}

    def heard() -> bool:
        recorder.poll(100)
        peers.update({message: peer for peer, message in receive_all(recorder.link)})
        return len(peers) == 2

    until(heard)
    assert send_to(recorder.link, peers[b"hello"], b"welcome") is True
    until(lambda: tracer.poll(100))
    assert tracer.receive() == [b"welcome"]
    assert other.receive() == []
    assert other.close(0)


class Stale:
    """A ROUTER that thinks it has reached its mark, until it is asked to look; ``full``: it has."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.looked = 0
        self.sent: list[tuple[bytes, bytes]] = []

    def send_multipart(self, parts: tuple[bytes, bytes], flags: int) -> None:
        assert flags == zmq.DONTWAIT
        if self.full or not self.looked:
            raise zmq.ZMQError(errno.EAGAIN)
        self.sent.append(parts)

    def getsockopt(self, option: int) -> int:
        assert option == zmq.EVENTS
        self.looked += 1
        return 0


@pytest.mark.parametrize("full", [False, True])
def test_send_to_looks_how_far_the_peer_has_read_before_it_gives_up(full: bool) -> None:
    router = Stale(full)
    assert send_to(cast(Socket, router), b"peer", b"reply") is not full
    assert (router.looked, router.sent) == (1, [] if full else [(b"peer", b"reply")])


def test_send_to_a_peer_that_never_was_says_gone(recorder: RecorderSockets) -> None:
    assert send_to(recorder.control, b"nobody", b"reply") is None


def test_poll_ends_at_a_byte_on_the_wake_fd(tracer: TracerSockets) -> None:
    read, write = os.pipe()
    assert tracer.poll(0, read) is False
    os.write(write, b"w")
    assert tracer.poll(10_000, read) is True
    assert tracer.poll(0) is False
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("count", [100, 10 * PARTS_A_CALL])
def test_inbox_keeps_16_parts_of_a_message_and_reads_the_rest_over_several_calls(
    recorder: RecorderSockets, endpoints: Endpoints, count: int
) -> None:
    context = new_context()
    dealer = dealer_to(context, endpoints.link)
    assert dealer.poll(10_000, 2)
    dealer.send_multipart([b"%d" % i for i in range(count)])
    dealer.send(b"next")
    messages: list[list[bytes]] = []
    calls = 0

    def heard() -> bool:
        nonlocal calls
        if recorder.link in recorder.poll(100):
            calls += 1
            messages.extend(recorder.link_inbox.receive())
        return len(messages) == 2

    until(heard)
    assert [message[1:] for message in messages] == [[b"%d" % i for i in range(15)], [b"next"]]
    assert calls >= count // (PARTS_A_CALL + 64)
    assert not recorder.link_inbox.unfinished
    assert close_all(context, [dealer], 0)


def test_message_beyond_the_limit_closes_only_its_connection(
    recorder: RecorderSockets, tracer: TracerSockets, endpoints: Endpoints
) -> None:
    context = new_context()
    dealer = dealer_to(context, endpoints.link)
    assert dealer.poll(10_000, 2)
    dealer.send(bytes(MAX_TO_RECORDER_BYTES + 1))
    until(lambda: tracer.send(b"fine"))
    until(lambda: recorder.link in recorder.poll(100))
    assert [parts[1] for parts in receive_all(recorder.link)] == [b"fine"]
    assert close_all(context, [dealer], 0)


def test_close_all_with_a_socket_left_open_returns_in_time(
    endpoints: Endpoints, recorder: RecorderSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CLOSE_DEADLINE_S", 2.0)
    with ExitStack() as stack:
        context = new_context()
        left = dealer_to(context, endpoints.link)
        stack.callback(left.close, 0)
        began = time.monotonic()
        assert close_all(context, [], 0) is False
        assert time.monotonic() - began < 15


def test_second_listener_on_a_tcp_port_is_refused_by_name() -> None:
    context = new_context()
    socket = context.socket(8)
    port = socket.bind_to_random_port("tcp://127.0.0.1", min_port=20000, max_port=60000)
    with pytest.raises(ConfigError, match=f"cannot listen on tcp://127.0.0.1:{port}"):
        RecorderSockets(parse_address(f"tcp://127.0.0.1:{port}"))
    assert close_all(context, [socket], 0)


def test_listener_in_a_missing_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen on ipc://"):
        RecorderSockets(parse_address(str(tmp_path / "no")))


def test_context_without_descriptors_for_its_sockets_is_an_error_that_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []
    real = os.pipe

    def pipe() -> tuple[int, int]:
        if len(opened) == 6:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        opened.extend(pair := real())
        return pair

    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(OSError, match="Too many open files"):
        new_context()
    for fd in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_close_connections_ends_every_peer_and_they_come_back(
    recorder: RecorderSockets, tracer: TracerSockets, endpoints: Endpoints
) -> None:
    context = new_context()
    dealer = dealer_to(context, endpoints.link)
    until(lambda: tracer.send_batch(b"before"))
    assert receive(recorder) == b"before"
    until(lambda: tracer.send(b"hello"))
    assert receive_from_link(recorder)[1] == b"hello"
    until(lambda: send_now(dealer, b"asks"))
    asked = receive_from_link(recorder)
    assert asked[1] == b"asks"
    # both sockets of the tracer, and the other's
    assert recorder.close_connections() == 3
    assert recorder.close_connections() <= 3
    # what is sent before the end is noticed is lost
    until(lambda: tracer.send_batch(b"after") and recorder.pull in recorder.poll(50))
    assert receive(recorder) == b"after"
    until(lambda: send_now(dealer, b"asks again") and recorder.link in recorder.poll(50))
    # it may have been sent twice
    again = receive_all(recorder.link)[0]
    # another connection has another name: what is still said to the former goes nowhere
    assert again[1] == b"asks again"
    assert again[0] != asked[0]
    assert send_to(recorder.link, asked[0], b"too late") is None
    assert close_all(context, [dealer], 0)


def test_close_connections_leaves_whole_messages_that_wait(recorder: RecorderSockets, tracer: TracerSockets) -> None:
    until(lambda: tracer.send_batch(b"whole"))
    until(lambda: recorder.pull in recorder.poll(100))
    recorder.close_connections()
    assert receive(recorder) == b"whole"


def test_close_connections_on_tcp_leaves_those_of_others_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as mine:
        accepted, _ = server.accept()
        with accepted:
            recorder, endpoints = listening_on_tcp()
            tracer = TracerSockets(endpoints)
            until(lambda: tracer.send_batch(b"frame"))
            assert receive(recorder) == b"frame"
            until(lambda: tracer.send(b"hello"))
            assert receive_from_link(recorder)[1] == b"hello"
            assert recorder.close_connections() == 2
            mine.sendall(b"still here")
            assert accepted.recv(10) == b"still here"
            assert tracer.close(0)
            assert recorder.close(0)
