"""What recording costs a web service: the same Starlette application bare, with frzmq, and with OpenTelemetry and its own middleware, in one interleaved run under a fixed load;
and how long it takes from a trigger's condition to the snapshot on the disk. ``pip install starlette uvicorn opentelemetry-sdk opentelemetry-instrumentation-asgi`` brings the peers.

python scripts/bench_services.py [--rounds N] [--requests N] [--rate N] [--snapshots N]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchlib import Ratio, buffer_kind, cpu_s, report

from frzmq.control.client import ControlClient

SPANS = 3


# --- the service: python scripts/bench_services.py --serve VARIANT RECORDER


def serve(variant: str, recorder: str) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.types import ASGIApp

    app: ASGIApp
    if variant == "frzmq":
        import frzmq
        from frzmq.asgi import Middleware

        frzmq.start(service="bench", recorder=recorder, logging=False)

        async def item(request: Request) -> PlainTextResponse:
            for _ in range(SPANS):
                with frzmq.span("work"):
                    await asyncio.sleep(0)
            return PlainTextResponse(request.path_params["n"])

        app = Middleware(Starlette(routes=[Route("/items/{n}", item)]))
    elif variant == "OpenTelemetry":
        from opentelemetry import trace
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        class NullExporter(SpanExporter):
            def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002  # a null exporter
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(NullExporter()))
        trace.set_tracer_provider(provider)
        tracer = trace.get_tracer("bench")

        async def item(request: Request) -> PlainTextResponse:
            for _ in range(SPANS):
                with tracer.start_as_current_span("work"):
                    await asyncio.sleep(0)
            return PlainTextResponse(request.path_params["n"])

        # the spans of receive and send, which nobody else makes, are left out
        app = OpenTelemetryMiddleware(Starlette(routes=[Route("/items/{n}", item)]), exclude_spans=["receive", "send"])
    else:

        async def item(request: Request) -> PlainTextResponse:
            for _ in range(SPANS):
                await asyncio.sleep(0)
            return PlainTextResponse(request.path_params["n"])

        app = Starlette(routes=[Route("/items/{n}", item)])
    # with its protocol: else asyncio does not know it for TCP, and leaves Nagle's algorithm on
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_level="critical", access_log=False, loop="asyncio", http="h11")
        uvicorn.Server(config).run(sockets=[listening])


# --- the load


@dataclass(slots=True)
class Service:
    variant: str
    process: subprocess.Popen[str]
    port: int
    cpu_us: list[float] = field(default_factory=list)
    """Of each round, a request."""
    took_us: list[float] = field(default_factory=list)

    def load(self, requests: int, rate: float) -> None:
        """One after the other, on one connection, begun at fixed times."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        before = cpu_s(self.process.pid)
        at = time.perf_counter()
        for n in range(requests):
            time.sleep(max(0.0, at - time.perf_counter()))
            begin = time.perf_counter()
            connection.request("GET", f"/items/{n}")
            assert connection.getresponse().read() == str(n).encode()
            self.took_us.append((time.perf_counter() - begin) * 1e6)
            at += 1 / rate
        connection.close()
        self.cpu_us.append((cpu_s(self.process.pid) - before) / requests * 1e6)


@contextmanager
def service(variant: str, recorder: str) -> Iterator[Service]:
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", variant, recorder], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield Service(variant, process, int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


