"""Who a tracer is, and the lock that says that it lives."""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import sys
from dataclasses import dataclass
from typing import Final

from frzmq.clock import machine_id

_MAX_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """As `Hello` carries it."""

    uuid: bytes
    pid: int
    parent_pid: int
    service: str
    host: str
    machine: str
    program: str
    python: str


def new_identity(service: str) -> Identity:
    """Of this process, with a uuid that nobody else has."""
    program = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    return Identity(
        uuid=os.urandom(16),
        pid=os.getpid(),
        parent_pid=os.getppid(),
        service=_printable(service),
        host=_printable(socket.gethostname()),
        machine=machine_id(),
        program=_printable(program),
        python=f"{platform.python_implementation()} {platform.python_version()}"[:64],
    )


def _printable(text: str) -> str:
    """As it may go over the wire: without lone surrogates, which file names bring."""
    return text.encode("utf-8", "replace").decode("utf-8")[:_MAX_CHARS]


class LifeLock:
    """A record lock on ``UUID.lock`` in a runtime directory, held until this process ends.

    The file is opened once: closing any descriptor of it would drop the lock. A forked child does not inherit the lock.
    """

    def __init__(self, uuid: bytes, directory: str | None) -> None:
        self._path = os.path.join(directory, f"{uuid.hex()}.lock") if directory is not None else None
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def take(self) -> bool:
        """True when it is held. It may be tried again: the directory may come later."""
        if self._fd is not None or self._path is None:
            return self.held
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def say(self, hello: bytes) -> None:
        """Who this is, for whoever finds the file when this process and its recorder are gone."""
        if self._fd is not None:
            try:
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, hello, 0)
            except OSError:
                pass  # a full disk: then only the pid is known

    def release(self) -> None:
        """Removes the file, then lets go."""
        if self._fd is None or self._path is None:
            return
        try:
            os.unlink(self._path)
        except OSError:
            pass  # somebody removed it before: it is gone all the same
        self.abandon()

    def abandon(self) -> None:
        """Closes the file and leaves it where it is: in a forked child it is the parent's."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
