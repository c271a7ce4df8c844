"""What the benchmark scripts share: interleaved rounds, minimum and median, a table and JSON."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Timing:
    """Nanoseconds for one unit of work."""

    name: str
    minimum: float
    median: float


def interleave(cases: dict[str, Callable[[int], object]], number: int, rounds: int) -> dict[str, Timing]:
    """Times each case ``rounds`` times in turn; a case is called with how many units of work to do."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case(max(1, number // 10))
    for _ in range(rounds):
        for name, case in cases.items():
            gc.collect()
            begin = time.perf_counter_ns()
            case(number)
            samples[name].append((time.perf_counter_ns() - begin) / number)
    return {name: Timing(name, min(values), statistics.median(values)) for name, values in samples.items()}


@dataclass(frozen=True)
class Ratio:
    """A figure against its limit; ``kept`` says whether it holds."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def report(title: str, rows: list[tuple[str, ...]], header: tuple[str, ...], ratios: list[Ratio], data: object) -> None:
    """Prints a table, the ratios with their limits, and one line of JSON."""
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
        print(f"{ratio.name}: {ratio.value:.3g} ({bound} {ratio.limit:.3g}: {'kept' if ratio.kept else 'NOT KEPT'})")
    print(
        json.dumps(
            {
                "python": platform.python_version(),
                "data": data,
                "ratios": [{**asdict(r), "kept": r.kept} for r in ratios],
            }
        )
    )
    sys.stdout.flush()


def timing_rows(timings: dict[str, Timing]) -> list[tuple[str, ...]]:
    return [(t.name, f"{t.minimum:.0f}", f"{t.median:.0f}") for t in timings.values()]
