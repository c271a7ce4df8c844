from __future__ import annotations

from frzmq.recorder.incidents import COALESCE_NS, MAX_REASONS, MIN_GAP_NS, Incidents
from frzmq.triggers import parse_trigger
from frzmq.wire.messages import Report

S = 10**9
T = 1000 * S


class Bench:
    def __init__(self) -> None:
        self.incidents = Incidents()
        self.ids = 0

    def report(self, text: str, at_ns: int, process: str = "web[1]", detail: str = "x") -> None:
        self.ids += 1
        trigger = parse_trigger(text)
        self.incidents.report(b"p", Report(self.ids, text, detail, "ab"), trigger, process, "web", at_ns)

    def due(self, at_ns: int) -> str | None:
        incident = self.incidents.take_due(at_ns)
        return incident.reason() if incident is not None else None


def test_report_makes_one_snapshot_a_moment_later() -> None:
    bench = Bench()
    bench.report("error team=a", T)
    assert bench.incidents.deadline_ns() == T + COALESCE_NS
    assert bench.due(T + COALESCE_NS - 1) is None
    assert bench.due(T + COALESCE_NS) == "error: x in web[1], trace ab, team=a"
    assert bench.due(T + 9 * S) is None
    assert bench.incidents.deadline_ns() is None


def test_reports_of_a_storm_are_one_snapshot_with_all_reasons() -> None:
    bench = Bench()
    for n in range(MAX_REASONS + 5):
        bench.report("error" if n % 2 else "slow 1s", T + n, f"web[{n}]", detail=f"d{n}")
    reason = bench.due(T + COALESCE_NS + 10) or ""
    assert reason.startswith("slow: d0 in web[0], trace ab; error: d1 in web[1], trace ab; ")
    assert len(reason.split("; ")) == MAX_REASONS + 1
    assert reason.endswith("; and 5 more")
    assert (bench.incidents.reports, bench.incidents.suppressed) == (MAX_REASONS + 5, 0)
    assert bench.incidents.deadline_ns() is None


def test_report_in_the_cooldown_is_suppressed_and_after_it_is_not() -> None:
    bench = Bench()
    bench.report("error cooldown=60s", T)
    assert bench.due(T + S) is not None
    bench.report("error cooldown=60s", T + 60 * S - 1, "other[2]")
    assert bench.incidents.deadline_ns() is None
    assert bench.incidents.suppressed == 1
    bench.report("error cooldown=60s", T + 60 * S)
    assert bench.due(T + 61 * S) is not None


def test_reports_beyond_the_number_an_hour_are_suppressed() -> None:
    bench = Bench()
    made = 0
    for n in range(10):
        bench.report("error cooldown=1s per_hour=3", T + n * 60 * S)
        made += bench.due(T + n * 60 * S + S) is not None
    assert made == 3
    bench.report("error cooldown=1s per_hour=3", T + 3600 * S)
    assert bench.due(T + 3601 * S) is not None


def test_window_after_delays_and_the_longest_of_those_that_join_counts() -> None:
    bench = Bench()
    bench.report("error after=2s", T)
    bench.report("slow 1s after=5s", T + S)
    assert bench.incidents.deadline_ns() == T + 6 * S


def test_window_before_counts_from_the_report_and_all_wins() -> None:
    bench = Bench()
    bench.report("error before=10s after=2s", T)
    incident = bench.incidents.take_due(T + 2 * S)
    assert incident is not None
    assert incident.last_ns(T + 2 * S) == 12 * S
    bench.report("slow 1s before=10s", T + 100 * S)
    bench.report("log ERROR", T + 100 * S)
    incident = bench.incidents.take_due(T + 101 * S)
    assert incident is not None
    assert incident.last_ns(T + 101 * S) == 0


def test_different_triggers_one_behind_the_other_keep_a_distance() -> None:
    bench = Bench()
    bench.report("error", T)
    assert bench.due(T + COALESCE_NS) is not None
    bench.report("slow 1s", T + 2 * COALESCE_NS)
    assert bench.incidents.deadline_ns() == T + COALESCE_NS + MIN_GAP_NS


def test_clear_forgets_what_is_under_way_and_counts_it() -> None:
    bench = Bench()
    bench.report("error", T)
    bench.incidents.clear()
    assert bench.due(T + 10 * S) is None
    assert bench.incidents.suppressed == 1


def test_reason_is_one_line_whatever_it_names() -> None:
    bench = Bench()
    bench.report("error", T, "web[1]\n", detail="GET /\r\nERROR all is lost\x1b[2J")
    assert bench.due(T + S) == "error: GET /??ERROR all is lost?[2J in web[1]?, trace ab"
