"""Every socket and every socket option: the only ``import zmq``. Those who connect are in `frzmq.transport.outbound`.

A socket belongs to one thread. LINGER is explicit everywhere, a send never blocks, and a receive copies: a kept
zero-copy frame pins its whole receive buffer. ZMTP heartbeats stay off: with a stalled peer at its high-water mark they
lose messages and have aborted the receiver; the link has heartbeats of its own.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import zmq
import zmq.utils.z85

from frzmq.errors import ConfigError
from frzmq.transport.addresses import Endpoints
from frzmq.transport.connections import close_accepted, close_connection
from frzmq.transport.gate import Gate
from frzmq.transport.keys import ClientKey, KeyPair
from frzmq.transport.zap import ZAP_ENDPOINT, Domain, zap_reply
from frzmq.wire.batch import MAX_FRAME_BYTES
from frzmq.wire.codec import MAX_MESSAGE_BYTES

DATA_HWM: Final = 8
"""Frames. Small on both sides: what waits is to wait in the tracer's own bounded buffer."""
LINK_HWM: Final = 128
CONTROL_HWM: Final = 16
"""Messages to one client that wait in the recorder, until it reads or is gone: chunks of a snapshot are up to 256 KiB."""
CLIENT_HWM: Final = 64
MAX_TO_RECORDER_BYTES: Final = 64 << 10
"""Of a link message or request: so much, times the high-water mark, waits in the recorder for one peer that sends faster than it is read."""
HANDSHAKE_MS: Final = 5_000
"""A connection that does not finish its greeting in time is closed: or it holds a file descriptor for ever."""
RECONNECT_MS: Final = 50
RECONNECT_MAX_MS: Final = 2_000
CLOSE_DEADLINE_S: Final = 2.0
"""Beyond the linger: how long closing a context may take before it is left to the process's end."""
RETRY_REFUSED_S: Final = 2.0
"""A client that was refused does not connect again by itself, and may be admitted later."""
MAX_PARTS: Final = 16
"""Parts of one message that are looked at. ROUTER messages have two (identity, message)."""
PARTS_A_CALL: Final = 1024
"""That are read beyond those of honest messages: a few milliseconds."""

Socket = zmq.Socket[bytes]
Context = zmq.Context[zmq.Socket[bytes]]
Poller = zmq.Poller
POLLIN: Final = int(zmq.POLLIN)
POLLOUT: Final = int(zmq.POLLOUT)
Again = zmq.Again
_HANDSHAKES: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)


class Admission(Protocol):
    """Whom the sockets of a recorder admit, by their public keys; asked at each handshake, and again for each message."""

    @property
    def pair(self) -> KeyPair: ...
    def admits(self, domain: Domain, public: str) -> bool: ...


def new_pair() -> KeyPair:
    """Raises ConfigError: a libzmq without CURVE."""
    _need_curve()
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode("ascii"), secret.decode("ascii"))


def _need_curve() -> None:
    if not library().curve:
        raise ConfigError("keys: wanted a libzmq with CURVE, got one that was built without")


@dataclass(frozen=True, slots=True)
class Library:
    pyzmq: str
    libzmq: str
    curve: bool
    """It can encrypt, and tell who is who."""


def library() -> Library:
    return Library(zmq.pyzmq_version(), zmq.zmq_version(), zmq.has("curve"))


NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_PAIRS: Final = 8
"""Of descriptors: what the sockets of one context take while they are made."""


def new_context() -> Context:
    """A context of its own, one I/O thread; close it with `close_all`. Raises OSError (NO_DESCRIPTORS): there are too few for it and its sockets."""
    _check_descriptors()
    context: Context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 64)
    return context


def _check_descriptors() -> None:
    """zmq aborts the process where it finds none for its epoll. Between this and the sockets the program's threads do not run: nothing gives the interpreter away."""
    held: list[int] = []
    try:
        for _ in range(_PAIRS):
            held += os.pipe()
    finally:
        for fd in held:
            os.close(fd)


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


