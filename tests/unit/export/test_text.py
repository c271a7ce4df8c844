from __future__ import annotations

import io
from pathlib import Path

from support.snapshots import (
    At,
    Stream,
    begin,
    context,
    end,
    event,
    open_operation,
    open_span,
    operation_begin,
    operation_end,
    snapshot,
)

from frzmq.export.text import clean, write_text
from frzmq.reader.snapshot import Snapshot
from frzmq.wire.batch import WriterInfo
from frzmq.wire.kinds import Kind


def lines(opened: Snapshot) -> list[str]:
    out = io.StringIO()
    write_text(opened, out)
    return out.getvalue().splitlines()


def test_text_says_what_happened_line_by_line(tmp_path: Path) -> None:
    web = Stream("web", 41).generation(
        1,
        [
            operation_begin(1010, "GET /", 5),
            context(1020, op=5),
            begin(1030, "render", page="home"),
            context(1040, 3, "Task-3", 5),
            At(1050, Kind.LOG, (30, "app", "careful\nnow", None)),
            context(1060, op=5),
            end(2030, "render", error="KeyError"),
            operation_end(3010, 5),
        ],
        writers=(WriterInfo(1, "MainThread", 99),),
    )
    db = Stream("db", 42).generation(1, [event(1055, "commit")])
    assert lines(snapshot(tmp_path, web, db, reason="slow", missing=("db[42]",))) == [
        "# snapshot of 2023-11-14 22:13:20 UTC, 2 processes: slow",
        "# missing: the last moments of db[42]",
        f"22:13:19.999001010  web[41]  MainThread  operation_begin  GET /  op={5:016x}  trace={(b't' * 16).hex()}",
        "22:13:19.999001030  web[41]  MainThread  span_begin  render  page=home",
        "22:13:19.999001050  web[41]  Task-3  log  level=30  logger=app  message=careful\\x0anow",
        "22:13:19.999001055  db[42]  thread 1  event  commit",
        "22:13:19.999002030  web[41]  MainThread  span_end  render  1us  error=KeyError",
        f"22:13:19.999003010  web[41]  MainThread  operation_end  GET /  2us  op={5:016x}",
    ]


def test_text_begins_with_what_was_open_and_says_how_long_it_took(tmp_path: Path) -> None:
    items = (open_span(1000, "hang"), open_operation(500, "job", 7), open_span(2000, "slow"))
    stream = Stream("web", 41).generation(9, [end(5000, "slow"), operation_end(6500, 7)], at_ns=4000, open=items)
    assert lines(snapshot(tmp_path, stream))[1:] == [
        "22:13:19.999004000  web[41]  thread 1  open operation  job  since 22:13:19.999000500 (3.5us)",
        "22:13:19.999004000  web[41]  thread 1  open span  hang  since 22:13:19.999001000 (3us)",
        "22:13:19.999004000  web[41]  thread 1  open span  slow  since 22:13:19.999002000 (2us)",
        "22:13:19.999005000  web[41]  thread 1  span_end  slow  3us",
        f"22:13:19.999006500  web[41]  thread 1  operation_end  job  6us  op={7:016x}",
    ]


def test_text_says_where_something_is_lost(tmp_path: Path) -> None:
    stream = Stream("web", 41).generation(1, [event(10, "a")], at_ns=5)
    stream.generation(2, [event(130, "b")], at_ns=100, skip={1: 4})
    assert lines(snapshot(tmp_path, stream))[2] == (
        "22:13:19.999000100  web[41]  thread 1  lost: 4 records overwritten, until 22:13:19.999000100"
    )


def test_text_of_a_hostile_name_cannot_command_a_terminal() -> None:
    assert clean("a\x1b[2Jb\nc\u2028d") == "a\\x1b[2Jb\\x0ac\\u2028d"
    assert clean("abc\u202edef\u2066") == "abc\\u202edef\\u2066"
    assert clean("x" * 1000) == "x" * 200 + "…"
