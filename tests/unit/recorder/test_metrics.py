from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from frzmq.errors import ConfigError
from frzmq.recorder import metrics
from frzmq.recorder.metrics import MetricsServer
from frzmq.wire.messages import Status, TracerStatus

S = 10**9


def status() -> Status:
    tracers = tuple(
        TracerStatus(
            bytes([pid]) * 16,
            "web",
            pid,
            "live",
            3,
            host="h",
            recorded=10,
            open=1,
            held=4,
            evicted=3,
            overwritten=2,
            dropped=7,
            horizon_ns=90 * S,
            agent_cpu_ns=S // 2,
        )
        for pid in (1, 2)
    )
    return Status("on", "1", 5, b"b" * 16, 100 * S, 40 * S, 60 * S, 1000, 500, 95 * S, snapshots=3, tracers=tracers)


@contextlib.contextmanager
def serving(ask: Callable[[], Status]) -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1:0", ask)
    try:
        yield server
    finally:
        server.close()


def scrape(port: int) -> dict[tuple[str, str], float]:
    """By name, and the labels that tell apart."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (s.name, "/".join(s.labels.get(label, "") for label in ("pid", "state", "place", "cause")).strip("/")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_metrics_say_what_the_status_says_and_each_ledger_adds_up() -> None:
    with serving(status) as server:
        found = scrape(server.port)
    assert found["frzmq_up", ""] == 1
    assert found["frzmq_held_bytes", ""] == 500
    assert found["frzmq_complete_seconds", ""] == 5
    assert found["frzmq_snapshots_total", ""] == 3
    assert found["frzmq_processes", "live"] == 2
    assert found["frzmq_process_not_recorded_total", "2///dropped"] == 7
    places = [value for (name, key), value in found.items() if name == "frzmq_process_ledger" and key.startswith("1/")]
    assert sum(places) == found["frzmq_process_records_total", "1"] == 10
    assert found["frzmq_process_agent_cpu_seconds_total", "1"] == 0.5


def test_metrics_of_a_recorder_that_does_not_answer_say_so() -> None:
    def late() -> Status:
        raise TimeoutError

    with serving(late) as server:
        assert scrape(server.port) == {("frzmq_up", ""): 0}


@pytest.mark.parametrize("address", ["", "host", "host:", "1:99999", "h:-1"])
def test_metrics_of_no_address_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="wanted HOST:PORT or PORT"):
        MetricsServer(address, status)


def test_metrics_on_a_port_that_is_taken_are_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen on"):
        MetricsServer(f"127.0.0.1:{taken.getsockname()[1]}", status)


def test_metrics_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "IDLE_S", 0.05)
    with serving(status) as server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as idle:
        idle.sendall(b"GET /metr")
        assert idle.recv(1) == b""
        assert ("frzmq_up", "") in scrape(server.port)
