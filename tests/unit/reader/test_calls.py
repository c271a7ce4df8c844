from __future__ import annotations

import io
from pathlib import Path

from support.snapshots import At, Stream, begin, context, end, operation_begin, snapshot

from frzmq.export.functions import Function, filter_text, functions, quiet_text
from frzmq.export.report import write_report
from frzmq.export.svg import write_svg
from frzmq.export.text import write_text
from frzmq.reader.calls import code_of
from frzmq.reader.model import Call, CallFilter, Code, QuietCalls
from frzmq.reader.snapshot import Snapshot
from frzmq.reader.validate import Level, validate
from frzmq.wire.kinds import Kind

A, B, C = "m.A.a (/srv/m.py:1)", "m.b (/srv/m.py:2)", "m.c (/srv/m.py:3)"


def called(time_ns: int, code: str, writer: int = 1) -> At:
    return At(time_ns, Kind.CALL_BEGIN, (code,), writer)


def returned(time_ns: int, code: str, writer: int = 1) -> At:
    return At(time_ns, Kind.CALL_END, (code,), writer)


def opened(time_ns: int, code: str, age_ns: int, track: int = 0, writer: int = 1) -> At:
    return At(time_ns, Kind.CALL_OPEN, (code, age_ns, track), writer)


def quiet(time_ns: int, code: str, count: int, ns: int, state: str) -> At:
    return At(time_ns, Kind.CALL_QUIET, (code, count, ns, state))


def shown(found: Snapshot) -> list[tuple[str, int, int | None, int | None]]:
    return [(c.name, c.depth, c.begin_ns, c.end_ns) for c in found.calls]


def errors(found: Snapshot) -> list[str]:
    return [str(finding) for finding in validate(found) if finding.level is Level.ERROR]


def test_calls_a_name_is_taken_apart() -> None:
    assert code_of(A) == Code("m.A.a", "/srv/m.py", 1)
    assert code_of("m.f.<locals>.<lambda> (<string>:7)") == Code("m.f.<locals>.<lambda>", "<string>", 7)
    assert code_of("anything") == Code("anything", "", 0)


def test_calls_nest_on_their_track_with_operation_and_error(tmp_path: Path) -> None:
    records = [
        operation_begin(5, "work", 7),
        context(6, op=7),
        called(10, A),
        called(11, B),
        called(11, A, writer=2),
        At(13, Kind.CALL_FAIL, (B, "KeyError")),
        returned(15, A),
        returned(16, A, writer=2),
    ]
    found = snapshot(tmp_path, Stream().generation(1, records))
    assert found.calls == (
        Call(0, 0, 0, 0, code_of(A), 10, 15, "", 0, 0, False, False, True, True),
        Call(1, 0, 0, 0, code_of(B), 11, 13, "KeyError", 0, 1, False, False, True, True),
        Call(2, 0, 1, 1, code_of(A), 11, 16, "", None, 0, False, False, True, True),
    )
    assert errors(found) == []


def test_calls_suspended_and_resumed_are_two(tmp_path: Path) -> None:
    records = [
        context(1, 3, "Task-3"),
        called(2, A),
        At(3, Kind.CALL_SUSPEND, (A,)),
        At(7, Kind.CALL_RESUME, (A,)),
        returned(9, A),
    ]
    found = snapshot(tmp_path, Stream().generation(1, records))
    assert [(c.begin_ns, c.end_ns, c.resumed, c.suspended) for c in found.calls] == [
        (2, 3, False, True),
        (7, 9, True, False),
    ]


def test_calls_an_end_ends_what_is_open_inside_of_it(tmp_path: Path) -> None:
    found = snapshot(tmp_path, Stream().generation(1, [called(1, A), called(2, B), called(3, C), returned(9, A)]))
    assert [(c.name, c.end_ns, c.end_held) for c in found.calls] == [
        ("m.A.a", 9, True),
        ("m.b", 9, False),
        ("m.c", 9, False),
    ]


def test_calls_open_since_before_are_there_with_their_begins(tmp_path: Path) -> None:
    stream = Stream().generation(
        9, [opened(100, A, 95), opened(101, B, 51), returned(110, B), returned(120, A)], at_ns=99
    )
    found = snapshot(tmp_path, stream)
    assert shown(found) == [("m.A.a", 0, 5, 120), ("m.b", 1, 50, 110)]
    assert {call.begin_held for call in found.calls} == {False}
    assert errors(found) == []


def test_calls_said_to_be_open_that_are_known_are_the_same(tmp_path: Path) -> None:
    stream = Stream()
    stream.generation(1, [context(5, 4, "Task-4"), called(10, A)])
    stream.generation(2, [opened(20, A, 10, track=4), context(21, 4, "Task-4"), called(25, B)], at_ns=19)
    found = snapshot(tmp_path, stream)
    assert shown(found) == [("m.A.a", 0, 10, None), ("m.b", 1, 25, None)]


def test_calls_end_in_a_gap_unless_they_are_said_to_be_open(tmp_path: Path) -> None:
    stream = Stream()
    stream.generation(1, [called(10, A), called(11, B)], at_ns=9)
    stream.generation(2, [called(30, C)], at_ns=20, skip={1: 5})
    stream.generation(3, [opened(40, A, 30), returned(50, A)], at_ns=39)
    found = snapshot(tmp_path, stream)
    a, b, c = found.calls
    assert (a.end_ns, a.end_held) == (50, True)
    assert b.end_ns is not None and not b.end_held
    assert (c.depth, c.end_ns, c.end_held) == (0, 50, False)