def push_socket(context: Context, hwm: int = DATA_HWM) -> Socket:
    """A tracer's data socket, not connected yet. IMMEDIATE: a frame goes to a live connection or is refused."""
    socket = _socket(context, zmq.PUSH, hwm, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    return socket


def pull_socket(context: Context, endpoint: str, hwm: int = DATA_HWM, admission: Admission | None = None) -> Socket:
    """The recorder's data socket, bound. ``hwm`` counts frames of each connection. Raises ConfigError: in use, no such host."""
    return _bind(_socket(context, zmq.PULL, hwm, MAX_FRAME_BYTES), endpoint, admission, Domain.RECORD)


def dealer_socket(context: Context, hwm: int = LINK_HWM) -> Socket:
    """A tracer's link, not connected yet. The ROUTER gives each of its connections a name: one of our own, taken along to the next connection, would be unheard
    there for as long as the former one seems to stand."""
    socket = _socket(context, zmq.DEALER, hwm, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    return socket


def client_socket(context: Context) -> Socket:
    """A control client's, not connected yet."""
    return _socket(context, zmq.DEALER, CLIENT_HWM, MAX_MESSAGE_BYTES)


def router_socket(
    context: Context, endpoint: str, domain: Domain, hwm: int, admission: Admission | None = None
) -> Socket:
    """The recorder's link or control socket, bound. MANDATORY: a send to a peer that is gone says so."""
    socket = _socket(context, zmq.ROUTER, hwm, MAX_TO_RECORDER_BYTES)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return _bind(socket, endpoint, admission, domain)


def _bind(socket: Socket, endpoint: str, admission: Admission | None, domain: Domain) -> Socket:
    if admission is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, admission.pair.secret.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, domain.value.encode())
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
    taken = _try_to(socket, peer, data)
    if taken is False:
        # zmq looks how far its peers have read once in a millisecond, and when it is asked: within one, HWM replies to a quick client would be the last
        socket.getsockopt(zmq.EVENTS)
        taken = _try_to(socket, peer, data)
    return taken


def _try_to(socket: Socket, peer: bytes, data: bytes) -> bool | None:
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
        self._parts: list[zmq.Frame] = []
        """Of the message in hand: the first MAX_PARTS of them."""

    @property
    def unfinished(self) -> bool:
        """Parts of a message were read, and not its last."""
        return bool(self._parts)

    def receive(self, most: int = 64) -> list[list[bytes]]:
        """Up to ``most`` messages that wait, each as its parts (the first MAX_PARTS of them; the rest is read and dropped)."""
        return [[part.bytes for part in parts] for parts in self.receive_frames(most)]

    def receive_frames(self, most: int = 64) -> list[list[zmq.Frame]]:
        """The same as frames, which know who sent them; to be copied soon."""
        socket, parts = self._socket, self._parts
        messages: list[list[zmq.Frame]] = []
        try:
            for _ in range(most + PARTS_A_CALL):
                part = socket.recv(zmq.DONTWAIT, copy=False)
                if len(parts) < MAX_PARTS:
                    parts.append(part)
                if part.more:
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


class Connection:
    """A socket that connects to ``endpoint``, whether it is connected, and why it is not: its monitor tells. ``key``: for CURVE."""

    def __init__(self, socket: Socket, endpoint: str, key: ClientKey | None) -> None:
        self._socket = socket
        self._endpoint = endpoint
        self._key = key
        if key is not None:
            _need_curve()
            socket.setsockopt(zmq.CURVE_PUBLICKEY, key.pair.public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, key.pair.secret.encode())
            socket.setsockopt(zmq.CURVE_SERVERKEY, key.recorder.encode())
        self.monitor: Socket = socket.get_monitor_socket(_HANDSHAKES)
        self.connected = False
        self.problem = ""
        """Why the recorder does not take this client, for people, behind its address; "": it does, or is not there."""
        self._failures = 0
        self._again_at = 0.0
        socket.connect(endpoint)

    def look(self, timeout_ms: int = 0) -> bool:
        """Reads what the monitor tells by now, or within the timeout; True when there was anything."""
        told = False
        while self.monitor.poll(0 if told else timeout_ms, zmq.POLLIN):
            told = True
            self._take(int.from_bytes(self.monitor.recv_multipart(zmq.DONTWAIT)[0][:2], sys.byteorder))
        if self._again_at and time.monotonic() >= self._again_at:
            self._again_at = 0.0
            self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)
        return told

    def _take(self, event: int) -> None:
        self.connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        if self.connected:
            self.problem, self._failures = "", 0
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            name = self._key.name if self._key is not None else ""
            self._refused(f"does not admit the key {name!r}: it is not known there, revoked, or of another role")
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._refused(self._mismatch())
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # libzmq tries again; one alone may be a recorder that ended meanwhile
            self._failures += 1
            if self._failures > 1:
                self.problem = self._mismatch()

    def _refused(self, why: str) -> None:
        self.problem = why
        self._again_at = time.monotonic() + RETRY_REFUSED_S

    def _mismatch(self) -> str:
        if self._key is None:
            return "breaks off the handshake: it wants a key, and there is none here"
        return "breaks off the handshake: it has another key than the key file says, or none"

    def close(self) -> None:
        """The monitor; the socket is to be closed by its owner, with it."""
        self._socket.disable_monitor()


