from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from frzmq.errors import ConfigError
from frzmq.recorder import metrics
from frzmq.recorder.metrics import MAX_SERVICES, OTHERS, MetricsServer, StatusCollector
from frzmq.wire.messages import Status, TracerStatus

S = 10**9
RUNNING = (Path(__file__).resolve().parents[3] / "docs" / "running.md").read_text()


def process(pid: int, service: str = "web", **more: int | str) -> TracerStatus:
    counts: dict[str, int | str] = {
        "recorded": 15, "open": 1, "held": 4, "evicted": 3, "overwritten": 2, "missing": 4, "late": 1,
        "dropped": 7, "torn": 1, "duplicate": 5, "rejected": 6, "held_bytes": 100, "horizon_ns": 90 * S, "agent_cpu_ns": S // 2,
    }  # fmt: skip
    return TracerStatus(bytes([pid]) * 16, service, pid, generation=3, host="h", **{"state": "live", **counts, **more})  # type: ignore[arg-type]  # a test's own words


def status(*tracers: TracerStatus) -> Status:
    return Status("on", "1.2", 5, b"b" * 16, 100 * S, 40 * S, 60 * S, 1000, 500, 95 * S, snapshots=3, tracers=tracers)


def two() -> Status:
    return status(process(1), process(2, horizon_ns=80 * S), process(3, "db", state="dead"))


@contextlib.contextmanager
def serving(ask: Callable[[], Status]) -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1:0", ask, lambda: 8)
    try:
        yield server
    finally:
        server.close()


Samples = dict[tuple[str, ...], float]
LABELS = ("version", "service", "state", "cause")


def samples(families: Iterable[Metric]) -> Samples:
    return {
        (s.name, *(s.labels[label] for label in LABELS if label in s.labels)): s.value
        for family in families
        for s in family.samples
    }


