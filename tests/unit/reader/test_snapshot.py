from __future__ import annotations

from pathlib import Path

from support.snapshots import CREATED_NS, WALL_NS, At, Stream, begin, context, end, event, operation_begin, snapshot

from frzmq.reader.model import Clock
from frzmq.wire.kinds import KINDS, Kind, KindSpec

T = b"t" * 16


def test_iteration_merges_writers_generations_and_processes_in_the_order_of_time(tmp_path: Path) -> None:
    one = Stream("a", 1)
    one.generation(1, [event(10, "e", writer=1), event(50, "e", writer=1), event(20, "e", writer=2)], at_ns=5)
    # a thread took its time, slept, and published after the cut
    one.generation(2, [event(40, "e", writer=2), event(60, "e", writer=1)], at_ns=45)
    two = Stream("b", 2).generation(1, [event(t, "e") for t in range(15, 65, 10)], at_ns=5)
    times = [(r.time_ns, r.process, r.writer, r.writer_index) for r in snapshot(tmp_path, one, two)]
    assert times == [
        (10, 0, 1, 0), (15, 1, 1, 0), (20, 0, 2, 0), (25, 1, 1, 1), (35, 1, 1, 2), (40, 0, 2, 1), (45, 1, 1, 3),
        (50, 0, 1, 1), (55, 1, 1, 4), (60, 0, 1, 2),
    ]  # fmt: skip


def test_iteration_has_what_a_dead_tracers_buffer_still_held_of_long_ago_in_its_place(tmp_path: Path) -> None:
    stream = Stream()
    for number in range(1, 4):
        stream.generation(number, [event(10 * number + 5, "e", writer=1)], at_ns=10 * number)
    old = [event(17, "old", writer=2), event(18, "old", writer=2), event(46, "e", writer=2)]
    stream.generation(4, [*old, event(45, "e", writer=1)], at_ns=40, complete=False, seal="death", batch_of=1)
    opened = snapshot(tmp_path, stream)
    assert [(r.time_ns, r.writer, r.generation) for r in opened] == [
        (15, 1, 1), (17, 2, 4), (18, 2, 4), (25, 1, 2), (35, 1, 3), (45, 1, 4), (46, 2, 4),
    ]  # fmt: skip
    assert opened.problems == ()


def test_iteration_can_be_repeated_and_gives_the_same(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, Stream().generation(1, [begin(10, "a", x=1), end(20, "a")]))
    assert list(opened) == list(opened)


def test_record_has_its_fields_by_name_and_its_place(tmp_path: Path) -> None:
    records = [context(9, 3, "Task-3", 5), At(10, Kind.LOG, (40, "app", "bad", {"at": "x"}))]
    _, log = snapshot(tmp_path, Stream().generation(8, records))
    assert log == (
        10, 0, 1, 1, "log", {"level": 40, "logger": "app", "message": "bad", "attributes": {"at": "x"}}, 3, 5, 8,
    )  # fmt: skip


def test_record_of_a_newer_tracers_kind_is_read_by_its_own_table(tmp_path: Path) -> None:
    newer = {
        **KINDS,
        99: KindSpec(99, "teleport", ("to:s", "speed:v")),
        5: KindSpec(5, "event", ("name:s", "attributes:m")),
    }
    stream = Stream()
    KINDS[99] = newer[99]
    try:
        stream.generation(1, [At(10, Kind.EVENT, ("a", None)), At(11, 99, ("moon", 2.5))], kinds=newer)  # type: ignore[arg-type]  # that is the point
    finally:
        del KINDS[99]
    opened = snapshot(tmp_path, stream)
    assert [(r.name, r.fields) for r in opened] == [
        ("event", {"name": "a", "attributes": {}}),
        ("teleport", {"to": "moon", "speed": 2.5}),
    ]
    assert opened.problems == ()


def test_record_of_an_unknown_kind_ends_its_batch_and_says_so(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(10, "a"), At(11, Kind.THREAD_END)], kinds={5: KINDS[5]})
    opened = snapshot(tmp_path, stream)
    assert [r.name for r in opened] == ["event"]
    where = f"generation 1 of stream 0 at byte {opened.file.sections[1].offset}: writer 1 record 1"
    assert opened.problems == (f"{where}: kind: wanted one of the generation's table, got 11",)


