"""Connected sockets of a tracer, one by one."""

from __future__ import annotations

from frzmq.transport.sockets import Context, Socket, dealer_socket, push_socket


def push_to(context: Context, endpoint: str) -> Socket:
    socket = push_socket(context)
    socket.connect(endpoint)
    return socket


def dealer_to(context: Context, endpoint: str) -> Socket:
    socket = dealer_socket(context)
    socket.connect(endpoint)
    return socket
