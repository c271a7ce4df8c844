"""What a record costs, in ns, beside its peers in the same run: ``pip install viztracer opentelemetry-sdk`` brings them.

python scripts/bench_record.py [--rounds N] [--number N]
"""

from __future__ import annotations

import argparse
import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from benchlib import Ratio, Timing, interleave, report, timing_rows

import frzmq
from frzmq.tracer import api
from frzmq.tracer.buffer import make_buffer
from frzmq.tracer.instrument import suppressed
from frzmq.tracer.watch import watch
from frzmq.wire.messages import Report

MAX_REPORTS = 1_000_000
Case = Callable[[int], object]


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
        for _ in range(number // 10):
            with frzmq.operation("bench") as operation:
                operation.fail("HTTP 503")
    finally:
        watch.clear()
        watch.report = None
        os.close(wake_fd)
        os.close(wake_end)


def recording(case: Case) -> Case:
    """``case`` into a fresh buffer: what is overwritten costs as much as what is sent, and no agent shares the interpreter."""

    def run(number: int) -> None:
        buffer = make_buffer("py", os.urandom(16), 1, None, 4 << 20)
        api.install(buffer)
        try:
            case(number)
        finally:
            api.uninstall()
            buffer.close()

    return run


def viztracer_cases() -> dict[str, Case]:
    from viztracer import VizTracer

    # sparse: what is logged, and no function calls; started for its own rounds only, so that its hook costs nobody else
    tracer = VizTracer(tracer_entries=1_000_000, verbose=0, log_sparse=True)

    def spans(number: int) -> None:
        for _ in range(number):
            with tracer.log_event("bench"):
                pass

    def instants(number: int) -> None:
        for _ in range(number):
            tracer.log_instant("bench")

    def on(case: Case) -> Case:
        def run(number: int) -> None:
            tracer.clear()
            tracer.start()
            try:
                case(number)
            finally:
                tracer.stop()

        return run

    return {"VizTracer log_event": on(spans), "VizTracer log_instant": on(instants)}


def opentelemetry_cases() -> dict[str, Case]:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class NullExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  # a null exporter
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NullExporter()))
    tracer = provider.get_tracer("bench")

    def spans(number: int) -> None:
        for _ in range(number // 10):
            with tracer.start_as_current_span("bench"):
                pass

    return {"OpenTelemetry batch span": spans}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--number", type=int, default=20_000)
    arguments = parser.parse_args()
    cases: dict[str, Case] = {
        "empty with (Python class)": _empty_with,
        "span, off": _spans,
        "event, off": _events,
        "logging.debug, disabled": _disabled_debug,
        "logging.debug, disabled but kept": recording(_suppressed_debug),
        "span": recording(_spans),
        "span, object kept": recording(_spans_kept),
        "event": recording(_events),
        "event, one attribute": recording(_events_with_attribute),
        "gauge": recording(_gauges),
        "operation": recording(_operations),
        "operation that fires a trigger": recording(_fired_triggers),
        **viztracer_cases(),
        **opentelemetry_cases(),
    }
    timings = interleave(cases, arguments.number, arguments.rounds)
    # they did a tenth of the work
    for name in ("OpenTelemetry batch span", "operation that fires a trigger"):
        slow = timings[name]
        timings[name] = Timing(name, slow.minimum * 10, slow.median * 10)

    def ratio(of: str, to: str, limit: float) -> Ratio:
        return Ratio(f"{of} / {to}", timings[of].minimum / timings[to].minimum, limit)

    report(
        "cost of a record, pure Python buffer, ns",
        timing_rows(timings),
        ("", "minimum", "median"),
        [
            ratio("span", "VizTracer log_event", 0.6),
            ratio("span", "OpenTelemetry batch span", 1 / 15),
            ratio("event", "VizTracer log_instant", 1.2),
            ratio("span, off", "empty with (Python class)", 2.0),
        ],
        [asdict(t) for t in timings.values()],
    )


if __name__ == "__main__":
    main()
