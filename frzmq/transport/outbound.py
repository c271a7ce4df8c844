"""Those who connect to a recorder: a tracer with its two sockets, and a control client with one."""

from __future__ import annotations

import socket
import time

from frzmq.transport.addresses import Endpoints
from frzmq.transport.keys import ClientKey
from frzmq.transport.sockets import (
    DATA_HWM,
    POLLIN,
    POLLOUT,
    Connection,
    Inbox,
    Poller,
    client_socket,
    close_all,
    dealer_socket,
    new_context,
    push_socket,
    receive_all,
    send_now,
)


class TracerSockets:
    """The two sockets of a tracer, in the hands of the one thread that made them. ``key``: for a recorder on tcp that has keys."""

    def __init__(self, endpoints: Endpoints, *, hwm: int = DATA_HWM, key: ClientKey | None = None) -> None:
        self._address = endpoints.address
        self._context = new_context()
        self._push = push_socket(self._context, hwm)
        self._dealer = dealer_socket(self._context)
        pairs = ((self._push, endpoints.data), (self._dealer, endpoints.link))
        self._connections: tuple[Connection, ...] = ()
        if endpoints.directory is None:
            self._connections = tuple(Connection(socket, endpoint, key) for socket, endpoint in pairs)
        else:
            # whoever may enter the directory is admitted: there is no handshake to fail
            for socket, endpoint in pairs:
                socket.connect(endpoint)
        self._poller = Poller()
        self._poller.register(self._dealer, POLLIN)
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
                self._poller.register(wake_fd, POLLIN)
            self._wake_fd = wake_fd
        if room != self._wants_room:
            if room:
                self._poller.register(self._push, POLLOUT)
            else:
                self._poller.unregister(self._push)
            self._wants_room = room
        ready = bool(self._poller.poll(timeout_ms))
        for connection in self._connections:
            connection.look()
        return ready

    @property
    def connected(self) -> bool:
        """The recorder has taken both; known on tcp only."""
        return bool(self._connections) and all(connection.connected for connection in self._connections)

    @property
    def problem(self) -> str:
        """Why the recorder does not take this tracer, for people; "": it does, or is not there."""
        problem = next((connection.problem for connection in self._connections if connection.problem), "")
        return problem and f"{self._address} {problem}"

    def close(self, linger_ms: int = 0) -> bool:
        """Close both, giving what was sent up to ``linger_ms`` to leave; True when all of it was closed in time."""
        if self._closed:
            return True
        self._closed = True
        for connection in self._connections:
            connection.close()
        monitors = (connection.monitor for connection in self._connections)
        return close_all(self._context, (*monitors, self._push, self._dealer), linger_ms)


class ClientSocket:
    """The DEALER of a control client, and whether it is connected. ``key``: for a recorder on tcp that has keys.

    Not IMMEDIATE: at a disconnect that drops what has arrived and was not yet read, such as the end of a snapshot whose recorder is gone. The
    monitor tells the connection instead.
    """

    def __init__(self, endpoint: str, key: ClientKey | None = None) -> None:
        self._context = new_context()
        self._dealer = client_socket(self._context)
        self._connection = Connection(self._dealer, endpoint, key)
        self._poller = Poller()
        self._poller.register(self._dealer, POLLIN)
        self._poller.register(self._connection.monitor, POLLIN)

    @property
    def problem(self) -> str:
        """Why the recorder does not take this client, for people, behind its address; "": it does, or is not there."""
        return self._connection.problem

    def send(self, message: bytes, timeout_ms: int) -> bool:
        """False when no recorder took it in time."""
        connection = self._connection
        while connection.look(0 if connection.connected else timeout_ms) and not connection.problem:
            if connection.connected:
                break
        return connection.connected and send_now(self._dealer, message)

    def receive(self, timeout_ms: int) -> bytes | None:
        """One message, or None after the timeout, or when the recorder takes this client no more."""
        until = time.monotonic() + timeout_ms / 1000
        while not self.problem:
            ready = dict(self._poller.poll(max(0, round((until - time.monotonic()) * 1000))))
            if self._dealer in ready:
                return receive_all(self._dealer, 1)[0][-1]
            if not ready:
                return None
            self._connection.look()
        return None

    def close(self, linger_ms: int = 100) -> bool:
        self._connection.close()
        return close_all(self._context, (self._connection.monitor, self._dealer), linger_ms)


def is_listening(endpoint: str) -> bool:
    """Whether somebody serves at an ipc endpoint, also one who is stopped: it is the kernel that connects. Nothing is said by that connection."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(endpoint.removeprefix("ipc://"))
        except BlockingIOError:
            return True  # more wait there than the kernel has room for
        except OSError:
            return False
    return True
