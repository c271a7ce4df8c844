from __future__ import annotations

from pathlib import Path

import pytest
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
    operation_update,
    snapshot,
)

from frzmq.reader.build import SLACK_NS
from frzmq.reader.model import Flow, Gap, Span
from frzmq.wire.batch import WriterInfo
from frzmq.wire.kinds import Kind

T = b"t" * 16
HEX = T.hex()


def spans(tmp_path: Path, *streams: Stream) -> list[tuple[str, int | None, int | None]]:
    return [(s.name, s.begin_ns, s.end_ns) for s in snapshot(tmp_path, *streams).spans]


def test_span_nested_has_its_parent_depth_and_operation(tmp_path: Path) -> None:
    records = [
        operation_begin(10, "work", 5),
        context(11, op=5),
        begin(12, "outer", item="apple"),
        begin(13, "inner"),
        end(15, "inner", error="KeyError"),
        end(18, "outer"),
        operation_end(19, 5),
    ]
    opened = snapshot(tmp_path, Stream().generation(1, records))
    outer, inner = opened.spans
    assert outer == Span(0, 0, 0, 0, "outer", 12, 18, "", 0, None, 0, {"item": "apple"}, 0)
    assert inner == Span(1, 0, 0, 0, "inner", 13, 15, "KeyError", 0, 0, 1, {}, 0)
    assert [(o.name, o.op, o.trace, o.begin_ns, o.end_ns) for o in opened.operations] == [
        ("work", f"{5:016x}", HEX, 10, 19)
    ]
    assert opened.unmatched_ends == 0


def test_span_open_since_long_ago_is_there_with_its_begin(tmp_path: Path) -> None:
    stream = Stream().generation(
        9, [event(100, "tick")], at_ns=90, open=(open_span(3, "hang"), open_operation(2, "job", 7))
    )
    opened = snapshot(tmp_path, stream)
    assert [(s.name, s.begin_ns, s.end_ns, s.begin_held, s.end_held) for s in opened.spans] == [
        ("hang", 3, None, False, False)
    ]
    assert [(o.name, o.begin_ns, o.end_ns, o.trace, o.begin_held) for o in opened.operations] == [
        ("job", 2, None, HEX, False)
    ]


def test_span_that_began_before_the_horizon_and_ends_is_whole(tmp_path: Path) -> None:
    stream = Stream().generation(9, [end(100, "slow")], at_ns=90, open=(open_span(3, "slow"),))
    assert spans(tmp_path, stream) == [("slow", 3, 100)]


def test_span_open_over_generations_is_one_span(tmp_path: Path) -> None:
    stream = Stream().generation(1, [begin(10, "a")], at_ns=5)
    stream.generation(2, [event(110, "x")], at_ns=100, open=(open_span(10, "a"),))
    stream.generation(3, [end(210, "a")], at_ns=200, open=(open_span(10, "a"),))
    assert spans(tmp_path, stream) == [("a", 10, 210)]


def test_span_whose_end_is_lost_is_over_when_it_is_not_listed_any_more(tmp_path: Path) -> None:
    at_ns = 10 + 2 * SLACK_NS
    stream = Stream().generation(1, [begin(10, "a"), begin(11, "b")], at_ns=5)
    stream.generation(2, [event(at_ns + 5, "x")], at_ns=at_ns, skip={1: 3}, open=(open_span(10, "a"),))
    opened = snapshot(tmp_path, stream)
    assert [(s.name, s.end_ns, s.end_held) for s in opened.spans] == [("a", None, False), ("b", at_ns, False)]


def test_span_that_is_not_listed_yet_stays_open(tmp_path: Path) -> None:
    stream = Stream().generation(1, [begin(10, "a")], at_ns=5).generation(2, [event(120, "x")], at_ns=100)
    stream.generation(3, [event(220, "x")], at_ns=200, open=(open_span(10, "a"),))
    assert spans(tmp_path, stream) == [("a", 10, None)]


def test_span_taken_for_over_whose_end_comes_has_that_end(tmp_path: Path) -> None:
    at_ns = 10 + 2 * SLACK_NS
    stream = Stream().generation(1, [begin(10, "a")], at_ns=5).generation(2, [end(at_ns + 9, "a")], at_ns=at_ns)
    opened = snapshot(tmp_path, stream)
    assert [(s.end_ns, s.end_held) for s in opened.spans] == [(at_ns + 9, True)]
    assert opened.unmatched_ends == 0


def test_span_taken_for_over_that_is_listed_again_is_open(tmp_path: Path) -> None:
    at_ns = 10 + 2 * SLACK_NS
    stream = Stream().generation(1, [begin(10, "a")], at_ns=5).generation(2, [event(at_ns + 9, "x")], at_ns=at_ns)
    stream.generation(3, [event(at_ns + 29, "x")], at_ns=at_ns + 20, open=(open_span(10, "a"),))
    assert spans(tmp_path, stream) == [("a", 10, None)]