@dataclass(frozen=True, slots=True)
class Received:
    parts: list[bytes]
    public: str
    """The sender's key; "": the sockets take anybody."""


class RecorderSockets:
    """The three bound sockets of a recorder and one poller over them, in the hands of the one thread that made them.

    With an ``admission`` they speak CURVE only, with those that it admits: whoever it admits no more is not heard, and its connection is closed.
    """

    def __init__(self, endpoints: Endpoints, *, hwm: int = DATA_HWM, admission: Admission | None = None) -> None:
        self._context = new_context()
        self._endpoints = endpoints
        self._sockets: list[Socket] = []
        self._closed = False
        self._admission = admission
        self._zap: Socket | None = None
        self._peers: dict[int, str] = {}
        """The public keys of those that were heard, by the file descriptors of their connections."""
        self.refused = 0
        """Handshakes; of the last the public key:"""
        self.refused_last = ""
        try:
            if admission is not None:
                _need_curve()
                # it stands before there is a handshake to ask about
                self._zap = self._own(_socket(self._context, zmq.REP, LINK_HWM, MAX_MESSAGE_BYTES))
                self._zap.bind(ZAP_ENDPOINT)
            self.pull = self._own(pull_socket(self._context, endpoints.data, hwm, admission))
            self.link = self._own(router_socket(self._context, endpoints.link, Domain.RECORD, LINK_HWM, admission))
            self.control = self._own(
                router_socket(self._context, endpoints.control, Domain.CONTROL, CONTROL_HWM, admission)
            )
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

    def gate(self) -> Gate:
        """Of its listeners."""
        return Gate(self._endpoints)

    def poll(self, timeout_ms: int) -> set[Socket | int]:
        """What is ready: the sockets, and the watched file descriptors. Handshakes are answered here."""
        ready = {ready for ready, _ in self._poller.poll(timeout_ms)}
        if self._zap is not None and self._zap in ready:
            ready.discard(self._zap)
            for request in receive_all(self._zap, 1):
                self._zap.send_multipart(zap_reply(request, self._admit), zmq.DONTWAIT)
        return ready

    def _admit(self, domain: Domain, key: bytes) -> str:
        public: str = zmq.utils.z85.encode(key).decode("ascii")
        if self._admission is not None and self._admission.admits(domain, public):
            return public
        self.refused += 1
        self.refused_last = public
        return ""

    def receive(self, socket: Socket, most: int = 64) -> list[Received]:
        """Up to ``most`` waiting messages of the link, or of control."""
        inbox, domain = (
            (self.link_inbox, Domain.RECORD) if socket is self.link else (self.control_inbox, Domain.CONTROL)
        )
        if self._admission is None:
            return [Received(parts, "") for parts in inbox.receive(most)]
        received = []
        for frames in inbox.receive_frames(most):
            public = self._sender(frames[-1], domain)
            if public is not None:
                received.append(Received([frame.bytes for frame in frames], public))
        return received

    def frame_receiver(self) -> Callable[[], bytes]:
        """A call for the next part of the data socket; raises `Again` when none waits. Bound once: it runs for every frame."""
        receive, flags = self.pull.recv, zmq.DONTWAIT
        if self._admission is None:
            return lambda: receive(flags)

        def receive_admitted() -> bytes:
            while True:
                frame = receive(flags, copy=False)
                if self._sender(frame, Domain.RECORD) is not None:
                    return bytes(frame.bytes)

        return receive_admitted

    def _sender(self, frame: zmq.Frame, domain: Domain) -> str | None:
        """Its public key; None: it is admitted no more, and is cut off."""
        assert self._admission is not None
        public, fd = str(frame.get("User-Id")), int(frame.get(zmq.SRCFD))
        self._peers[fd] = public
        if self._admission.admits(domain, public):
            return public
        self._cut(fd)
        return None

    def cut(self, publics: frozenset[str]) -> None:
        """Closes the connections of these keys. They may come again, and are asked then."""
        for fd in [fd for fd, public in self._peers.items() if public in publics]:
            self._cut(fd)

    def _cut(self, fd: int) -> None:
        """Where the number has become that of another peer's connection, that one connects again: a tracer loses nothing, a client's request may have to be
        asked anew."""
        self._peers.pop(fd, None)
        close_connection(fd, self._endpoints)

    def close(self, linger_ms: int) -> bool:
        if self._closed:
            return True
        self._closed = True
        return close_all(self._context, self._sockets, linger_ms)
