"""Every call, while another tool sees them too."""

from __future__ import annotations

import bdb
import cProfile
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.called import MONITORED, hot, leaf, of, recorder, shown, total
from support.flights import taken
from support.programs import Program

from frzmq.errors import ConfigError
from frzmq.flight import FlightRecorder
from frzmq.reader.snapshot import open_snapshot
from frzmq.reader.validate import validate
from frzmq.tracer.choice import native

pytestmark = [
    pytest.mark.usefixtures("runtime_directory"),
    pytest.mark.skipif(native is None, reason="only the native buffer records calls"),
]


@pytest.fixture
def other_tool() -> Iterator[int]:
    """A tool that wants no events; on 3.11, where there is no such thing, nothing."""
    if sys.version_info < (3, 12):
        yield 0
        return
    sys.monitoring.use_tool_id(1, "other")
    yield 1
    sys.monitoring.free_tool_id(1)


def test_calls_beside_cprofile_both_see_them(tmp_path: Path) -> None:
    if not MONITORED:
        pytest.skip("3.11 has one hook for both")
    profile = cProfile.Profile()
    with recorder() as flight:
        profile.enable()
        total(2)
        profile.disable()
        total(2)
        snapshot = taken(flight, tmp_path)
    profile.create_stats()
    stats: Any = profile
    assert {key[2]: row[0] for key, row in stats.stats.items()}["leaf"] == 3
    assert len(of(snapshot, "leaf")) == 6


COVERED = """
    import coverage

    measured = coverage.Coverage(data_file=None, include=["*helper.py"])
    measured.start()
    import frzmq
    import helper

    with frzmq.start(service="s", calls=True, calls_include=("helper",), calls_per_second=50):
        helper.work()
        frzmq.snapshot("s.frz")
    measured.stop()
    print(sorted(measured.get_data().lines(helper.__file__)))
"""
HELPER = "def leaf(n):\n    if n == 900:\n        return 2\n    return 1\n\ndef work():\n    for n in range(1000):\n        leaf(n)\n"


@pytest.mark.parametrize("core", ["ctrace", "sysmon"])
def test_calls_beside_coverage_both_see_them(tmp_path: Path, core: str) -> None:
    pytest.importorskip("coverage")
    if not MONITORED and core == "sysmon":
        pytest.skip("sys.monitoring came with 3.12")
    (tmp_path / "helper.py").write_text(HELPER)
    variables = {"FRZMQ_RUNTIME_DIR": os.environ["FRZMQ_RUNTIME_DIR"], "COVERAGE_CORE": core}
    said = Program(tmp_path / "program.py", COVERED, **variables).end()
    assert said == "[1, 2, 3, 4, 6, 7, 8]\n"
    snapshot = open_snapshot(tmp_path / "s.frz")
    assert validate(snapshot) == []
    assert [call.end_held for call in snapshot.calls if call.name == "helper.work"] == [True]
    recorded = sum(call.name == "helper.leaf" for call in snapshot.calls)
    counted = [quiet for quiet in snapshot.quiet_calls if quiet.code.name == "helper.leaf"]
    assert 50 <= recorded < 200
    if core == "sysmon":
        # its lines are not to come back each second: quiet code is counted beside it
        assert recorded + sum(quiet.count for quiet in counted) == 1000


def test_calls_beside_a_debugger_both_see_them(flight: FlightRecorder, tmp_path: Path) -> None:
    flight.start()

    class Debugger(bdb.Bdb):
        seen: list[str] = []  # noqa: RUF012

        def user_call(self, frame: types.FrameType, arguments: object) -> None:
            self.seen.append(frame.f_code.co_name)
            self.set_step()

    debugger = Debugger()
    before = sys.gettrace()
    debugger.runcall(total, 1)
    sys.settrace(before)
    snapshot = taken(flight, tmp_path)
    assert debugger.seen[:3] == ["leaf", "total", "leaf"]  # the first is where it stands
    assert [name for _, name in shown(snapshot) if name in ("total", "leaf")] == ["total", "leaf", "total", "leaf"]


def test_calls_beside_a_tool_that_disables_leave_it_alone(tmp_path: Path, other_tool: int) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    monitoring = sys.monitoring
    lines: list[int] = []

    def on_line(code: types.CodeType, line: int) -> object:
        lines.append(line)
        return monitoring.DISABLE

    monitoring.register_callback(other_tool, monitoring.events.LINE, on_line)
    with recorder(calls_per_second=100) as flight:
        monitoring.set_local_events(other_tool, leaf.__code__, monitoring.events.LINE)
        hot(1000)
        monitoring.set_local_events(other_tool, leaf.__code__, 0)
        snapshot = taken(flight, tmp_path)
    monitoring.register_callback(other_tool, monitoring.events.LINE, None)
    # quiet code was not disabled, so nothing was revived: its line was seen once
    assert lines == [leaf.__code__.co_firstlineno + 1]
    assert not [quiet for quiet in snapshot.quiet_calls if quiet.at_least]


def test_calls_take_a_tool_id_that_is_nobodys_and_give_it_back() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    monitoring = sys.monitoring
    monitoring.use_tool_id(3, "another")
    try:
        with recorder():
            assert [monitoring.get_tool(n) for n in range(6)].index("frzmq") == 4
        assert "frzmq" not in [monitoring.get_tool(n) for n in range(6)]
    finally:
        monitoring.free_tool_id(3)


def test_calls_leave_nothing_disabled_for_the_next_tool(tmp_path: Path) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    monitoring = sys.monitoring
    with recorder(calls_per_second=10) as flight:
        hot(100)
        snapshot = taken(flight, tmp_path)
    assert any(quiet.at_least for quiet in snapshot.quiet_calls)
    seen: list[str] = []
    monitoring.use_tool_id(3, "next")
    try:
        monitoring.register_callback(3, monitoring.events.PY_START, lambda code, _: seen.append(code.co_name))
        monitoring.set_events(3, monitoring.events.PY_START)
        leaf()
        monitoring.set_events(3, 0)
        monitoring.register_callback(3, monitoring.events.PY_START, None)
    finally:
        monitoring.free_tool_id(3)
    assert seen == ["leaf"]


def test_calls_without_a_free_tool_id_are_an_error() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with 3.12")
    taken_ids = [n for n in range(6) if sys.monitoring.get_tool(n) is None]
    for n in taken_ids:
        sys.monitoring.use_tool_id(n, "another")
    try:
        with pytest.raises(ConfigError, match="wanted a free tool id"):
            recorder().start()
    finally:
        for n in taken_ids:
            sys.monitoring.free_tool_id(n)
    with recorder() as flight:
        assert flight.enabled


def test_calls_of_hot_code_are_counted_beside_another_tool(tmp_path: Path, other_tool: int) -> None:
    with recorder(calls_per_second=100) as flight:
        hot(5000)
        snapshot = taken(flight, tmp_path)
    told = [quiet for quiet in snapshot.quiet_calls if quiet.code.name == f"{leaf.__module__}.leaf"]
    assert not [quiet for quiet in told if quiet.at_least]
    assert len(of(snapshot, "leaf")) + sum(quiet.count for quiet in told) == 5000