def test_span_beyond_the_open_table_is_not_taken_for_over(tmp_path: Path) -> None:
    at_ns = 10 + 2 * SLACK_NS
    stream = Stream().generation(1, [begin(10, "a")], at_ns=5)
    stream.generation(2, [event(at_ns + 9, "x")], at_ns=at_ns, open_omitted=1)
    assert spans(tmp_path, stream) == [("a", 10, None)]


def test_end_without_a_begin_is_a_span_without_a_begin_and_counted(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, Stream().generation(1, [end(10, "a")]))
    assert [(s.begin_ns, s.end_ns, s.begin_held) for s in opened.spans] == [(None, 10, False)]
    assert opened.unmatched_ends == 1


def test_end_without_a_begin_after_a_loss_is_explained(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, Stream().generation(1, [end(10, "a")], skip={1: 2}))
    assert (len(opened.spans), opened.unmatched_ends) == (1, 0)


def test_span_around_one_that_ends_later_ends_where_it_says(tmp_path: Path) -> None:
    records = [begin(10, "generator"), begin(11, "caller"), end(12, "generator"), end(13, "caller")]
    assert spans(tmp_path, Stream().generation(1, records)) == [("generator", 10, 12), ("caller", 11, 13)]


def test_span_of_a_thread_that_ends_is_over(tmp_path: Path) -> None:
    stream = Stream().generation(1, [begin(10, "a"), At(20, Kind.THREAD_END)])
    opened = snapshot(tmp_path, stream)
    assert [(s.end_ns, s.end_held) for s in opened.spans] == [(20, False)]


def test_tasks_have_tracks_of_their_own(tmp_path: Path) -> None:
    records = [
        context(10, 1, "Task-1"),
        begin(11, "a"),
        context(12, 2, "Task-2"),
        begin(13, "a"),
        context(14, 1, "Task-1"),
        end(15, "a"),
        context(16),
        event(17, "on the thread"),
    ]
    stream = Stream().generation(1, records, writers=(WriterInfo(1, "MainThread", 99),))
    opened = snapshot(tmp_path, stream)
    assert [(t.task, t.label) for t in opened.tracks] == [(1, "Task-1"), (2, "Task-2"), (0, "MainThread")]
    assert [(s.track, s.begin_ns, s.end_ns) for s in opened.spans] == [(0, 11, 15), (1, 13, None)]
    assert opened.events[0].track == 2
    assert [(t.name, t.native_id) for t in opened.threads] == [("MainThread", 99)]


def test_flow_goes_from_the_inject_to_the_extract_of_another_process(tmp_path: Path) -> None:
    web = Stream("web", 1).generation(
        1, [operation_begin(10, "ask", 5), context(11, op=5), At(12, Kind.INJECT, (5, T, 77)), operation_end(40, 5)]
    )
    db = Stream("db", 2).generation(
        1,
        [
            operation_begin(20, "answer", 6, remote=77),
            context(21, op=6),
            At(22, Kind.EXTRACT, (6, T, 77)),
            operation_end(30, 6),
        ],
    )
    opened = snapshot(tmp_path, web, db)
    assert opened.flows == (Flow(HEX, f"{77:016x}", 12, 0, 0, 0, 22, 1, 1, 1),)
    assert opened.operations[1].remote_parent == f"{77:016x}"


def test_forked_child_goes_on_in_the_operation_of_its_parent(tmp_path: Path) -> None:
    parent = Stream("web", 1).generation(1, [operation_begin(10, "job", 5), context(11, op=5), event(12, "x")])
    child = Stream("web", 2).generation(
        1, [context(20, op=5), event(21, "y"), operation_begin(22, "part", 6, parent=5)]
    )
    opened = snapshot(tmp_path, parent, child)
    assert [(o.name, o.process, o.parent) for o in opened.operations] == [("job", 0, None), ("part", 1, 0)]
    assert [e.operation for e in opened.events] == [0, 0]


def test_operation_of_which_only_the_end_is_held_says_so(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, Stream().generation(1, [operation_end(10, 5, error="ValueError")]))
    operation = opened.operations[0]
    assert (operation.name, operation.begin_ns, operation.end_ns, operation.error, operation.begin_held) == (
        "", None, 10, "ValueError", False,
    )  # fmt: skip


def test_what_happened_is_there_by_kind(tmp_path: Path) -> None:
    records = [
        At(10, Kind.PROCESS_BEGIN, (41, 40)),
        At(11, Kind.THREAD_BEGIN, ("worker", 99)),
        event(12, "e", n=1),
        At(13, Kind.LOG, (30, "app", "careful", {"at": "a.py:1"})),
        At(14, Kind.GAUGE, ("depth", 3)),
        At(15, Kind.EXCEPTION, ("KeyError", "'x'", "main", "a.py:1 f\nb.py:2 g")),
        At(16, Kind.PROCESS_END, ("exit",)),
    ]
    opened = snapshot(tmp_path, Stream("web", 41).generation(1, records))
    process = opened.processes[0]
    assert (process.name, process.begin_ns, process.end_ns, process.end_reason) == ("web[41]", 10, 16, "exit")
    assert (process.first_ns, process.last_ns) == (10, 16)
    assert [(t.name, t.native_id, t.begin_ns) for t in opened.threads] == [("worker", 99, 11)]
    assert [(e.name, e.attributes) for e in opened.events] == [("e", {"n": 1})]
    assert [(x.level, x.logger, x.message, x.attributes) for x in opened.logs] == [
        (30, "app", "careful", {"at": "a.py:1"})
    ]
    assert [(g.name, g.value) for g in opened.gauges] == [("depth", 3.0)]
    assert [(x.type, x.message, x.where, x.traceback) for x in opened.exceptions] == [
        ("KeyError", "'x'", "main", ("a.py:1 f", "b.py:2 g"))
    ]


