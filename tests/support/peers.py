"""Connected sockets of a tracer, one by one."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from frzmq.transport.sockets import Context, Socket, dealer_socket, push_socket
from support.until import until


def push_to(context: Context, endpoint: str) -> Socket:
    socket = push_socket(context)
    socket.connect(endpoint)
    return socket


def dealer_to(context: Context, endpoint: str) -> Socket:
    socket = dealer_socket(context)
    socket.connect(endpoint)
    return socket


def until_let_in(turn: Callable[[], object], *sockets: Socket) -> None:
    """``turn``: of the recorder's loop, which lets in one after the other."""

    def all_are() -> bool:
        turn()
        return all(socket.poll(0, zmq.POLLOUT) for socket in sockets)

    until(all_are)