def test_string_that_is_not_in_the_table_reads_as_its_id(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(10, "a")])
    stream.strings = []
    assert [e.name for e in snapshot(tmp_path, stream).events] == ["?1"]


def test_times_of_another_machine_are_aligned_by_the_link_and_that_can_be_turned_off(tmp_path: Path) -> None:
    here = Stream("here", 1).generation(1, [event(100, "a")])
    there = Stream("there", 2, machine="other", offset_ns=-1000, rtt_ns=40).generation(1, [event(1090, "b")])
    opened = snapshot(tmp_path, here, there)
    assert [(r.time_ns, r.process) for r in opened] == [(90, 1), (100, 0)]
    assert opened.processes[1].clock == Clock(-1000, 20, "link")
    assert opened.processes[0].clock == Clock(0, 0, "same machine")
    plain = snapshot(tmp_path, here, there, align=False)
    assert [(r.time_ns, r.process) for r in plain] == [(100, 0), (1090, 1)]
    assert plain.processes[1].clock == Clock(0, None, "link", applied=False)


def test_times_of_another_time_namespace_of_the_machine_are_aligned(tmp_path: Path) -> None:
    there = Stream("there", 2, offset_ns=-(10**12), rtt_ns=40).generation(1, [event(10**12 + 5, "b")])
    assert [r.time_ns for r in snapshot(tmp_path, there)] == [5]


def test_flow_back_in_time_tightens_the_clock_within_its_error(tmp_path: Path) -> None:
    here = Stream("here", 1).generation(
        1, [operation_begin(100, "ask", 5), context(101, op=5), At(110, Kind.INJECT, (5, T, 7))]
    )
    answer = [operation_begin(1095, "answer", 6, remote=7), context(1096, op=6), At(1100, Kind.EXTRACT, (6, T, 7))]
    for rtt_ns, offset_ns, source in ((40, -990, "flow edges"), (10, -995, "flow edges"), (0, -990, "flow edges")):
        there = Stream("there", 2, machine="other", offset_ns=-1000, rtt_ns=rtt_ns).generation(1, answer)
        clock = snapshot(tmp_path, here, there).clocks[1]
        assert (clock.offset_ns, clock.source) == (offset_ns, source)


def test_snapshot_tells_its_times(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, Stream().generation(1, [event(10, "a"), event(90, "b")]), horizon_ns=5)
    assert (opened.begin_ns, opened.end_ns, opened.horizon_ns) == (10, CREATED_NS, 5)
    assert opened.wall_ns(CREATED_NS - 7) == WALL_NS - 7


def test_snapshot_without_records_is_empty(tmp_path: Path) -> None:
    opened = snapshot(tmp_path)
    assert (list(opened), opened.processes, opened.spans, opened.problems) == ([], (), (), ())
    assert opened.begin_ns == opened.end_ns == CREATED_NS


def test_ledger_of_a_snapshot_is_the_sum_of_its_streams(tmp_path: Path) -> None:
    one = Stream("a", 1).generation(1, [event(10, "a")], skip={1: 2})
    two = Stream("b", 2).generation(1, [event(10, "a"), event(11, "b")])
    ledger = snapshot(tmp_path, one, two).ledger
    assert (ledger.recorded, ledger.held, ledger.missing, ledger.balanced) == (5, 3, 2, True)


def test_record_of_a_kind_whose_fields_are_not_what_its_name_says_is_read_as_unknown(tmp_path: Path) -> None:
    odd = {5: KindSpec(5, "event", ("label:s", "attributes:m"))}
    opened = snapshot(tmp_path, Stream().generation(1, [event(10, "a")], kinds=odd))
    assert [(r.name, r.fields) for r in opened] == [("kind 5", {"label": "a", "attributes": {}})]
    assert opened.events == ()
    assert opened.problems[0].endswith("kind 5: wanted event with name:s attributes:m, got label:s attributes:m")
