"""Record locks: the recorder's own, which says that a runtime directory is taken, and those of the tracers, which say who lives.

A record lock goes with its process, however that ends, and no forked child holds it: it alone tells the truth.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import Final

from frzmq.errors import ConfigError
from frzmq.recorder.deaths import how_it_ended, process_of_lock

PROBE_NS: Final = 100_000_000
"""Between two looks at the tracers' locks."""
_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_HELD: Final = (errno.EACCES, errno.EAGAIN)
_SOCKETS: Final = ("data", "link", "control")
_ATTEMPTS: Final = 10


class DirectoryLock:
    """Holds ``lock`` in a runtime directory. Raises ConfigError when another recorder does.

    With the lock in hand the socket files of a dead recorder are removed; `release` removes those of this one, and the lock.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = os.path.join(directory, "lock")
        self._fd = self._take()
        try:
            self._remove_sockets()
        except OSError as error:
            os.close(self._fd)
            raise ConfigError(
                f"cannot remove the sockets of a former recorder in {directory}: {error.strerror}"
            ) from None

    def _take(self) -> int:
        # a recorder that ends removes the file: a lock on a removed file says nothing, hence once more
        for _ in range(_ATTEMPTS):
            fd = self._open()
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_in_place(fd):
                    os.ftruncate(fd, 0)
                    os.write(fd, b"%d\n" % os.getpid())
                    return fd
            except OSError as error:
                owner = _pid_in(fd)
                os.close(fd)
                if error.errno not in _HELD:
                    raise ConfigError(f"cannot lock {self._path}: {error.strerror}") from None
                raise ConfigError(f"another recorder{owner} runs in {self._directory}") from None
            os.close(fd)
        raise ConfigError(f"cannot lock {self._path}: it is removed again and again")

    def _open(self) -> int:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot lock {self._path}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ConfigError(f"cannot lock {self._path}: wanted a plain file")
        return fd

    def _is_in_place(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _remove_sockets(self) -> None:
        for name in _SOCKETS:
            path = os.path.join(self._directory, name)
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
                    os.unlink(path)

    def release(self) -> None:
        """The sockets, then the lock file, then the lock itself."""
        with contextlib.suppress(OSError):
            self._remove_sockets()
        with contextlib.suppress(OSError):
            if self._is_in_place(self._fd):
                os.unlink(self._path)
        os.close(self._fd)


def _pid_in(fd: int) -> str:
    with contextlib.suppress(OSError):
        text = os.pread(fd, 20, 0).strip()
        if text.isdigit():
            return f" (pid {int(text)})"
    return ""


class Liveness:
    """Looks at ``UUID.lock`` of each watched tracer. The file is opened once, so that its removal changes nothing.

    A tracer whose file cannot be opened is not watched: its silence has to tell. Where it was for want of descriptors it is tried again.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._fds: dict[bytes, int] = {}
        self._processes: dict[bytes, int] = {}
        """Handles on those that hold the locks."""
        self._untried: set[bytes] = set()
        self._next_probe_ns = 0

    def watch(self, uuid: bytes) -> bool:
        """False when there is no lock file to look at."""
        if self._directory is None or uuid in self._fds:
            return uuid in self._fds
        try:
            fd = os.open(os.path.join(self._directory, f"{uuid.hex()}.lock"), os.O_RDONLY | _FLAGS)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._untried.add(uuid)
            return False
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return False
        self._fds[uuid] = fd
        process = process_of_lock(fd)
        if process >= 0:
            self._processes[uuid] = process
        return True

    def forget(self, uuid: bytes) -> None:
        self._untried.discard(uuid)
        for fds in (self._fds, self._processes):
            fd = fds.pop(uuid, None)
            if fd is not None:
                os.close(fd)

    def deadline_ns(self) -> int | None:
        """When `probe` is to be called."""
        return self._next_probe_ns if self._fds or self._untried else None

    def probe(self, now_ns: int) -> list[tuple[bytes, str]]:
        """The tracers whose lock is free, and how they ended, at most every PROBE_NS; each is told once and forgotten."""
        if now_ns < self._next_probe_ns:
            return []
        self._next_probe_ns = now_ns + PROBE_NS
        untried, self._untried = self._untried, set()
        for uuid in untried:
            self.watch(uuid)
        free = [uuid for uuid, fd in self._fds.items() if is_free(fd)]
        dead = [(uuid, how_it_ended(self._processes.get(uuid, -1))) for uuid in free]
        for uuid in free:
            self.forget(uuid)
        return dead

    def close(self) -> None:
        for uuid in list(self._fds):
            self.forget(uuid)


def is_free(fd: int) -> bool:
    """A shared lock is taken for an instant: a reader's descriptor is enough, and nobody locks this file a second time."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_UN)
    except OSError:
        return False
    return True
