"""Trees of operations and spans, compared whole."""

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
    operation_begin,
    operation_end,
    snapshot,
)

from frzmq.analysis import trees
from frzmq.analysis.meanwhile import meanwhile
from frzmq.analysis.services import operation_stats, quantile
from frzmq.analysis.trees import Forest, Node
from frzmq.reader.snapshot import Snapshot
from frzmq.wire.kinds import Kind

T = b"t" * 16


def shape(node: Node) -> tuple[object, ...]:
    """Name (``*``: on the critical path), process, took, self, children."""
    name = node.item.name + ("*" if node.critical else "") + ("" if node.ended else "...")
    return name, node.process, node.took_ns, node.self_ns, [shape(child) for child in node.children]


def only_tree(opened: Snapshot) -> tuple[object, ...]:
    forest = Forest(opened)
    [root] = forest.roots(T.hex())
    return shape(forest.tree(root))


def test_tree_over_processes_has_what_each_part_took_by_itself(tmp_path: Path) -> None:
    web = Stream("web", 1).generation(
        1,
        [
            operation_begin(0, "GET /", 5),
            context(1, op=5),
            begin(10, "ask"),
            At(12, Kind.INJECT, (5, T, 77)),
            end(90, "ask"),
            begin(92, "render"),
            end(97, "render"),
            operation_end(100, 5),
        ],
    )
    db = Stream("db", 2).generation(
        1,
        [
            operation_begin(20, "query", 6, remote=77),
            At(21, Kind.EXTRACT, (6, T, 77)),
            context(22, op=6),
            begin(30, "wait"),
            end(75, "wait"),
            operation_end(80, 6),
        ],
    )
    assert only_tree(snapshot(tmp_path, web, db)) == (
        "GET /*", 0, 100, 15, [
            ("ask*", 0, 80, 20, [("query*", 1, 60, 15, [("wait*", 1, 45, 45, [])])]),
            ("render*", 0, 5, 5, []),
        ],
    )  # fmt: skip


def test_tree_of_parallel_parts_marks_those_that_the_end_waited_for(tmp_path: Path) -> None:
    records = [
        operation_begin(0, "all", 5),
        operation_begin(1, "first", 6, parent=5),
        operation_begin(2, "short", 7, parent=5),
        operation_end(10, 7),
        operation_end(50, 6),
        operation_begin(50, "second", 8, parent=5),
        operation_begin(51, "beside", 9, parent=5),
        operation_end(70, 9),
        operation_end(95, 8),
        operation_end(100, 5),
    ]
    assert only_tree(snapshot(tmp_path, Stream().generation(1, records))) == (
        "all*", 0, 100, 6, [
            ("first*", 0, 49, 49, []), ("short", 0, 8, 8, []), ("second*", 0, 45, 45, []), ("beside", 0, 19, 19, []),
        ],
    )  # fmt: skip


def test_tree_of_what_had_not_ended_goes_to_the_end_of_the_snapshot(tmp_path: Path) -> None:
    items = (open_operation(5, "job", 7),)
    opened = snapshot(
        tmp_path, Stream().generation(9, [context(4001, op=7), begin(5000, "hang")], at_ns=4000, open=items)
    )
    hang: tuple[object, ...] = ("hang*...", 0, opened.end_ns - 5000, opened.end_ns - 5000, [])
    assert only_tree(opened) == ("job*...", 0, opened.end_ns - 5, 5000 - 5, [hang])


def test_tree_of_a_child_that_outlives_its_parent_is_clipped(tmp_path: Path) -> None:
    records = [
        operation_begin(0, "all", 5),
        operation_begin(40, "background", 6, parent=5),
        operation_end(100, 5),
        operation_end(500, 6),
    ]
    assert only_tree(snapshot(tmp_path, Stream().generation(1, records))) == (
        "all*", 0, 100, 40, [("background*", 0, 460, 460, [])],
    )  # fmt: skip


def test_tree_of_a_child_whose_parent_is_not_here_is_a_root(tmp_path: Path) -> None:
    records = [operation_begin(0, "part", 5, remote=123), operation_end(10, 5)]
    assert only_tree(snapshot(tmp_path, Stream().generation(1, records))) == ("part*", 0, 10, 10, [])


