"""``frzmq summary`` and ``frzmq request``: what they print, for people and for programs, wherever that goes."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from support.snapshots import (
    At,
    Stream,
    begin,
    context,
    end,
    event,
    operation_begin,
    operation_end,
    snapshot,
    to_bytes,
)

from frzmq.cli import main
from frzmq.wire.kinds import Kind

T = b"t" * 16
MS = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    web = [
        operation_begin(10 * MS, "GET /", 5),
        context(10 * MS, op=5),
        begin(11 * MS, "ask"),
        At(12 * MS, Kind.INJECT, (5, T, 77)),
        At(30 * MS, Kind.LOG, (30, "app", "slow today", None)),
        end(90 * MS, "ask"),
        operation_end(110 * MS, 5),
        operation_begin(120 * MS, "GET /", 8, trace=b"u" * 16),
        operation_end(121 * MS, 8, error="KeyError"),
        operation_begin(130 * MS, "hang", 9, trace=b"v" * 16),
    ]
    db = [
        operation_begin(20 * MS, "query", 6, remote=77),
        At(21 * MS, Kind.EXTRACT, (6, T, 77)),
        context(21 * MS, op=6),
        event(22 * MS, "rows", n=3),
        operation_end(80 * MS, 6),
    ]
    file = tmp_path / "slow.frz"
    file.write_bytes(to_bytes(Stream("web", 1).generation(1, web), Stream("db", 2).generation(1, db)))
    return file


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [line.rstrip() for line in out.splitlines()]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_request_is_the_tree_of_the_slowest_with_its_critical_path(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "request", str(path))
    assert lines[0].startswith(f"trace {T.hex()}, begun ")
    assert [cells(line) for line in lines[1:5]] == [
        ["* critical path", "process", "took", "self"],
        ["* GET /", "web[1]", "100ms", "21ms"],
        ["*", "ask", "web[1]", "79ms", "19ms"],
        ["*", "query", "db[2]", "60ms", "60ms"],
    ]
    assert [line.split() for line in lines[6:9]] == [
        ["at", "process"],
        ["+12ms", "db[2]", "event", "rows", "n=3"],
        ["+20ms", "web[1]", "warning", "app:", "slow", "today"],
    ]


def test_request_of_a_trace_takes_the_begin_of_its_id(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = json.loads("\n".join(printed(capsys, "request", str(path), "7575", "--json")))
    [node] = row["tree"]
    assert (row["trace"], node["name"], node["error"]) == ((b"u" * 16).hex(), "GET /", "KeyError")
    assert (node["took_ns"], node["critical"], row["lines"]) == (MS, True, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["7"], "wanted one trace that begins with '7', got 3, such as 7474"),
        (["abc"], "wanted one trace that begins with 'abc', got none"),
        (["--slowest", "9"], "wanted the operation number 9 of the slowest, got 3 operations"),
        (["--slowest", "0"], "wanted the operation number 0 of the slowest"),
    ],
)
def test_request_of_what_is_not_there_is_one_line_and_1(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["request", str(path), *arguments]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"frzmq: request: {said}")


def test_summary_has_what_was_slow_open_failed_said_and_lost(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(printed(capsys, "summary", str(path)))
    assert "lost: nothing" in text
    assert f"slowest 1: trace {T.hex()}" in text
    assert "had not ended  process" in text
    assert "hang           web[1]" in text
    assert "operation GET /  KeyError  web[1]       1" in text
    assert ["web", "GET /", "2", "1", "1ms", "100ms", "100ms"] in map(cells, text.splitlines())


def test_summary_as_json_has_the_same_facts(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads("\n".join(printed(capsys, "summary", str(path), "--json", "--slowest", "2")))
    assert [(n["depth"], n["name"], n["process"]) for n in facts["slowest"][0]] == [
        (0, "GET /", "web[1]"),
        (1, "ask", "web[1]"),
        (2, "query", "db[2]"),
    ]
    assert [row["name"] for row in facts["open"]] == ["hang"]
    assert facts["errors"] == [{"count": 1, "what": "operation GET /", "error": "KeyError", "process": "web[1]"}]
    assert [(log["process"], log["level"], log["message"]) for log in facts["logs"]] == [("web[1]", 30, "slow today")]
    assert [(s["service"], s["name"], s["count"], s["errors"]) for s in facts["services"]] == [
        ("db", "query", 1, 0),
        ("web", "GET /", 2, 1),
        ("web", "hang", 1, 0),
    ]
    assert facts["records"]["missing"] == 0


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", ["summary", "request"])
@pytest.mark.parametrize("plain", [True, False])
def test_narrow_terminal_cuts_names_and_obeys_no_color(
    path: Path, monkeypatch: pytest.MonkeyPatch, command: str, plain: bool
) -> None:
    out = _Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    assert main([command, str(path)]) == 0
    text = out.getvalue()
    assert ("\x1b[31m" in text or "\x1b[2m" in text or "\x1b[1m" in text) or plain
    assert not any(f"\x1b[3{n}m" in text for n in range(8)) or not plain
    widths = [len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in text.splitlines()]
    assert max(widths) <= 40


def test_hostile_names_are_shown_as_they_are_and_command_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "[red]x[/red] \x1b[2J\x07 :smile: \u202eevil"
    records = [operation_begin(0, name, 5), operation_end(10, 5, error="[bold]E")]
    file = tmp_path / "hostile.frz"
    file.write_bytes(to_bytes(Stream("[blink]", 1).generation(1, records)))
    for command in ("summary", "request"):
        text = "\n".join(printed(capsys, command, str(file)))
        assert "[red]x[/red] " in text
        assert ":smile:" in text
        assert "[blink][1]" in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_bad_file_is_one_line_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad").write_bytes(b"no snapshot")
    for command in ("summary", "request"):
        assert main([command, str(tmp_path / "bad")]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)


def test_snapshot_without_operations_has_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "empty.frz"
    file.write_bytes(to_bytes(Stream().generation(1, [])))
    assert "lost: nothing" in printed(capsys, "summary", str(file))
    assert main(["request", str(file)]) == 1


def test_very_deep_tree_is_printed_and_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [operation_begin(0, "all", 5), context(1, op=5), *(begin(10 + n, f"s{n}") for n in range(3000))]
    file = tmp_path / "deep.frz"
    file.write_bytes(to_bytes(Stream().generation(1, records)))
    assert printed(capsys, "request", str(file))[-1] == "... and 2801 more"
    [row] = json.loads("\n".join(printed(capsys, "request", str(file), "--json")))
    assert [node["depth"] for node in row["tree"]] == [*range(3001)]


def test_summary_says_who_died_in_the_midst_of_what_and_whom_that_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web = [
        operation_begin(10 * MS, "GET /", 5),
        operation_end(110 * MS, 5, error="ConnectionError"),
        operation_begin(120 * MS, "other", 7, trace=b"o" * 16),
        operation_end(121 * MS, 7),
    ]
    db = [operation_begin(20 * MS, "query", 6, remote=5)]
    file = tmp_path / "died.frz"
    died = Stream("db", 2, state="dead", error="it died: SIGKILL").generation(1, db)
    file.write_bytes(to_bytes(Stream("web", 1).generation(1, web), died))
    facts = json.loads("".join(printed(capsys, "summary", str(file), "--json")))
    [death] = facts["deaths"]
    assert (death["process"], death["error"]) == ("db[2]", "it died: SIGKILL")
    assert [o["name"] for o in death["open"]] == ["query"]
    assert [(o["name"], o["process"], o["error"]) for o in death["touched"]] == [("GET /", "web[1]", "ConnectionError")]
    text = "\n".join(printed(capsys, "summary", str(file)))
    assert re.search(r"db\[2\] +it died: SIGKILL +query", text)
    assert re.search(r"touched: web\[1\] +GET /", text)
    assert "of a trace that db[2] died in" in "\n".join(printed(capsys, "request", str(file), "--slowest", "2"))


def test_summary_has_the_gaps_with_what_is_lost_in_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web = Stream("web", 1).generation(1, [event(10, "a")], at_ns=5)
    web.generation(2, [event(130, "b")], at_ns=100, skip={1: 4, 2: 9}, overwritten=True)
    web.generation(3, [event(230, "c")], at_ns=200, complete=False, seal="death", end_mark=b"")
    opened = snapshot(tmp_path, web)
    text = printed(capsys, "summary", opened.path)
    assert "lost: 13 missing" in text
    at = next(n for n, line in enumerate(text) if line.startswith("gap "))
    assert [cells(line)[:3] for line in text[at : at + 4]] == [
        ["gap", "process", "thread"],
        ["records incomplete: sealed by death", "web[1]", "all"],
        ["9 records overwritten", "web[1]", "thread 2"],
        ["4 records overwritten", "web[1]", "thread 1"],
    ]
    facts = json.loads("\n".join(printed(capsys, "summary", opened.path, "--json")))
    assert [(gap["thread"], gap["cause"], gap["count"]) for gap in facts["gaps"]] == [
        (1, "overwritten", 4),
        (2, "overwritten", 9),
        (None, "incomplete", None),
    ]
