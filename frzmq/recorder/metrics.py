"""What `frzmq status` tells, for Prometheus: by service, in threads of its own.

Each scrape asks the recorder's loop for its `Status`, at the most once in `FRESH_S`; nothing of the recorder is touched from here. Names and units are those of
Prometheus' conventions; processes come and go, so that they are no labels: their counts are summed by service, and stay in the sums when a process is forgotten.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from frzmq.errors import ConfigError
from frzmq.httpserver import BoundedMixIn
from frzmq.transport.addresses import is_loopback_host
from frzmq.wire.ledger import LOST
from frzmq.wire.messages import Status, TracerStatus

if TYPE_CHECKING:
    from prometheus_client.core import Metric

STATES: Final = ("live", "silent", "stopped", "gone", "dead")
NOT_TAKEN: Final = ("duplicate", "rejected")
MAX_SERVICES: Final = 100
OTHERS: Final = "(others)"
"""Services beyond that many."""
FRESH_S: Final = 0.5
_COUNTED: Final = ("recorded", "evicted", *LOST, *NOT_TAKEN, "agent_cpu_ns", "agent_errors")
_S: Final = 1e9


class _Totals:
    """Sums by service that never go down."""

    def __init__(self) -> None:
        self.by_service: dict[str, Counter[str]] = {}
        self._seen: dict[tuple[bytes, int], dict[str, int]] = {}
        """What was added of each process so far."""

    def name(self, service: str) -> str:
        """Of the service, among the first MAX_SERVICES that were met."""
        return service if service in self.by_service or len(self.by_service) < MAX_SERVICES else OTHERS

    def add(self, tracers: tuple[TracerStatus, ...], *, whole: bool) -> None:
        """``whole``: they are all that the recorder knows, so that it has forgotten the others."""
        seen: dict[tuple[bytes, int], dict[str, int]] = {}
        for tracer in tracers:
            key = (tracer.uuid, tracer.joined_ns)
            before = self._seen.get(key, {})
            totals = self.by_service.setdefault(self.name(tracer.service), Counter())
            now = seen[key] = {}
            for name in _COUNTED:
                value: int = getattr(tracer, name)
                # missing goes down when some of it comes late
                now[name] = max(value, before.get(name, 0))
                totals[name] += now[name] - before.get(name, 0)
        self._seen = seen if whole else self._seen | seen


class StatusCollector:
    """``ask`` returns the status, or raises TimeoutError: then a scrape has ``frzmq_up 0`` and nothing else of the recorder; ``faults``: how many errors of its own it went on after."""

    def __init__(self, ask: Callable[[], Status], faults: Callable[[], int]) -> None:
        self._ask = ask
        self._faults = faults
        self._lock = threading.Lock()
        self._totals = _Totals()
        self._metrics: list[Metric] = []
        self._asked_s = float("-inf")

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() - self._asked_s >= FRESH_S:
                self._metrics = list(self._collected())
                self._asked_s = time.monotonic()
            metrics = self._metrics
        yield from metrics

    def _collected(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        try:
            status = self._ask()
        except TimeoutError:
            yield GaugeMetricFamily("frzmq_up", "Whether the recorder answered in time.", 0)
            return
        yield GaugeMetricFamily("frzmq_up", "Whether the recorder answered in time.", 1)
        yield CounterMetricFamily("frzmq_faults", "Errors of its own after which the recorder went on.", self._faults())
        yield from _of_recorder(status)
        self._totals.add(status.tracers, whole=status.more == 0)
        yield from self._of_services(status)

    def _of_services(self, status: Status) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        def counters(name: str, what: str, columns: dict[str, str], label: str = "", scale: float = 1) -> Metric:
            family = CounterMetricFamily(name, what, labels=["service", *filter(None, (label,))])
            for service, totals in self._totals.by_service.items():
                for column, value in columns.items():
                    family.add_metric([service, *filter(None, (value,))], totals[column] / scale)
            return family

        yield counters("frzmq_records", "Records made, as far as the recorder knows.", {"recorded": ""})
        yield counters("frzmq_records_evicted", "Records let go, for age or for size.", {"evicted": ""})
        yield counters("frzmq_records_lost", "Records that cannot be had.", {cause: cause for cause in LOST}, "cause")
        yield counters(
            "frzmq_records_not_taken",
            "Records that came again, or with a wrong proof.",
            {cause: cause for cause in NOT_TAKEN},
            "cause",
        )
        yield counters("frzmq_agent_cpu_seconds", "What the processes' agents took.", {"agent_cpu_ns": ""}, scale=_S)
        yield counters("frzmq_agent_faults", "Faults of the processes' agents.", {"agent_errors": ""})
        sums: dict[str, Counter[str]] = {service: Counter() for service in self._totals.by_service}
        complete_ns: dict[str, int] = {}
        for tracer in status.tracers:
            service = self._totals.name(tracer.service)
            sums[service].update(
                {"held": tracer.held, "open": tracer.open, "bytes": tracer.held_bytes, tracer.state: 1}
            )
            if tracer.horizon_ns:
                complete_ns[service] = max(complete_ns.get(service, 0), tracer.horizon_ns)
        for name, what, column in (
            ("frzmq_records_held", "Records in the ring.", "held"),
            ("frzmq_records_open", "Records in generations that are not sealed.", "open"),
            ("frzmq_service_held_bytes", "What the ring holds of it.", "bytes"),
        ):
            family = GaugeMetricFamily(name, what, labels=["service"])
            for service, of_service in sums.items():
                family.add_metric([service], of_service[column])
            yield family
        complete = GaugeMetricFamily(
            "frzmq_service_complete_seconds", "For so long back all its processes are complete.", labels=["service"]
        )
        for service, horizon_ns in complete_ns.items():
            complete.add_metric([service], (status.now_ns - horizon_ns) / _S)
        yield complete
        states = GaugeMetricFamily("frzmq_processes", "Processes that the recorder knows.", labels=["service", "state"])
        for service, of_service in sums.items():
            for state in STATES:
                states.add_metric([service, state], of_service[state])
        yield states


def _of_recorder(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    yield InfoMetricFamily("frzmq_recorder", "The recorder.", value={"version": status.version})
    for name, what, value in (
        ("frzmq_recording", "1 while it records.", int(status.state == "on")),
        ("frzmq_held_bytes", "What the ring takes.", status.held_bytes),
        ("frzmq_max_bytes", "What the ring may take.", status.max_bytes),
        ("frzmq_min_age_seconds", "For so long back the ring should hold everything.", status.min_age_ns / _S),
        (
            "frzmq_complete_seconds",
            "For so long back every process is complete.",
            (status.now_ns - status.horizon_ns) / _S if status.horizon_ns else 0.0,
        ),
    ):
        yield GaugeMetricFamily(name, what, value)
    for name, what, count in (
        ("frzmq_rejected_frames", "Frames that no known process can have sent.", status.rejected_frames),
        ("frzmq_snapshots", "Snapshots made.", status.snapshots),
        ("frzmq_flushes", "Flushes that clients asked for.", status.flushes),
        ("frzmq_trigger_reports", "Reports of triggers.", status.reports),
        ("frzmq_trigger_reports_suppressed", "Reports of triggers that are in no snapshot.", status.suppressed),
        ("frzmq_stored_snapshots", "Snapshots that triggers left in the directory.", status.stored),
    ):
        yield CounterMetricFamily(name, what, count)


class _Server(BoundedMixIn, WSGIServer):
    def server_bind(self) -> None:
        # HTTPServer's looks its own name up
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

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
    """Listens until `close`. ``address``: ``HOST:PORT`` or ``PORT`` of this host. Raises ConfigError: no such address, one that others can reach without
    ``insecure``, one in use, or no ``prometheus-client``."""

    def __init__(
        self, address: str, ask: Callable[[], Status], faults: Callable[[], int], *, insecure: bool = False
    ) -> None:
        host, port = _parse(address)
        if not is_loopback_host(host) and not insecure:
            raise ConfigError(
                f"--metrics: wanted a loopback address, got {address}: beyond this host anybody could read it (--insecure: all the same)"
            )
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
        except ImportError:
            raise ConfigError("--metrics: wanted the package prometheus-client: pip install 'frzmq[metrics]'") from None
        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(StatusCollector(ask, faults))
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