@contextmanager
def recorder(directory: str, *options: str) -> Iterator[str]:
    address = f"ipc://{directory}/r"
    command = [sys.executable, "-m", "frzmq", "recorder", "--listen", address, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield address
    finally:
        process.terminate()
        process.communicate()


def costs(rounds: int, requests: int, rate: float) -> tuple[list[tuple[str, ...]], list[Ratio], list[object]]:
    """``bare`` twice: what one differs from the other is noise."""
    variants = ("bare", "frzmq", "OpenTelemetry", "bare, again")
    with tempfile.TemporaryDirectory() as directory, recorder(directory) as address, ExitStack() as stack:
        services = [stack.enter_context(service(variant, address)) for variant in variants]
        for each in services:
            each.load(200, rate)
            each.cpu_us.clear()
            each.took_us.clear()
        for n in range(rounds):
            first = n % len(services)
            for each in services[first:] + services[:first]:
                each.load(requests, rate)
        with ControlClient(address) as client:
            client.flush()
            [tracer] = client.status().tracers
    rows: list[tuple[str, ...]] = []
    data: list[object] = []
    a_request = tracer.records / (200 + rounds * requests)
    assert not tracer.dropped + tracer.overwritten + tracer.missing, tracer
    for each in services:
        took = sorted(each.took_us)
        p50, p99 = statistics.median(took), took[int(len(took) * 0.99)]
        cpu = statistics.median(each.cpu_us)
        rows.append((each.variant, f"{cpu:.0f}", f"{p50:.0f}", f"{p99:.0f}"))
        data.append({"variant": each.variant, "cpu_us": each.cpu_us, "p50_us": p50, "p99_us": p99})
    bare, frzmq, peer, again = (statistics.median(each.cpu_us) for each in services)
    rows.append((f"frzmq over bare, {a_request:.1f} records a request", f"{frzmq / bare:.3f}", "", ""))
    rows.append(("bare, again, over bare: the noise", f"{again / bare:.3f}", "", ""))
    data.append({"records_a_request": a_request, "over_bare": frzmq / bare, "noise": again / bare})
    ratio = Ratio("CPU that frzmq adds to a request / that OpenTelemetry adds", (frzmq - bare) / (peer - bare), 0.1)
    return rows, [ratio], data


# --- from the condition to the file

TRACER = """
import sys, time, frzmq
frzmq.start(service="bench", recorder=sys.argv[1], logging=False)
text = "x" * 1000
for n in range(int(sys.argv[2])):
    frzmq.event("fill", text=text)
    if n % 100 == 0:
        time.sleep(0.005)
frzmq.flush(30)
print("ready", flush=True)
for line in sys.stdin:
    print(time.time_ns(), flush=True)
    try:
        with frzmq.operation("bad"):
            raise KeyError
    except KeyError:
        pass
"""


def snapshots(count: int) -> tuple[list[tuple[str, ...]], list[Ratio], list[object]]:
    """With four processes that hold 10 MiB together; the snapshots' own distance is waited for."""
    took_ms: list[float] = []
    size_bytes = 0
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory, "s")
        options = ("--snapshots", str(store), "--trigger", "error cooldown=0s per_hour=100000", "--min-age", "1h")
        with recorder(directory, *options) as address, ExitStack() as stack:
            tracers = []
            for _ in range(4):
                process = subprocess.Popen(
                    [sys.executable, "-c", TRACER, address, "2600"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                stack.callback(process.kill)
                tracers.append(process)
            for process in tracers:
                assert process.stdout is not None
                process.stdout.readline()
            for n in range(count):
                process = tracers[n % 4]
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("fail\n")
                process.stdin.flush()
                begin_ns = int(process.stdout.readline())
                while len(found := [*store.glob("*.frz")] if store.exists() else []) <= n:
                    time.sleep(0.0005)
                newest = max(found, key=lambda path: path.stat().st_ctime_ns)
                # a file has its name, a link, when all of it is on the disk
                took_ms.append((newest.stat().st_ctime_ns - begin_ns) / 1e6)
                size_bytes = newest.stat().st_size
                time.sleep(5.1)
    p50 = statistics.median(took_ms)
    rows: list[tuple[str, ...]] = [
        (f"condition to file, {size_bytes / (1 << 20):.1f} MiB, ms", "", f"{p50:.0f}", f"{max(took_ms):.0f}")
    ]
    return rows, [Ratio("from the condition to the snapshot on disk, p50, ms", p50, 100.0)], [{"took_ms": took_ms}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rate", type=float, default=250.0, help="requests a second")
    parser.add_argument("--snapshots", type=int, default=7)
    parser.add_argument("--serve", nargs=2, metavar=("VARIANT", "RECORDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    rows, ratios, data = costs(arguments.rounds, arguments.requests, arguments.rate)
    more_rows, more_ratios, more_data = snapshots(arguments.snapshots)
    report(
        f"a web service, {buffer_kind()} buffer",
        rows + more_rows,
        ("", "CPU, us a request", "p50, us", "p99, us / longest"),
        ratios + more_ratios,
        data + more_data,
    )


if __name__ == "__main__":
    main()