def test_calls_an_end_without_its_begin_is_wrong_where_nothing_is_lost(tmp_path: Path) -> None:
    found = snapshot(tmp_path, Stream().generation(1, [returned(5, A)], at_ns=1))
    assert [(c.begin_ns, c.end_ns, c.begin_held) for c in found.calls] == [(None, 5, False)]
    assert errors(found) == ["error: span: 1 ends without a begin, and nothing that is known to be lost"]
    found = snapshot(tmp_path, Stream().generation(1, [returned(5, A)], at_ns=1, skip={1: 3}))
    assert errors(found) == []


def test_calls_that_were_too_frequent_are_told(tmp_path: Path) -> None:
    records = [
        At(1, Kind.CALLS, ("m,n.*", "m.x", 1000)),
        quiet(10, A, 0, 0, "quiet"),
        quiet(20, A, 70, 10, "uncounted"),
        quiet(30, A, 3, 10, "calm"),
        At(31, Kind.CALLS, ("m,n.*", "m.x", 1000)),
    ]
    found = snapshot(tmp_path, Stream().generation(1, records))
    assert found.quiet_calls == (
        QuietCalls(0, code_of(A), 10, 10, 0, at_least=False, calm=False),
        QuietCalls(0, code_of(A), 10, 20, 70, at_least=True, calm=False),
        QuietCalls(0, code_of(A), 20, 30, 3, at_least=False, calm=True),
    )
    assert found.call_filters == (CallFilter(0, 1, "m,n.*", "m.x", 1000),)
    (said,) = functions(found)
    assert (said.count, said.quiet, quiet_text(said)) == (0, 73, "73 and more")
    assert filter_text(found, found.call_filters[0]) == (
        "calls of s[1]: of m,n.*, without m.x; beyond 1000 a second they are counted"
    )


# --- what is made of them


def busy(tmp_path: Path) -> Snapshot:
    """A calls B twice and itself, inside of a span."""
    records = [
        At(1, Kind.CALLS, (None, None, 1000)),
        begin(100_000, "span"),
        called(110_000, A),
        called(120_000, B),
        returned(140_000, B),
        called(150_000, A),
        At(170_000, Kind.CALL_FAIL, (A, "OSError")),
        called(180_000, B),
        returned(190_000, B),
        returned(200_000, A),
        end(210_000, "span"),
        quiet(220_000, C, 12345, 100_000, "quiet"),
    ]
    return snapshot(tmp_path, Stream().generation(1, records))


def test_functions_have_their_own_time_and_that_with_what_they_called(tmp_path: Path) -> None:
    assert functions(busy(tmp_path)) == [
        Function(0, code_of(A), count=2, errors=1, total_ns=90_000, self_ns=60_000),
        Function(0, code_of(B), count=2, total_ns=30_000, self_ns=30_000),
        Function(0, code_of(C), quiet=12345),
    ]


def test_text_indents_calls_as_they_nest(tmp_path: Path) -> None:
    out = io.StringIO()
    write_text(busy(tmp_path), out)
    said = [line.partition("thread 1  ")[2] for line in out.getvalue().splitlines()]
    assert said[1:] == [
        "calls  limit=1000",
        "span_begin  span",
        "call_begin  m.A.a",
        "call_begin    m.b",
        "call_end    m.b  20us",
        "call_begin    m.A.a",
        "call_fail    m.A.a  20us  error=OSError",
        "call_begin    m.b",
        "call_end    m.b  10us",
        "call_end  m.A.a  90us",
        "span_end  span  110us",
        "call_quiet  m.c  count=12345  state=quiet  over=100us",
    ]


def test_text_has_what_was_open_as_a_generation_began(tmp_path: Path) -> None:
    out = io.StringIO()
    write_text(snapshot(tmp_path, Stream().generation(9, [opened(100, A, 95), returned(120, A)], at_ns=99)), out)
    lines = out.getvalue().splitlines()[1:]
    assert lines[0].endswith("call_open  m.A.a  since=22:13:19.999000005 (95ns)")
    assert lines[1].endswith("call_end  m.A.a  115ns")


def test_pictures_and_page_show_calls(tmp_path: Path) -> None:
    parts: list[bytes] = []
    found = busy(tmp_path)
    write_svg(found, parts.append)
    picture = b"".join(parts).decode()
    assert picture.count('class="c"') == 3
    assert "<title>m.A.a 90us</title>" in picture
    assert "calls of 1 functions were too frequent to be recorded" in picture
    parts.clear()
    write_report(found, parts.append)
    page = b"".join(parts).decode()
    assert "m.A.a" in page and "/srv/m.py:1" in page and "12345" in page
    assert "of all modules but the standard library" in page


def test_picture_leaves_out_what_is_nested_too_deep(tmp_path: Path) -> None:
    deep = [called(1000 * n, A) for n in range(1, 61)] + [returned(200_000 + 1000 * n, A) for n in range(60)]
    parts: list[bytes] = []
    write_svg(snapshot(tmp_path, Stream().generation(1, deep)), parts.append)
    picture = b"".join(parts).decode()
    assert picture.count('class="c"') == 40
    assert "20 bars nested too deep" in picture
