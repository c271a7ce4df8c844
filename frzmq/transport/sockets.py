"""Every socket and every socket option: the only ``import zmq``.

A socket belongs to one thread. LINGER is explicit everywhere, a send never blocks, and a receive copies: a kept
zero-copy frame pins its whole receive buffer. ZMTP heartbeats stay off: with a stalled peer at its high-water mark they
lose messages and have aborted the receiver; the link has heartbeats of its own.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Final

import zmq

from frzmq.errors import ConfigError
from frzmq.transport.addresses import Endpoints
from frzmq.transport.connections import close_accepted
from frzmq.wire.batch import MAX_FRAME_BYTES
from frzmq.wire.codec import MAX_MESSAGE_BYTES

DATA_HWM: Final = 8
"""Frames. Small on both sides: what waits is to wait in the tracer's own bounded buffer."""
LINK_HWM: Final = 1000
CONTROL_HWM: Final = 64
"""Messages to one client that wait in the recorder: chunks of a snapshot are up to 256 KiB."""
CLIENT_HWM: Final = 64
HANDSHAKE_MS: Final = 5_000
"""A connection that does not finish its greeting in time is closed: or it holds a file descriptor for ever."""
RECONNECT_MS: Final = 50
RECONNECT_MAX_MS: Final = 2_000
CLOSE_DEADLINE_S: Final = 2.0
"""Beyond the linger: how long closing a context may take before it is left to the process's end."""
MAX_PARTS: Final = 16
"""Parts of one message that are looked at. ROUTER messages have two (identity, message)."""
PARTS_A_CALL: Final = 1024
"""That are read beyond those of honest messages: a few milliseconds."""

Socket = zmq.Socket[bytes]
Context = zmq.Context[zmq.Socket[bytes]]
Poller = zmq.Poller
POLLIN: Final = int(zmq.POLLIN)
POLLOUT: Final = int(zmq.POLLOUT)
TransportError = zmq.ZMQError
Again = zmq.Again


def new_context() -> Context:
    """A context of its own, one I/O thread; close it with `close_all`."""
    context: Context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 64)
    return context


def _socket(context: Context, kind: int, hwm: int, max_bytes: int) -> Socket:
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, hwm)
    socket.setsockopt(zmq.RCVHWM, hwm)
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 5)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    return socket