def scrape(port: int) -> Samples:
    """By name, and the values of the labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return samples(families)


def collected(collector: StatusCollector) -> Samples:
    return samples(collector.collect())


@pytest.fixture
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 0.0)


def test_metrics_say_what_the_status_says_and_each_ledger_adds_up() -> None:
    with serving(two) as server:
        found = scrape(server.port)
    assert found["frzmq_up",] == 1
    assert found["frzmq_recorder_info", "1.2"] == 1
    assert (found["frzmq_held_bytes",], found["frzmq_max_bytes",]) == (500, 1000)
    assert (found["frzmq_complete_seconds",], found["frzmq_min_age_seconds",]) == (5, 60)
    assert (found["frzmq_snapshots_total",], found["frzmq_faults_total",]) == (3, 8)
    assert (found["frzmq_processes", "web", "live"], found["frzmq_processes", "db", "dead"]) == (2, 1)
    assert {key[2]: value for key, value in found.items() if key[:2] == ("frzmq_records_lost_total", "web")} == {
        "overwritten": 4, "missing": 8, "late": 2, "dropped": 14, "torn": 2,
    }  # fmt: skip
    assert found["frzmq_records_not_taken_total", "web", "duplicate"] == 10
    placed = [found[f"frzmq_records_{place}", "web"] for place in ("held", "open", "evicted_total")]
    placed += [found["frzmq_records_lost_total", "web", cause] for cause in ("overwritten", "missing", "late")]
    assert sum(placed) == found["frzmq_records_total", "web"] == 30
    assert (found["frzmq_service_complete_seconds", "web"], found["frzmq_service_held_bytes", "web"]) == (10, 200)
    assert found["frzmq_agent_cpu_seconds_total", "web"] == 1.0
    assert found["process_resident_memory_bytes",] > 1 << 20


def test_metrics_have_no_more_series_for_more_processes() -> None:
    sizes = []
    for many in (2, 200):
        answer = status(*(dataclasses.replace(process(1), uuid=n.to_bytes(16, "big")) for n in range(many)))
        sizes.append(len(collected(StatusCollector(lambda answer=answer: answer, lambda: 0))))  # type: ignore[misc]
    assert sizes[0] == sizes[1] < 50


def test_metrics_of_a_process_that_a_status_has_no_room_for_are_not_counted_twice() -> None:
    totals = metrics._Totals()
    both = two().tracers
    totals.add(both, whole=True)
    before = {service: dict(counts) for service, counts in totals.by_service.items()}
    totals.add(both[:1], whole=False)
    totals.add(both, whole=True)
    assert {service: dict(counts) for service, counts in totals.by_service.items()} == before


@pytest.mark.usefixtures("always_fresh")
def test_metrics_that_count_never_go_down() -> None:
    """When a process is forgotten, when what was missing comes late, when a process comes anew."""
    now = [status(process(1), process(2))]
    collector = StatusCollector(lambda: now[0], lambda: 0)
    collected(collector)
    now[0] = status(process(1, missing=1, late=4))
    found = collected(collector)
    assert (found["frzmq_records_total", "web"], found["frzmq_records_held", "web"]) == (30, 4)
    assert found["frzmq_records_lost_total", "web", "missing"] == 8
    assert found["frzmq_records_lost_total", "web", "late"] == 5
    now[0] = status()
    assert collected(collector)["frzmq_records_total", "web"] == 30
    now[0] = status(dataclasses.replace(process(1), joined_ns=9))
    assert collected(collector)["frzmq_records_total", "web"] == 45


@pytest.mark.usefixtures("always_fresh")
def test_metrics_of_many_services_are_bounded_and_the_rest_is_summed() -> None:
    tracers = tuple(process(n, f"s{n}") for n in range(MAX_SERVICES + 7))
    collector = StatusCollector(lambda: status(*tracers), lambda: 0)
    for _ in range(2):
        found = collected(collector)
        assert sum(key[0] == "frzmq_records_total" for key in found) == MAX_SERVICES + 1
        assert found["frzmq_records_total", OTHERS] == 7 * 15
        assert found["frzmq_processes", OTHERS, "live"] == 7


def test_metrics_ask_the_recorder_once_for_scrapes_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # whatever comes between the two
    monkeypatch.setattr(metrics, "FRESH_S", 3600.0)
    asked = []
    collector = StatusCollector(lambda: asked.append(1) or two(), lambda: 0)  # type: ignore[func-returns-value]
    assert collected(collector) == collected(collector)
    assert asked == [1]


def test_metrics_of_a_recorder_that_does_not_answer_say_so() -> None:
    def late() -> Status:
        raise TimeoutError

    with serving(late) as server:
        found = scrape(server.port)
    assert {key: value for key, value in found.items() if key[0].startswith("frzmq")} == {("frzmq_up",): 0}


def test_metrics_names_are_those_of_the_document_and_of_prometheus_conventions() -> None:
    families = list(StatusCollector(two, lambda: 0).collect())
    names = {s.name: family.type for family in families for s in family.samples}
    table = RUNNING.partition("## Metrics")[2].partition("Worth an alert")[0]
    said = {
        name
        for row in re.findall(r"^\| (`frzmq_.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(frzmq_\w+)`", row)
    }
    assert set(names) == said
    alerts = set(re.findall(r"frzmq_\w+", RUNNING.partition("Worth an alert")[2].partition("## ")[0]))
    assert alerts <= said
    for name, type_ in names.items():
        assert name.endswith("_total") == (type_ == "counter"), name
        assert not re.search(r"_(ns|ms|us|kb|mb|minutes)(_|$)", name), name
    labels = {label for family in families for s in family.samples for label in s.labels}
    assert labels == {"service", "state", "cause", "version"}


def test_metrics_without_the_package_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'frzmq\[metrics\]'"):
        MetricsServer("127.0.0.1:0", two, lambda: 0)


@pytest.mark.parametrize("address", ["", "host", "host:", "1:99999", "h:-1"])
def test_metrics_of_no_address_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="wanted HOST:PORT or PORT"):
        MetricsServer(address, two, lambda: 0)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "example.invalid:0", "192.0.2.1:0"])
def test_metrics_beyond_this_host_are_refused_unless_that_is_said(address: str) -> None:
    with pytest.raises(ConfigError, match="wanted a loopback address"):
        MetricsServer(address, two, lambda: 0)


def test_metrics_beyond_this_host_are_tried_when_that_is_said() -> None:
    # an address that this host does not have: nothing listens
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        MetricsServer("192.0.2.1:0", two, lambda: 0, insecure=True)


def test_metrics_on_a_port_that_is_taken_are_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen on"):
        MetricsServer(f"127.0.0.1:{taken.getsockname()[1]}", two, lambda: 0)
