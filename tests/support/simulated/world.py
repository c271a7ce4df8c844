"""Time, chance and the trace of one simulation."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any, Final, NoReturn

import pytest

from frzmq.recorder import spool
from frzmq.tracer import _buffer_py, _writer_py

US: Final = 1_000
MS: Final = 1_000_000
S: Final = 1_000_000_000
START_NS: Final = 10**15
READ_NS: Final = 20
"""A look at a clock takes so long: no two records are of one moment."""
TRACED: Final = 400


class SimulationError(AssertionError):
    """With the seed and what happened last."""


class World:
    """``at`` and ``after`` put things into the future; `run_until` lets them happen, one by one, in the order of time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_ns = START_NS
        self.skew_ns = 0
        """Of the host whose turn it is."""
        self.events = 0
        self._queue: list[tuple[int, int, Callable[[], object]]] = []
        self._order = count()
        self._trace: deque[tuple[int, str, object]] = deque(maxlen=TRACED)

    def at(self, at_ns: int, what: Callable[[], object]) -> None:
        heapq.heappush(self._queue, (at_ns, next(self._order), what))

    def after(self, delay_ns: int, what: Callable[[], object]) -> None:
        self.at(self.now_ns + delay_ns, what)

    def run_until(self, end_ns: int) -> None:
        queue = self._queue
        while queue and queue[0][0] <= end_ns:
            at_ns, _, what = heapq.heappop(queue)
            self.now_ns = max(self.now_ns, at_ns)
            self.events += 1
            what()
        self.now_ns = max(self.now_ns, end_ns)

    def host_ns(self) -> int:
        """What a monotonic clock of that host shows."""
        self.now_ns += READ_NS
        return self.now_ns + self.skew_ns

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def between(self, least: int, most: int) -> int:
        """Small ones are as likely as large ones are: an even draw of the magnitude."""
        if least >= most:
            return least
        span = most - least + 1
        return least + min(int(span ** self.random.random()), span) - 1

    # --- the trace

    def note(self, who: str, what: object) -> None:
        self._trace.append((self.now_ns, who, what))

    def trace(self) -> str:
        lines = (f"{(at_ns - START_NS) / S:12.6f} s  {who:10} {_shown(what)}" for at_ns, who, what in self._trace)
        return "\n".join(lines)

    def fail(self, problem: str) -> NoReturn:
        raise SimulationError(problem)

    def check(self, holds: object, problem: str) -> None:
        if not holds:
            self.fail(problem)

    # --- the clocks and threads of the code under test

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The buffers' clocks are this one; what the recorder's spools would do in a thread happens a little later."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_buffer_py, "clock", self.host_ns)
            patch.setattr(_writer_py, "clock", self.host_ns)
            patch.setattr(spool, "threading", SimpleNamespace(Thread=self._thread))
            yield

    def _thread(self, target: Callable[..., object], args: tuple[Any, ...], **_: object) -> SimpleNamespace:
        return SimpleNamespace(start=lambda: self.after(self.between(100 * US, 300 * MS), lambda: target(*args)))


def _shown(what: object) -> str:
    text = str(what)
    return text if len(text) <= 240 else f"{text[:236]} ..."
