"""What `frzmq status` tells, for Prometheus: by a small HTTP server of `prometheus_client`, in threads of its own.

Each scrape asks the recorder's loop for its `Status` once; nothing of the recorder is touched from here.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from frzmq.errors import ConfigError
from frzmq.httpserver import BoundedMixIn
from frzmq.wire.messages import Status, TracerStatus

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PLACES: Final = ("open", "held", "evicted", "late", "overwritten", "missing")
"""Of the ledger: each recorded record is in one of these."""
OUTSIDE: Final = ("dropped", "duplicate", "rejected", "torn")
STATES: Final = ("live", "silent", "stopped", "gone", "dead")
_S: Final = 1e9


class StatusCollector:
    """``ask`` returns the status, or raises TimeoutError: then a scrape has ``frzmq_up 0`` and nothing else."""

    def __init__(self, ask: Callable[[], Status]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        try:
            status = self._ask()
        except TimeoutError:
            yield GaugeMetricFamily("frzmq_up", "whether the recorder answered in time", 0)
            return
        yield GaugeMetricFamily("frzmq_up", "whether the recorder answered in time", 1)
        yield from _of_recorder(status)
        yield from _of_tracers(status.tracers, status.now_ns)


def _of_recorder(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield GaugeMetricFamily("frzmq_recording", "1 while it records", status.state == "on")
    yield GaugeMetricFamily("frzmq_held_bytes", "what the ring takes", status.held_bytes)
    yield GaugeMetricFamily("frzmq_max_bytes", "what the ring may take", status.max_bytes)
    yield GaugeMetricFamily(
        "frzmq_complete_seconds",
        "for so long back every stream is complete",
        (status.now_ns - status.horizon_ns) / _S if status.horizon_ns else 0.0,
    )
    yield GaugeMetricFamily("frzmq_uptime_seconds", "since it began", (status.now_ns - status.started_ns) / _S)
    for name, what, count in (
        ("frzmq_rejected_frames", "frames that no known process can have sent", status.rejected_frames),
        ("frzmq_snapshots", "snapshots made", status.snapshots),
        ("frzmq_flushes", "flushes that clients asked for", status.flushes),
        ("frzmq_trigger_reports", "reports of triggers", status.reports),
        ("frzmq_trigger_reports_suppressed", "those in no snapshot", status.suppressed),
        ("frzmq_stored_snapshots", "snapshots left in the directory", status.stored),
    ):
        yield CounterMetricFamily(name, what, count)
    states = GaugeMetricFamily("frzmq_processes", "by state", labels=["state"])
    for state in STATES:
        states.add_metric([state], sum(tracer.state == state for tracer in status.tracers))
    yield states


def _of_tracers(tracers: tuple[TracerStatus, ...], now_ns: int) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = ["service", "host", "pid", "tracer"]
    recorded = CounterMetricFamily("frzmq_process_records", "made, as far as is known", labels=labels)
    places = GaugeMetricFamily("frzmq_process_ledger", "where its records are", labels=[*labels, "place"])
    outside = CounterMetricFamily("frzmq_process_not_recorded", "by cause", labels=[*labels, "cause"])
    complete = GaugeMetricFamily("frzmq_process_complete_seconds", "for so long back it is complete", labels=labels)
    cpu = CounterMetricFamily("frzmq_process_agent_cpu_seconds", "what its agent took", labels=labels)
    faults = CounterMetricFamily("frzmq_process_agent_faults", "of its agent", labels=labels)
    for tracer in tracers:
        names = [tracer.service, tracer.host, str(tracer.pid), tracer.uuid.hex()]
        recorded.add_metric(names, tracer.recorded)
        for place in PLACES:
            places.add_metric([*names, place], getattr(tracer, place))
        for cause in OUTSIDE:
            outside.add_metric([*names, cause], getattr(tracer, cause))
        complete.add_metric(names, (now_ns - tracer.horizon_ns) / _S if tracer.horizon_ns else 0.0)
        cpu.add_metric(names, tracer.agent_cpu_ns / _S)
        faults.add_metric(names, tracer.agent_errors)
    yield from (recorded, places, outside, complete, cpu, faults)


class _Server(BoundedMixIn, WSGIServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet about a peer that goes away, or was sent away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


_SERVERS: Final = {socket.AF_INET: _Server, socket.AF_INET6: _Server6}


class _Handler(WSGIRequestHandler):
    timeout = _Server.longest_s

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class MetricsServer:
    """Listens until `close`. ``address``: ``HOST:PORT`` or ``PORT`` of this host. Raises ConfigError: no such address, in use, or no ``prometheus-client``."""

    def __init__(self, address: str, ask: Callable[[], Status]) -> None:
        host, port = _parse(address)
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ImportError:
            raise ConfigError("--metrics: wanted the package prometheus-client: pip install 'frzmq[metrics]'") from None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StatusCollector(ask))
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            self._server = _SERVERS[family]((host, port), _Handler)
        except OSError as error:
            raise ConfigError(f"--metrics: cannot listen on {address}: {error.strerror}") from None
        self._server.set_app(make_wsgi_app(registry))
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="frzmq-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 1 << 16):
        raise ConfigError(f"--metrics: wanted HOST:PORT or PORT, got {address!r}")
    return host.strip("[]") or "127.0.0.1", int(port)
