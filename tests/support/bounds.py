"""What a process may take, by its configuration, and what it takes, by /proc. The formulas are those of docs/running.md, in bytes beyond the idle process.

before = Usage.of(pid)
...
assert_within(pid, before, recorder_bounds(RecorderConfig(max_bytes=16 << 20), tracers=4, snapshots=1))
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frzmq.config import RecorderConfig
from frzmq.tracer._api_py import MAX_NAMES
from frzmq.tracer._buffer_py import MAX_STRINGS_BYTES
from frzmq.tracer.machine import WINDOW_BYTES
from frzmq.transport.sockets import CONTROL_HWM, DATA_HWM
from frzmq.wire.batch import COALESCE_BYTES
from frzmq.wire.messages import MAX_CHUNK_BYTES

MIB: Final = 1 << 20
FRAMES_BYTES: Final = (DATA_HWM + 1) * COALESCE_BYTES
"""Of one data connection, in libzmq: what its high-water mark allows, and one under way."""
CLIENT_BYTES: Final = (CONTROL_HWM + 1) * MAX_CHUNK_BYTES
"""The same, of a client that does not read."""
NAME_BYTES: Final = 150
SPAN_BYTES: Final = 1 << 10
"""The type that a span's name has of its own, in the native buffer."""
LEAST_NAME_BYTES: Final = 4
"""In the string table, when there are many."""
DESCRIPTORS_OF_A_TRACER: Final = 4
OWN_BYTES: Final = 16 * MIB
"""What the allocator keeps, pages of the interpreter that were not yet touched, stacks."""
OWN_THREADS: Final = 4
OWN_DESCRIPTORS: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """More than the idle process has."""

    resident_bytes: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Usage:
    resident_bytes: int
    peak_bytes: int
    """The most that it ever was, by the kernel's own count (VmHWM)."""
    shared_bytes: int
    """Of it, shared memory: a tracer's buffer."""
    threads: int
    descriptors: int
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        said = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.split()}
        resident, peak, shared = (int(said[name]) << 10 for name in ("VmRSS", "VmHWM", "RssShmem"))
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        return cls(resident, peak, shared, int(said["Threads"]), len(os.listdir(f"/proc/{pid}/fd")), cpu_s)


def recorder_bounds(
    config: RecorderConfig, *, tracers: int = 0, clients: int = 0, snapshots: int = 0, dead_bytes: int = 0
) -> Bounds:
    """``tracers``: that are connected at once. ``clients``: that read slowly or not at all. ``snapshots``: 1 when some are made, one after the other; what the ring
    forgets stays while one is written that has it. ``dead_bytes``: buffers of tracers that are read at once."""
    cap_bytes = config.max_bytes + 2 * config.max_generation_bytes
    return Bounds(
        resident_bytes=cap_bytes * (1 + snapshots)
        + tracers * FRAMES_BYTES
        + clients * CLIENT_BYTES
        + 2 * dead_bytes
        + OWN_BYTES,
        threads=OWN_THREADS + snapshots,
        descriptors=OWN_DESCRIPTORS + DESCRIPTORS_OF_A_TRACER * tracers + clients + snapshots,
    )


def tracer_bounds(buffer_bytes: int, *, names: int = 0) -> Bounds:
    """Of the process that records, beside what the program itself takes. ``names``: different ones that it uses."""
    strings = min(buffer_bytes // 8, MAX_STRINGS_BYTES) // LEAST_NAME_BYTES
    return Bounds(
        # one cut may copy all that the buffer holds
        resident_bytes=2 * buffer_bytes
        + WINDOW_BYTES
        + FRAMES_BYTES
        + min(names, strings) * NAME_BYTES
        + min(names, MAX_NAMES) * SPAN_BYTES
        + OWN_BYTES // 2,
        threads=OWN_THREADS,
        descriptors=OWN_DESCRIPTORS + 12,
    )


def assert_within(pid: int, idle: Usage, bounds: Bounds) -> Usage:
    """What it takes now, and the most that it ever took."""
    now = Usage.of(pid)
    grown = now.peak_bytes - idle.resident_bytes
    assert grown <= bounds.resident_bytes, f"grew by {grown / MIB:.1f} MiB, {bounds.resident_bytes / MIB:.1f} allowed"
    assert now.threads - idle.threads <= bounds.threads, (idle, now)
    assert now.descriptors - idle.descriptors <= bounds.descriptors, (idle, now)
    return now


def idle_share(pid: int, seconds: float = 0.3) -> float:
    """Of one core, in the time to come."""
    before, began = Usage.of(pid).cpu_s, time.monotonic()
    time.sleep(seconds)
    return (Usage.of(pid).cpu_s - before) / (time.monotonic() - began)
