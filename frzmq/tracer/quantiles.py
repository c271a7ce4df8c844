"""Percentiles of durations over the last minutes, in bounded memory: a histogram with buckets of 1/16 of their value, one for each of a few windows."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_NS: Final = 60 * 10**9
WINDOWS: Final = 5
MIN_COUNT: Final = 100
"""Of fewer durations there is no percentile."""


class Quantiles:
    """`add` is called by the program's threads, `limit_ns` is set by `refresh`, which the agent calls now and then."""

    __slots__ = ("_counts", "_since_ns", "_windows", "limit_ns")

    def __init__(self, now_ns: int) -> None:
        self._counts: dict[int, int] = {}
        self._since_ns = now_ns
        self._windows: deque[dict[int, int]] = deque(maxlen=WINDOWS - 1)
        self.limit_ns: int | None = None
        """The percentile, as of the last `refresh`; None: not known."""

    def add(self, took_ns: int) -> None:
        bits = took_ns.bit_length()
        bucket = bits << 4 | (took_ns >> bits - 5 & 15 if bits > 5 else took_ns << 5 - bits & 15)
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0) + 1

    def refresh(self, percentile: int, now_ns: int) -> None:
        if now_ns - self._since_ns >= WINDOW_NS:
            self._windows.append(self._counts)
            self._counts, self._since_ns = {}, now_ns
        merged: dict[int, int] = {}
        for counts in (*self._windows, self._counts.copy()):
            for bucket, count in counts.items():
                merged[bucket] = merged.get(bucket, 0) + count
        total = sum(merged.values())
        if total < MIN_COUNT:
            self.limit_ns = None
            return
        below = 0
        for bucket in sorted(merged):
            below += merged[bucket]
            if below * 100 >= total * percentile:
                bits = bucket >> 4
                self.limit_ns = (17 + (bucket & 15)) << bits - 5 if bits > 5 else 1 << bits
                return