def test_tree_of_operations_that_are_in_each_other_ends(tmp_path: Path) -> None:
    records = [operation_begin(0, "a", 5, parent=6), operation_begin(1, "b", 6, parent=5), operation_end(10, 5)]
    opened = snapshot(tmp_path, Stream().generation(1, records))
    forest = Forest(opened)
    assert {shape(forest.tree(root))[0] for root in forest.roots(T.hex())} <= {"a*", "b*..."}


def test_tree_that_is_too_large_says_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_NODES", 10)
    records = [operation_begin(0, "all", 5), context(1, op=5)]
    records += [record for n in range(20) for record in (begin(10 * n + 2, "s"), end(10 * n + 5, "s"))]
    opened = snapshot(tmp_path, Stream().generation(1, records))
    root = Forest(opened).tree(opened.operations[0])
    assert (root.children, root.left_out) == ([], 20)


def test_tree_of_very_deep_spans_is_made(tmp_path: Path) -> None:
    deep = 3000
    records = [operation_begin(0, "all", 5), context(1, op=5)]
    records += [begin(10 + n, f"s{n}") for n in range(deep)]
    opened = snapshot(tmp_path, Stream().generation(1, records))
    assert sum(1 for _ in trees.walk(Forest(opened).tree(opened.operations[0]))) == deep + 1


def test_meanwhile_is_what_ran_while_the_request_waited_and_not_who_waited_too(tmp_path: Path) -> None:
    web = Stream("web", 1).generation(
        1,
        [
            operation_begin(0, "GET", 5),
            context(1, op=5),
            begin(10, "update"),
            operation_begin(20, "GET", 6, trace=b"u" * 16, writer=2),
            operation_end(300, 6, writer=2),
            end(310, "update"),
            operation_end(320, 5),
        ],
    )
    audit = Stream("jobs", 2).generation(
        1,
        [
            operation_begin(5, "audit", 9, trace=b"v" * 16),
            context(6, op=9),
            begin(8, "transaction"),
            end(290, "transaction"),
            operation_end(300, 9),
            operation_begin(305, "quick", 10, trace=b"w" * 16),
            operation_end(308, 10),
        ],
    )
    forest = Forest(snapshot(tmp_path, web, audit))
    found = meanwhile(forest, forest.tree(forest.snapshot.operations[0]))
    assert [(m.name, m.overlap_ns, m.waited.item.name) for m in found] == [("audit: transaction", 280, "update")]


def test_operation_stats_are_by_service_and_name(tmp_path: Path) -> None:
    def work(n: int, name: str, took: int, error: str | None = None) -> list[At]:
        return [operation_begin(1000 * n, name, n), operation_end(1000 * n + took, n, error=error)]

    records = [record for n in range(1, 101) for record in work(n, "GET", n)]
    records += [*work(200, "POST", 900, "KeyError"), operation_begin(300_000, "POST", 300)]
    web = Stream("web", 1).generation(1, records)
    db = Stream("db", 2).generation(1, [operation_end(10, 7)])
    rows = [
        (s.service, s.name, s.count, s.errors, s.open, s.p50_ns, s.p99_ns, s.longest_ns)
        for s in operation_stats(snapshot(tmp_path, web, db))
    ]
    assert rows == [
        ("db", "", 1, 0, 0, None, None, None),
        ("web", "GET", 100, 0, 0, 50, 99, 100),
        ("web", "POST", 2, 1, 1, 900, 900, 900),
    ]


def test_quantile_is_the_least_value_that_is_enough() -> None:
    assert [quantile([1, 2, 3, 4], p) for p in (1, 25, 26, 50, 99, 100)] == [1, 1, 2, 2, 4, 4]
    assert quantile([7], 50) == 7


def test_events_do_not_make_a_tree(tmp_path: Path) -> None:
    assert Forest(snapshot(tmp_path, Stream().generation(1, [event(1, "e")]))).roots(T.hex()) == []
