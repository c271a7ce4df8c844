"""The clocks of this host, all in integer nanoseconds."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from time import monotonic_ns
from time import time_ns as wall_ns
from typing import Final

__all__ = ["Clocks", "boottime_ns", "machine_id", "monotonic_ns", "wall_ns"]

_BOOT_ID_PATH: Final = "/proc/sys/kernel/random/boot_id"

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


def machine_id() -> str:
    """Names the running kernel, whose clocks these are, as `Hello.machine` does; "" where it has no name."""
    try:
        with open(_BOOT_ID_PATH, encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return ""
