"""The connections that the sockets of a recorder have accepted, closed one by one or all at once: zmq itself closes none of them.

That drops what has come of messages that are not whole, which no other way gets at: a message of endless parts stays in zmq's memory until its last part, whatever
the limits of the socket are. Whole messages that wait stay, and the sockets listen on. Peers come back by themselves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Final

from frzmq.transport.addresses import Endpoints

_DESCRIPTORS: Final = "/proc/self/fd"
_MOST_DESCRIPTORS: Final = 1 << 16
"""That are tried one by one where there is no descriptor left to list them with."""


def close_accepted(endpoints: Endpoints) -> int:
    """Shuts down what this process has accepted at ``endpoints``; returns how many. zmq sees the end of each, and closes it."""
    places = _places(endpoints)
    return sum(_shut_down(fd, places) for fd in _open_descriptors())


def close_connection(fd: int, endpoints: Endpoints) -> bool:
    """The same for one, if it is one of these. A number may be another file's by now: that is left alone."""
    return _shut_down(fd, _places(endpoints))


def _places(endpoints: Endpoints) -> frozenset[str | int]:
    """What `getsockname` says of them: the path, or the port."""
    every = (endpoints.data, endpoints.link, endpoints.control)
    if endpoints.directory is not None:
        return frozenset(endpoint.removeprefix("ipc://") for endpoint in every)
    return frozenset(int(endpoint.rpartition(":")[2]) for endpoint in every)


def _open_descriptors() -> Iterator[int]:
    try:
        names = os.listdir(_DESCRIPTORS)
    except OSError:
        yield from range(_MOST_DESCRIPTORS)
    else:
        yield from map(int, names)


def _shut_down(fd: int, places: frozenset[str | int]) -> bool:
    """The descriptor is zmq's, and stays open: it is borrowed."""
    try:
        borrowed = socket.socket(fileno=fd)
    except OSError:
        return False  # no socket, or closed in the meantime
    try:
        if borrowed.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
            return False
        name = borrowed.getsockname()
        place = name if isinstance(name, str) else name[1]
        if place not in places or borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        borrowed.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    finally:
        borrowed.detach()
    return True
