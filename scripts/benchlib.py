"""What the benchmark scripts share: interleaved rounds, minimum and median, a table and JSON."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import CLOCK_MONOTONIC, clock_getres
from time import monotonic_ns as clock

from frzmq.tracer.buffer import make_buffer

assert clock_getres(CLOCK_MONOTONIC) <= 1e-6, "too coarse a clock for these figures"

Body = Callable[[int], object]
"""Does so many units of work."""
Case = Callable[[int], float]
"""Does about so many, and says what one of them took, in ns."""


@dataclass(frozen=True)
class Timing:
    """Nanoseconds for one unit of work."""

    name: str
    minimum: float
    median: float


def cpu_s(pid: int) -> float:
    """Of all its threads, so far, to the nanosecond: the ticks of ``stat`` are 10 ms."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def took(body: Body, number: int) -> float:
    """Nanoseconds that one unit takes, the loop around it with it."""
    gc.collect()
    begin = clock()
    body(number)
    return (clock() - begin) / number


def timed(body: Body, share: float = 1.0) -> Case:
    """``share``: of the number that is asked for, where a unit is slow."""
    return lambda number: took(body, max(1, int(number * share)))


def interleave(cases: Mapping[str, Case], number: int, rounds: int) -> dict[str, Timing]:
    """Runs each case ``rounds`` times in turn."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case(max(10, number // 10))
    for _ in range(rounds):
        for name, case in cases.items():
            samples[name].append(case(number))
    return {name: Timing(name, min(values), statistics.median(values)) for name, values in samples.items()}


def without_loop(timings: Mapping[str, Timing], loop: str, own_loop: tuple[str, ...] = ()) -> dict[str, Timing]:
    """What the loop ``loop`` alone takes, taken off all the others but ``own_loop``, whose loop is another."""
    # of the medians too its minimum: what disturbs the loop is none of the others'
    alone = timings[loop].minimum
    return {
        name: t if name in own_loop else Timing(name, t.minimum - alone, t.median - alone)
        for name, t in timings.items()
        if name != loop
    }


@dataclass(frozen=True)
class Ratio:
    """A figure against its limit; ``kept`` says whether it holds."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    of_medians: float | None = None
    """Of a ratio of minima: the same of the medians, which judges nothing."""

    @property
    def kept(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Comparison:
    """Ratios of timings. What has no peer here, or is not there yet, is told instead of a figure."""

    timings: Mapping[str, Timing]
    absent: Mapping[str, str] = field(default_factory=dict)
    """Why, of each peer that could not be run, by the first word of its timings' names."""
    ratios: list[Ratio] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, of: str, to: str, limit: float) -> None:
        name = f"{of} / {to}"
        for part in (of, to):
            if part not in self.timings:
                self.skipped.append(f"{name} (at most {limit:.3g}): {self.absent.get(part.split()[0], 'not run')}")
                return
        a, b = self.timings[of], self.timings[to]
        self.ratios.append(Ratio(name, a.minimum / b.minimum, limit, of_medians=a.median / b.median))


def report(
    title: str,
    rows: Sequence[tuple[str, ...]],
    header: tuple[str, ...],
    ratios: list[Ratio],
    data: object,
    skipped: list[str] | None = None,
) -> None:
    """Prints a table, the ratios with their limits, what was not measured, and one line of JSON."""
    print(f"# {title}: Python {platform.python_version()}, {platform.machine()}\n")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )
    print()
    for ratio in ratios:
        bound = "at least" if ratio.at_least else "at most"
        medians = "" if ratio.of_medians is None else f", of medians {ratio.of_medians:.3g}"
        kept = "kept" if ratio.kept else "NOT KEPT"
        print(f"{ratio.name}: {ratio.value:.3g}{medians} ({bound} {ratio.limit:.3g}: {kept})")
    for line in skipped or []:
        print(f"not measured: {line}")
    print(
        json.dumps(
            {
                "python": platform.python_version(),
                "data": data,
                "ratios": [{**asdict(r), "kept": r.kept} for r in ratios],
                "skipped": skipped or [],
            }
        )
    )
    sys.stdout.flush()


def buffer_kind() -> str:
    """Of this process's tracer, as ``FRZMQ_BUFFER`` and the installation have it."""
    buffer = make_buffer(os.environ.get("FRZMQ_BUFFER", ""), os.urandom(16), 1, None, 1 << 20)
    try:
        return "native" if buffer.kind == "c" else "pure Python"
    finally:
        buffer.close()


def timing_rows(timings: Mapping[str, Timing]) -> list[tuple[str, ...]]:
    return [(t.name, f"{t.minimum:.0f}", f"{t.median:.0f}") for t in timings.values()]
