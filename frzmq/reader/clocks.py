"""Every tracer's clock brought to the recorder's, with a bound of the error.

Tracers on the recorder's machine share its monotonic clock. For others the link measured offset and round trip (a quarter of NTP: the offset is off by half the
round trip at the most); without a sample there is only what the hello said, one way. Flows tighten that: an extract cannot come before its inject.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from frzmq.reader.model import Clock
from frzmq.snapfile.format import SnapshotHeader, StreamHeader

MAX_ROUNDS = 16
"""Of the relaxation: a correction goes one edge further in each."""


def clock_of(stream: StreamHeader, header: SnapshotHeader, *, align: bool) -> Clock:
    """As measured; with ``align`` off the tracer's times stay as they are."""
    error_ns: int | None = stream.rtt_ns // 2
    if stream.machine and stream.machine == header.machine and abs(stream.offset_ns) <= _slack_ns(stream):
        clock = Clock(0, 0, "same machine")
    elif stream.rtt_ns:
        clock = Clock(stream.offset_ns, error_ns, "link")
    else:
        clock = Clock(stream.offset_ns, None, "hello")
    return clock if align else replace(clock, offset_ns=0, error_ns=None, applied=False)


def _slack_ns(stream: StreamHeader) -> int:
    """Within so much an offset measured on one machine is none: in another time namespace it is beyond it."""
    return max(stream.rtt_ns, 50_000_000) if stream.rtt_ns else 10 * 10**9


Edge = tuple[int, int, int]
"""From process, to process, by how many ns at the least the second's clock has to go up against the first's."""


def tighten(clocks: list[Clock], edges: Iterable[Edge]) -> list[Clock]:
    """Moves the clocks that are not the recorder's own until no flow goes back in time, or no further than their error allows."""
    fixed = [clock.source == "same machine" or not clock.applied for clock in clocks]
    moved = [0] * len(clocks)
    wanted = [edge for edge in edges if edge[0] != edge[1]]
    for _ in range(MAX_ROUNDS):
        changed = False
        for source, target, up_ns in wanted:
            short_ns = up_ns - (moved[target] - moved[source])
            if short_ns <= 0:
                continue
            if not fixed[target]:
                step = _limited(clocks[target], moved[target], short_ns)
                moved[target] += step
            elif not fixed[source]:
                step = -_limited(clocks[source], -moved[source], short_ns)
                moved[source] += step
            else:
                continue
            changed = changed or step != 0
        if not changed:
            break
    return [
        replace(clock, offset_ns=clock.offset_ns + by, source="flow edges") if by else clock
        for clock, by in zip(clocks, moved, strict=True)
    ]


def _limited(clock: Clock, moved: int, by: int) -> int:
    return by if clock.error_ns is None else max(0, min(by, clock.error_ns - moved))