def push_socket(context: Context, endpoint: str, hwm: int = DATA_HWM) -> Socket:
    """A tracer's data socket, connected. IMMEDIATE: a frame goes to a live connection or is refused."""
    socket = _socket(context, zmq.PUSH, hwm, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.connect(endpoint)
    return socket


def pull_socket(context: Context, endpoint: str, hwm: int = DATA_HWM) -> Socket:
    """The recorder's data socket, bound. ``hwm`` counts frames of each connection. Raises ConfigError: in use, no such host."""
    return _bind(_socket(context, zmq.PULL, hwm, MAX_FRAME_BYTES), endpoint)


def dealer_socket(context: Context, endpoint: str, hwm: int = LINK_HWM) -> Socket:
    """A tracer's link, connected. The ROUTER gives each of its connections a name: one of our own, taken along to the next connection, would be unheard
    there for as long as the former one seems to stand."""
    socket = _socket(context, zmq.DEALER, hwm, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.connect(endpoint)
    return socket


def router_socket(context: Context, endpoint: str, hwm: int = LINK_HWM) -> Socket:
    """The recorder's link or control socket, bound. MANDATORY: a send to a peer that is gone says so."""
    socket = _socket(context, zmq.ROUTER, hwm, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return _bind(socket, endpoint)


def _bind(socket: Socket, endpoint: str) -> Socket:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise ConfigError(f"cannot listen on {endpoint}: {error.strerror}") from None
    return socket


def send_now(socket: Socket, data: bytes) -> bool:
    """False when ``data`` was not taken: nobody connected, or the high-water mark."""
    try:
        socket.send(data, zmq.DONTWAIT)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, errno.EINTR):
            return False
        raise
    return True


def send_to(socket: Socket, peer: bytes, data: bytes) -> bool | None:
    """Send by a ROUTER. True: taken; False: the peer reads too slowly; None: the peer is gone."""
    try:
        socket.send_multipart((peer, data), zmq.DONTWAIT)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, errno.EINTR):
            return False
        if error.errno == zmq.EHOSTUNREACH:
            return None
        raise
    return True


class Inbox:
    """Whole messages of ``socket``, in bounded time: one of very many parts is read over several calls."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._parts: list[bytes] = []
        """Of the message in hand: the first MAX_PARTS of them."""

    @property
    def unfinished(self) -> bool:
        """Parts of a message were read, and not its last."""
        return bool(self._parts)

    def receive(self, most: int = 64) -> list[list[bytes]]:
        """Up to ``most`` messages that wait, each as its parts (the first MAX_PARTS of them; the rest is read and dropped)."""
        socket, parts = self._socket, self._parts
        messages: list[list[bytes]] = []
        try:
            for _ in range(most + PARTS_A_CALL):
                part = socket.recv(zmq.DONTWAIT)
                if len(parts) < MAX_PARTS:
                    parts.append(part)
                if socket.getsockopt(zmq.RCVMORE):
                    continue
                messages.append(parts)
                parts = self._parts = []
                if len(messages) >= most:
                    break
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, errno.EINTR):
                raise
        return messages


def receive_all(socket: Socket, most: int = 64) -> list[list[bytes]]:
    """As `Inbox.receive`, of a peer that is trusted: whole messages, however many parts they have."""
    inbox = Inbox(socket)
    messages = inbox.receive(most)
    while inbox.unfinished:
        messages += inbox.receive(most - len(messages))
    return messages


def close_all(context: Context, sockets: Iterable[Socket], linger_ms: int) -> bool:
    """Close ``sockets``, giving what they still have to send ``linger_ms``, then the context; True when done in time.

    `Context.term` waits for ever when any socket of the context is still open: so it runs aside, with a deadline.
    """
    for socket in sockets:
        socket.close(linger=linger_ms)
    if sys.is_finalizing():
        return False  # no thread can be started any more; the process's end does the rest
    aside = threading.Thread(target=context.term, name="frzmq-close", daemon=True)
    try:
        aside.start()
    except RuntimeError:
        return False
    aside.join(linger_ms / 1000 + CLOSE_DEADLINE_S)
    return not aside.is_alive()


class TracerSockets:
    """The two sockets of a tracer, in the hands of the one thread that made them."""

    def __init__(self, endpoints: Endpoints, *, hwm: int = DATA_HWM) -> None:
        self._context = new_context()
        self._push = push_socket(self._context, endpoints.data, hwm)
        self._dealer = dealer_socket(self._context, endpoints.link)
        self._poller = zmq.Poller()
        self._poller.register(self._dealer, zmq.POLLIN)
        self._inbox = Inbox(self._dealer)
        self._wake_fd: int | None = None
        self._wants_room = False
        self._closed = False

    def send_batch(self, frame: bytes) -> bool:
        """Send one frame; False when the recorder is not there or reads too slowly: keep it, and try again later."""
        return send_now(self._push, frame)

    def send(self, message: bytes) -> bool:
        """Send one link message; False when it was not taken."""
        return send_now(self._dealer, message)

    def receive(self) -> list[bytes]:
        """The link messages that wait, up to 64."""
        return [parts[-1] for parts in self._inbox.receive()]

    def poll(self, timeout_ms: int, wake_fd: int | None = None, *, room: bool = False) -> bool:
        """Wait until a link message, a byte on ``wake_fd`` (not read here), with ``room`` also space for a batch, or the timeout.

        True when something is ready.
        """
        if wake_fd != self._wake_fd:
            if self._wake_fd is not None:
                self._poller.unregister(self._wake_fd)
            if wake_fd is not None:
                self._poller.register(wake_fd, zmq.POLLIN)
            self._wake_fd = wake_fd
        if room != self._wants_room:
            if room:
                self._poller.register(self._push, zmq.POLLOUT)
            else:
                self._poller.unregister(self._push)
            self._wants_room = room
        return bool(self._poller.poll(timeout_ms))

    def close(self, linger_ms: int = 0) -> bool:
        """Close both, giving what was sent up to ``linger_ms`` to leave; True when all of it was closed in time."""
        if self._closed:
            return True
        self._closed = True
        return close_all(self._context, (self._push, self._dealer), linger_ms)


class ClientSocket:
    """The DEALER of a control client, and whether it is connected.

    Not IMMEDIATE: at a disconnect that drops what has arrived and was not yet read, such as the end of a snapshot whose recorder is gone. The
    monitor tells the connection instead.
    """

    def __init__(self, endpoint: str) -> None:
        self._context = new_context()
        self._dealer = _socket(self._context, zmq.DEALER, CLIENT_HWM, MAX_MESSAGE_BYTES)
        self._monitor = self._dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._connected = False
        self._dealer.connect(endpoint)

    def send(self, message: bytes, timeout_ms: int) -> bool:
        """False when no recorder took it in time."""
        return self._wait_connected(timeout_ms) and send_now(self._dealer, message)

    def _wait_connected(self, timeout_ms: int) -> bool:
        while self._monitor.poll(0 if self._connected else timeout_ms, zmq.POLLIN):
            event = int.from_bytes(self._monitor.recv_multipart(zmq.DONTWAIT)[0][:2], sys.byteorder)
            self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return self._connected

    def receive(self, timeout_ms: int) -> bytes | None:
        """One message, or None after the timeout."""
        if not self._dealer.poll(timeout_ms, zmq.POLLIN):
            return None
        messages = receive_all(self._dealer, 1)
        return messages[0][-1] if messages else None

    def close(self, linger_ms: int = 100) -> bool:
        self._dealer.disable_monitor()
        return close_all(self._context, (self._monitor, self._dealer), linger_ms)


class RecorderSockets:
    """The three bound sockets of a recorder and one poller over them, in the hands of the one thread that made them."""

    def __init__(self, endpoints: Endpoints, *, hwm: int = DATA_HWM) -> None:
        self._context = new_context()
        self._endpoints = endpoints
        self._sockets: list[Socket] = []
        self._closed = False
        try:
            self.pull = self._own(pull_socket(self._context, endpoints.data, hwm))
            self.link = self._own(router_socket(self._context, endpoints.link, LINK_HWM))
            self.control = self._own(router_socket(self._context, endpoints.control, CONTROL_HWM))
            self.link_inbox, self.control_inbox = Inbox(self.link), Inbox(self.control)
        except ConfigError:
            self.close(0)
            raise
        self._poller = zmq.Poller()
        for socket in self._sockets:
            self._poller.register(socket, zmq.POLLIN)

    def _own(self, socket: Socket) -> Socket:
        self._sockets.append(socket)
        return socket

    def watch(self, fd: int) -> None:
        """Poll ``fd`` for reading too."""
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._poller.unregister(fd)

    def close_connections(self) -> int:
        """Those of all peers; the sockets listen on. Returns how many."""
        return close_accepted(self._endpoints)

    def poll(self, timeout_ms: int) -> set[Socket | int]:
        """What is ready: the sockets, and the watched file descriptors."""
        return {ready for ready, _ in self._poller.poll(timeout_ms)}

    def frame_receiver(self) -> Callable[[], bytes]:
        """A call for the next part of the data socket; raises `Again` when none waits. Bound once: it runs for every frame."""
        receive, flags = self.pull.recv, zmq.DONTWAIT
        return lambda: receive(flags)

    def close(self, linger_ms: int) -> bool:
        if self._closed:
            return True
        self._closed = True
        return close_all(self._context, self._sockets, linger_ms)
