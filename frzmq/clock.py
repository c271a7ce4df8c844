"""The clocks of this host, all in integer nanoseconds."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from time import monotonic_ns
from time import time_ns as wall_ns

__all__ = ["Clocks", "boottime_ns", "monotonic_ns", "wall_ns"]

if sys.platform == "linux":

    def boottime_ns() -> int:
        """Since boot, the time that the host was suspended included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

else:
    boottime_ns = monotonic_ns


@dataclass(frozen=True, slots=True)
class Clocks:
    """One instant on three clocks (ns): what relates them, and shows a suspend or another time namespace."""

    monotonic_ns: int
    boottime_ns: int
    wall_ns: int

    @classmethod
    def now(cls) -> Clocks:
        """Read one right after the other, the monotonic clock first."""
        return cls(monotonic_ns(), boottime_ns(), wall_ns())