@pytest.mark.parametrize(
    ("overwritten", "complete", "cause"),
    [
        (False, False, "missing"),
        (True, False, "overwritten"),
        (True, True, "overwritten"),
        # all that was sent is here: what it lacks the tracer had lost
        (False, True, "overwritten"),
    ],
)
def test_gap_of_lost_records_says_how_many_when_and_why(
    tmp_path: Path, overwritten: bool, complete: bool, cause: str
) -> None:
    stream = Stream().generation(1, [event(10, "a"), event(20, "b")], at_ns=5)
    stream.generation(2, [event(130, "c")], at_ns=100, skip={1: 4}, overwritten=overwritten, complete=complete)
    assert [gap for gap in snapshot(tmp_path, stream).gaps if gap.cause != "incomplete"] == [
        Gap(0, 1, 100, 100, cause, 4, 2)
    ]


def test_gap_of_dropped_records_is_where_the_writers_count_went_up(tmp_path: Path) -> None:
    stream = Stream().generation(6, [event(2, "0")]).generation(7, [event(10, "a")], at_ns=5, dropped={1: 3})
    del stream.generations[0]
    stream.generation(8, [event(110, "b")], at_ns=100, dropped={1: 3}).generation(
        9, [event(210, "c")], at_ns=200, dropped={1: 5, 2: 1}
    )
    # what was dropped before the first that is held was dropped nobody knows when
    assert snapshot(tmp_path, stream).gaps == (
        Gap(0, 1, 200, 210, "dropped", 2, 9),
        Gap(0, 2, 200, 210, "dropped", 1, 9),
    )


def test_gap_of_what_was_dropped_in_the_first_generation_is_known(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(10, "a")], at_ns=5, dropped={1: 3})
    assert snapshot(tmp_path, stream).gaps == (Gap(0, 1, 5, 10, "dropped", 3, 1),)


def test_gap_of_generations_is_not_closed(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(10, "a")], at_ns=5).generation(4, [event(130, "c")], at_ns=100)
    assert snapshot(tmp_path, stream).gaps == (Gap(0, None, 10, 100, "evicted", None, 4, "2 generations"),)


def test_gap_of_a_generation_without_its_end_says_what_sealed_it(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(10, "a")], at_ns=5, complete=False, seal="death", end_mark=b"")
    assert snapshot(tmp_path, stream).gaps == (Gap(0, None, 10, 10, "incomplete", None, 1, "sealed by death"),)


def test_gap_before_records_that_a_buffer_still_held_of_an_earlier_recorder(tmp_path: Path) -> None:
    stream = Stream()
    stream._index[1] = 7
    stream.generation(5, [end(10, "a"), event(20, "b")], at_ns=100, complete=False, seal="death", end_mark=b"")
    opened = snapshot(tmp_path, stream)
    gone = Gap(0, 1, 10, 10, "incomplete", None, 5, "what came before is gone with an earlier recorder")
    assert opened.gaps == (gone, Gap(0, None, 100, 100, "incomplete", None, 5, "sealed by death"))
    assert opened.unmatched_ends == 0


def test_gap_before_records_of_long_before_the_last_generations_is_where_they_are(tmp_path: Path) -> None:
    stream = Stream()
    stream._index[2] = 7
    for number in (5, 6):
        stream.generation(number, [event(100 * number + 1, "b")], at_ns=100 * number)
    stream.generation(7, [end(10, "a", 2), event(701, "b")], at_ns=700, complete=False, seal="death", end_mark=b"")
    opened = snapshot(tmp_path, stream)
    gone = Gap(0, 2, 10, 10, "incomplete", None, 7, "what came before is gone with an earlier recorder")
    assert opened.gaps == (gone, Gap(0, None, 701, 701, "incomplete", None, 7, "sealed by death"))
    assert opened.unmatched_ends == 0


def test_operation_that_is_updated_has_its_last_name_and_all_attributes(tmp_path: Path) -> None:
    records = [
        operation_begin(10, "GET", 5),
        operation_update(20, 5, path="/a/1", n=1),
        operation_update(30, 5, "GET /a/{id}", n=2),
        operation_end(40, 5, error="HTTP 503"),
    ]
    [operation] = snapshot(tmp_path, Stream().generation(1, records)).operations
    assert (operation.name, operation.attributes) == ("GET /a/{id}", {"path": "/a/1", "n": 2})
    assert operation.error == "HTTP 503"
