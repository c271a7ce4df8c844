"""Whom the recorder lets in: anybody, one after the other, for as long as some file descriptors stay free for what it opens itself; then nobody until some return.

Who is not let in waits in the system's queue. Without that zmq would accept until there are none, and then end the process or spin.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

from frzmq.recorder.guard import descriptors

LOOK_NS: Final = 100_000_000
"""Between two looks, while it is shut or a listener is not found."""
MAX_LOOKS: Final = 100
"""For the listeners: where nothing shows them zmq lets in whom it likes."""
RESERVED: Final = 32
"""Descriptors that stay free, or an eighth of all where that is less: the clients' share, snapshots, buffers, locks."""


def some_free() -> bool:
    """As many as are reserved can be opened."""
    limit, free = descriptors()
    return free >= min(RESERVED, limit // 8)


class Listeners(Protocol):
    """What `frzmq.transport.gate.Gate` does."""

    @property
    def complete(self) -> bool: ...
    def find(self) -> list[int]: ...
    def let_in(self, fd: int) -> None: ...


class Door:
    """``watch`` and ``unwatch`` a descriptor for reading; ``free``: some are, see `some_free`."""

    def __init__(
        self,
        listeners: Listeners,
        watch: Callable[[int], object],
        unwatch: Callable[[int], object],
        free: Callable[[], bool],
    ) -> None:
        self._listeners, self._watch, self._unwatch, self._free = listeners, watch, unwatch, free
        self._watched: set[int] = set()
        self._shut: set[int] = set()
        self._looks = 0
        self._next_ns = 0

    def deadline_ns(self) -> int | None:
        """When `turn` is to be called though nobody waits."""
        return self._next_ns if self._shut or self._searches else None

    @property
    def _searches(self) -> bool:
        return not self._listeners.complete and self._looks < MAX_LOOKS

    def turn(self, ready: AbstractSet[object], now_ns: int) -> bool:
        """``ready``: what is readable, among others. True when it has just been shut."""
        was_shut = bool(self._shut)
        for fd in self._watched & ready:
            if self._free():
                self._listeners.let_in(fd)
            else:
                self._unwatch(fd)
                self._watched.discard(fd)
                self._shut.add(fd)
        if now_ns >= self._next_ns:
            self._next_ns = now_ns + LOOK_NS
            self._look()
        return bool(self._shut) and not was_shut

    def _look(self) -> None:
        if self._searches:
            self._looks += 1
            self._open(self._listeners.find())
        if self._shut and self._free():
            shut, self._shut = self._shut, set()
            self._open(shut)

    def _open(self, fds: list[int] | set[int]) -> None:
        for fd in fds:
            self._watch(fd)
            self._watched.add(fd)
