"""What strangers can make a recorder hold: watched from within, where neither zmq's limits nor the machine's reach.

Beyond a bound of memory, or short of descriptors, all connections are closed. Honest tracers come back at once, and send again what was under way; a message
without end, or thousands of idle peers, are gone.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

LOOK_NS: Final = 100_000_000
"""Between two looks"""
ALERT_NS: Final = 20_000_000
"""and while something grows, or just after a cut: what comes in that time is on top of the bound, 20 MB where 1 GB/s come."""
GROWTH_BYTES: Final = 4 << 20
GROWTH_DESCRIPTORS: Final = 16
"""Between two looks: it grows."""
GRANT_NS: Final = 200_000_000
"""For so long a cut may take to help: zmq's thread gives the memory back."""
MAX_GRANT_NS: Final = 10 * 10**9
"""When cuts do not help they become rare: something else is large."""
ALLOWANCE_BYTES: Final = 128 << 20
"""Beside the ring: frames that wait in the sockets, a snapshot or a status that is made, what the allocator keeps."""
TRACER_BYTES: Final = 128 << 10
"""Two connections, 27 KB each, and what is known of it."""
RESERVED_DESCRIPTORS: Final = 4096
"""That are to stay free, or a quarter of all where that is less. Without any zmq aborts the process (ipc), or spins (tcp); it accepts up to 2000 in 100 ms."""


def rss_bytes() -> int | None:
    """What this process has in memory; None where nothing tells."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * resource.getpagesize()


def give_back_memory() -> None:
    """What is free in the allocator of C goes back to the system, where that is glibc's: others do it by themselves."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    trim(0)


def descriptors() -> tuple[int, int]:
    """How many can be open, and how many of them still can be opened.

    They are counted, not tried: who tries takes the last ones for a moment, and ends the process if zmq accepts in that moment.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        try:
            # their number since Linux 6.2, else 0 (proc_pid_fd(5)): 1.4 us where a list of 5000 takes 1.8 ms
            count = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
        except FileNotFoundError:
            count = len(os.listdir("/dev/fd"))
    except OSError:
        return limit, 0
    return limit, max(0, limit - count)


class Guard:
    """``ring_bytes``: what the ring may take. ``memory`` returns what the process takes, None where nothing tells, ``descriptors`` how many it may open and
    how many of them are free, and ``give_back`` makes the allocator return what is."""

    def __init__(
        self,
        ring_bytes: int,
        *,
        memory: Callable[[], int | None],
        descriptors: Callable[[], tuple[int, int]],
        give_back: Callable[[], None],
    ) -> None:
        self._memory, self._descriptors, self._give_back = memory, descriptors, give_back
        self._before_bytes, self._before_free = memory() or 0, 0
        self._fixed_bytes = self._before_bytes + ring_bytes + ring_bytes // 2 + ALLOWANCE_BYTES
        self._next_ns = 0
        self._granted_until_ns = self._frees_until_ns = 0
        self._grant_ns = GRANT_NS
        self.cuts = 0

    def bound_bytes(self, tracers: int) -> int:
        return self._fixed_bytes + TRACER_BYTES * tracers

    def deadline_ns(self) -> int:
        """When it wants to look."""
        return self._next_ns

    def why_cut(self, tracers: int, now_ns: int) -> str:
        """Why all connections are to be closed now, or ""."""
        if now_ns < self._next_ns:
            return ""
        taken_bytes = self._memory() or 0
        limit, free = self._descriptors()
        grows = taken_bytes >= self._before_bytes + GROWTH_BYTES or free <= self._before_free - GROWTH_DESCRIPTORS
        self._before_bytes, self._before_free = taken_bytes, free
        problem = self._problem(taken_bytes, tracers, limit, free)
        frees = now_ns < self._frees_until_ns
        self._next_ns = now_ns + (ALERT_NS if grows or problem or frees else LOOK_NS)
        if frees:
            self._give_back()
        if not problem:
            self._granted_until_ns, self._grant_ns = 0, GRANT_NS
            return ""
        if now_ns < self._granted_until_ns:
            return ""
        if self._granted_until_ns:
            self._grant_ns = min(2 * self._grant_ns, MAX_GRANT_NS)
        self._granted_until_ns = now_ns + self._grant_ns
        self._frees_until_ns = now_ns + GRANT_NS
        self.cuts += 1
        return problem

    def _problem(self, taken_bytes: int, tracers: int, limit: int, free: int) -> str:
        bound_bytes = self.bound_bytes(tracers)
        if taken_bytes > bound_bytes:
            return f"wanted at most {bound_bytes >> 20} MiB of memory"
        reserved = min(limit // 4, RESERVED_DESCRIPTORS)
        return f"wanted {reserved} of {limit} file descriptors free" if free < reserved else ""
