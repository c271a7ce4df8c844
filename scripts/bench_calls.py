"""What it costs to record every call: ns added to one, and the CPU time of whole programs over untraced; beside VizTracer in the same run.
``pip install viztracer pyperformance`` brings it, and the programs richards and deltablue.

python scripts/bench_calls.py [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic_ns as clock
from typing import Any

from bench_capacity import recorder
from benchlib import Case, Comparison, Timing, buffer_kind, interleave, report

import frzmq
from frzmq.control.client import ControlClient
from frzmq.tracer.choice import missing, native

FIB = 23
LEAVES = 200_000
Mode = Callable[[], Any]
"""A context in which calls are recorded, or not."""


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def fib_calls(n: int) -> int:
    return 1 if n < 2 else 1 + fib_calls(n - 1) + fib_calls(n - 2)


def leaf() -> None:
    pass


def leaves() -> None:
    for _ in range(LEAVES):
        leaf()


def of_pyperformance(name: str) -> Any:
    """Its program ``name``, as a module."""
    spec = importlib.util.find_spec("pyperformance")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "data-files" / "benchmarks" / f"bm_{name}" / "run_benchmark.py"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def modes(address: str) -> tuple[dict[str, Mode], dict[str, str]]:
    """And why the others are not there, by their first word. ``frzmq every call``: hot code is not quieted."""
    found: dict[str, Mode] = {"untraced": nullcontext}
    absent = {}
    if native is None:
        absent["frzmq"] = f"only the native buffer records calls: {missing}"
    else:
        recording = partial(frzmq.start, service="bench", recorder=address, logging=False, calls=True)
        found["frzmq"] = recording
        found["frzmq every call"] = partial(recording, calls_per_second=0)
    try:
        from viztracer import VizTracer
    except ImportError:
        absent["VizTracer"] = "no viztracer"
        return found, absent

    @contextmanager
    def tracing(**options: Any) -> Iterator[None]:
        tracer = VizTracer(tracer_entries=1_000_000, verbose=0, **options)
        tracer.start()
        try:
            yield
        finally:
            tracer.stop()
            tracer.clear()

    found["VizTracer"] = partial(tracing, ignore_c_function=True)
    found["VizTracer with C functions"] = tracing
    return found, absent


def elapsed(mode: Mode, work: Callable[[], object], calls: int) -> Case:
    """Nanoseconds of a call."""

    def run(_: int) -> float:
        with mode():
            gc.collect()
            begin = clock()
            work()
            took = clock() - begin
        return took / calls

    return run


def cpu(mode: Mode, work: Callable[[], object]) -> Case:
    """Nanoseconds of CPU time, of all threads of this process."""

    def run(_: int) -> float:
        with mode():
            gc.collect()
            begin = time.process_time_ns()
            work()
            return float(time.process_time_ns() - begin)

    return run


def recorded(mode: Mode, work: Callable[[], object], address: str) -> int:
    """Records that ``work`` makes, those that are lost among them."""

    def made() -> int:
        client.flush()
        return sum(t.records + t.overwritten + t.dropped for t in client.status().tracers)

    with ControlClient(address) as client:
        before = made()
        with mode():
            work()
        return made() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "fib": (partial(fib, FIB), fib_calls(FIB)),
        "leaf": (leaves, LEAVES),
    }
    programs: dict[str, Callable[[], object]] = {}
    richards, deltablue = of_pyperformance("richards"), of_pyperformance("deltablue")
    if richards is not None:
        programs["richards"] = partial(richards.Richards().run, 1)
        # as long as richards: its usual 100 take 3 ms, in which each function is recorded until it is quiet
        programs["deltablue"] = partial(deltablue.delta_blue, 2000)
    with ExitStack() as stack:
        address = stack.enter_context(recorder())
        found, absent = modes(address)
        cases: dict[str, Case] = {}
        for name, (work, count) in calls.items():
            cases |= {f"{mode} {name}": elapsed(found[mode], work, count) for mode in found}
        for name, work in programs.items():
            cases |= {f"{mode} {name}": cpu(found[mode], work) for mode in found}
        timings = interleave(cases, 1, arguments.rounds)
        rows = []
        if "frzmq" in found:
            for name, (work, count) in calls.items():
                records = recorded(found["frzmq every call"], work, address) / count
                rows.append((f"frzmq every call {name}: records a call", f"{records:.2f}", ""))
    added: dict[str, Timing] = {}
    for name in calls:
        bare = timings[f"untraced {name}"]
        for mode in found:
            t = timings[f"{mode} {name}"]
            rows.append((f"{mode} {name}: ns a call", f"{t.minimum:.0f}", f"{t.median:.0f}"))
            added[t.name] = Timing(t.name, t.minimum - bare.minimum, t.median - bare.median)
    for name in programs:
        bare = timings[f"untraced {name}"]
        for mode in found:
            t = timings[f"{mode} {name}"]
            rows.append(
                (
                    f"{mode} {name}: CPU over untraced",
                    f"{t.minimum / bare.minimum:.2f}",
                    f"{t.median / bare.median:.2f}",
                )
            )
    added_compared = Comparison(added, absent)
    for name in calls:
        added_compared.add(
            f"frzmq every call {name}", f"VizTracer {name}", 0.75 if sys.version_info >= (3, 12) else 1.1
        )
    compared = Comparison(timings, {**absent, "untraced": "no pyperformance"})
    for name in ("richards", "deltablue"):
        if sys.version_info >= (3, 12):
            compared.add(f"frzmq {name}", f"untraced {name}", 1.2)
        else:
            compared.skipped.append(f"frzmq {name} / untraced: hot code is quieted on Python 3.12 and later only")
    report(
        f"recording every call, {buffer_kind()} buffer; of calls the ratios are of what is added",
        rows,
        ("", "minimum", "median"),
        added_compared.ratios + compared.ratios,
        [asdict(t) for t in timings.values()],
        added_compared.skipped + compared.skipped,
    )


if __name__ == "__main__":
    main()
