"""Lets connections in one at a time. By itself zmq's thread accepts whoever connects, and where it finds no file descriptor for one it ends the process (ipc) or spins (tcp).

The listeners' entries in the epoll of that thread, which /proc shows, are set to fire once each (EPOLLONESHOT): then one connection is accepted, and the next waits in the
system's queue until it is let in. The thread itself never touches these entries again before it closes the listener. Linux only: elsewhere nothing is gated.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frzmq.transport.addresses import Endpoints
from frzmq.transport.connections import places

_EPOLLIN: Final = 1
_EPOLLONESHOT: Final = 1 << 30
_EPOLL_CTL_MOD: Final = 3


class _Event(ctypes.Structure):
    """``struct epoll_event`` (epoll_ctl(2)), which the kernel has packed on x86-64 alone."""

    if platform.machine() in ("x86_64", "AMD64"):
        _pack_ = 1
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


@dataclass(frozen=True, slots=True)
class _Entry:
    epoll: int
    data: int
    """The thread's own."""


class Gate:
    """Of the listeners at ``endpoints``, in the process that has bound them."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._places = places(endpoints)
        self._entries: dict[int, _Entry] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    @property
    def complete(self) -> bool:
        """Every listener is gated."""
        return len(self._entries) == len(self._places)

    def find(self) -> list[int]:
        """The descriptors of listeners that are gated from now on; each is readable while somebody waits to be let in. Those that zmq's thread has not begun with come later."""
        try:
            descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
        except OSError:
            return []
        listeners = {fd for fd in descriptors if fd not in self._entries and self._is_listener(fd)}
        found = []
        for epoll in descriptors if listeners else ():
            for fd, data in _entries_of(epoll):
                if fd in listeners:
                    self._entries[fd] = _Entry(epoll, data)
                    self.let_in(fd)
                    found.append(fd)
        return found

    def let_in(self, fd: int) -> None:
        """One more connection to this listener."""
        entry = self._entries[fd]
        event = _Event(_EPOLLIN | _EPOLLONESHOT, entry.data)
        if self._libc.epoll_ctl(entry.epoll, _EPOLL_CTL_MOD, fd, ctypes.byref(event)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _is_listener(self, fd: int) -> bool:
        """The descriptor is zmq's, and stays open: it is borrowed."""
        try:
            borrowed = socket.socket(fileno=fd)
        except OSError:
            return False
        try:
            name = borrowed.getsockname()
            place = name if isinstance(name, str) else name[1] if isinstance(name, tuple) else None
            return place in self._places and bool(borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        except OSError:
            return False
        finally:
            borrowed.detach()


def _entries_of(epoll: int) -> list[tuple[int, int]]:
    """Descriptor and data of what waits for input in an epoll; nothing, where it is none (proc_pid_fdinfo(5))."""
    try:
        lines = Path(f"/proc/self/fdinfo/{epoll}").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        words = line.split()
        if words[:1] == ["tfd:"] and words[2:5:2] == ["events:", "data:"] and int(words[3], 16) & _EPOLLIN:
            found.append((int(words[1]), int(words[5], 16)))
    return found
