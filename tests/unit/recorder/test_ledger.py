"""By writer: from which the recorder knows that a record was made, and which place it has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frzmq.recorder.ledger import MAX_HOLES, MAX_WRITERS, Book
from frzmq.recorder.ranges import Ranges
from frzmq.wire.batch import BatchType, EndMark, Header, WriterEnd
from frzmq.wire.ledger import Ledger, WriterLedger, total, writers_disagree


def came(*ranges: tuple[int, int]) -> Ranges:
    found = Ranges()
    for start, end in ranges:
        found.add(start, end)
    return found


def mark(first: int, end: int, *overwritten: tuple[int, int], dropped: int = 0) -> EndMark:
    return EndMark((WriterEnd(1, first, end, dropped, overwritten),))


def batch(start: int, end: int, writer: int = 1) -> Header:
    return Header(BatchType.RECORDS, b"u" * 16, 1, 1, 1, 1, writer=writer, first_index=start, count=end - start)


def only(book: Book) -> WriterLedger:
    """Of writer 1; the sums are the same."""
    (row,) = book.writers({})
    assert writers_disagree(book.places(0), (row,), 0) == ""
    return row


@pytest.mark.parametrize(
    ("received", "said", "whole", "lost", "wanted"),
    [
        ([(0, 5)], mark(0, 5), True, 0, {"recorded": 5, "held": 5}),
        ([(0, 5)], None, False, 0, {"recorded": 5, "held": 5}),
        ([(2, 5)], None, False, 0, {"recorded": 5, "held": 3, "missing": 2}),
        ([(0, 2), (4, 5)], mark(0, 9), False, 6, {"recorded": 9, "held": 3, "missing": 6}),
        ([(0, 2)], mark(0, 9, (2, 9)), True, 7, {"recorded": 9, "held": 2, "overwritten": 7}),
        # a chunk that was overwritten after it had arrived is not lost
        ([(0, 5)], mark(0, 9, (3, 9)), True, 4, {"recorded": 9, "held": 5, "overwritten": 4}),
        # a batch without records says that they are gone, and all batches are here
        ([(0, 2)], mark(0, 9), True, 7, {"recorded": 9, "held": 2, "overwritten": 7}),
        ([], mark(0, 9, (0, 4)), False, 9, {"recorded": 9, "overwritten": 4, "missing": 5}),
        ([(5, 6)], mark(3, 9, dropped=2), False, 5, {"recorded": 9, "held": 1, "missing": 8, "dropped": 2}),
    ],
)
def test_book_of_a_sealed_generation_gives_each_record_its_place(
    received: list[tuple[int, int]], said: EndMark | None, whole: bool, lost: int, wanted: dict[str, int]
) -> None:
    book = Book(True, {})
    assert book.settle({1: came(*received)}, said, whole=whole)[0] == lost
    assert only(book) == WriterLedger(**wanted, writer=1)


def test_book_of_batches_without_records_and_without_a_mark_knows_of_nothing() -> None:
    book = Book(False, {})
    assert book.settle({1: came()}, None, whole=False) == (0, b"")
    assert book.writers({}) == ()


@pytest.mark.parametrize(
    ("from_birth", "ends", "missing"),
    [(True, {}, 5), (False, {}, 0), (False, {1: 3}, 2), (False, {1: 9}, 0), (False, {2: 3}, 0)],
)
def test_book_counts_from_where_a_writer_begins_for_this_recorder(
    from_birth: bool, ends: dict[int, int], missing: int
) -> None:
    book = Book(from_birth, ends)
    book.settle({1: came((5, 7))}, None, whole=False)
    assert (only(book).recorded, only(book).missing) == (2 + missing, missing)


def test_book_counts_nothing_of_the_time_when_it_was_interrupted() -> None:
    book = Book(True, {})
    book.settle({1: came((0, 4))}, None, whole=False)
    book.interrupt()
    book.settle({1: came((100, 102))}, None, whole=False)
    assert only(book) == WriterLedger(6, held=6, writer=1)


@pytest.mark.parametrize(
    ("late", "wanted", "taken"),
    [
        # missing when their generation was sealed
        ([(2, 4)], {"recorded": 6, "held": 4, "late": 2}, [2]),
        ([(2, 3)], {"recorded": 6, "held": 4, "missing": 1, "late": 1}, [1]),
        # here already
        ([(0, 2)], {"recorded": 6, "held": 4, "missing": 2}, [0]),
        ([(2, 4), (2, 4)], {"recorded": 6, "held": 4, "late": 2}, [2, 0]),
        ([(1, 5)], {"recorded": 6, "held": 4, "late": 2}, [2]),
        # beyond what was known
        ([(6, 9)], {"recorded": 9, "held": 4, "missing": 2, "late": 3}, [3]),
        ([(8, 9), (6, 8)], {"recorded": 9, "held": 4, "missing": 2, "late": 3}, [1, 2]),
        ([(5, 8)], {"recorded": 8, "held": 4, "missing": 2, "late": 2}, [2]),
    ],
)
def test_book_of_late_batches_counts_each_record_once(
    late: list[tuple[int, int]], wanted: dict[str, int], taken: list[int]
) -> None:
    book = Book(True, {})
    book.settle({1: came((0, 2), (4, 6))}, None, whole=False)
    assert [book.late(batch(*each)) for each in late] == taken
    assert only(book) == WriterLedger(**wanted, writer=1)


def test_book_of_late_batches_below_the_first_that_was_known_counts_what_is_between() -> None:
    book = Book(False, {})
    book.settle({1: came((10, 12))}, None, whole=False)
    assert book.late(batch(5, 7)) == 2
    assert only(book) == WriterLedger(7, held=2, missing=3, late=2, writer=1)


def test_book_forgets_which_are_missing_of_too_many_holes_and_not_how_many() -> None:
    book = Book(True, {})
    count = MAX_HOLES + 3
    book.settle({1: came(*((2 * n + 1, 2 * n + 2) for n in range(count)))}, None, whole=False)
    assert [book.late(batch(2 * n, 2 * n + 1)) for n in (0, 2, 3, count - 1)] == [0, 0, 1, 1]
    assert only(book) == WriterLedger(2 * count, held=count, missing=count - 2, late=2, writer=1)


def test_book_moves_what_is_evicted_by_writer() -> None:
    book = Book(True, {})
    _, first = book.settle({1: came((0, 2)), 2: came((0, 7))}, None, whole=False)
    _, second = book.settle({1: came((2, 5))}, None, whole=False)
    book.evict(first)
    assert book.writers({2: 3}) == (
        WriterLedger(5, held=3, evicted=2, writer=1),
        WriterLedger(10, open=3, evicted=7, writer=2),
    )
    book.evict(second)
    assert book.places(0).held == 0


def test_book_of_too_many_writers_keeps_the_sum_of_those_that_it_forgets() -> None:
    book = Book(True, {})
    _, counted = book.settle({writer: came((0, 2)) for writer in range(MAX_WRITERS + 5)}, None, whole=False)
    # one that comes again, of which nothing is known any more: no gap, and what it held before is none of its own
    book.settle({0: came((8, 9))}, None, whole=False)
    rows, places = book.writers({}), book.places(0)
    assert (len(rows), book.forgotten, places.recorded) == (MAX_WRITERS, 6, 2 * (MAX_WRITERS + 5) + 1)
    assert writers_disagree(places, rows, book.forgotten) == ""
    book.evict(counted)
    rows, places = book.writers({}), book.places(0)
    assert (places.held, places.evicted) == (1, 2 * (MAX_WRITERS + 5))
    assert places.balanced
    assert writers_disagree(places, rows, book.forgotten) == ""


_step = st.tuples(st.sampled_from(["came", "late", "evict"]), st.integers(0, 12), st.integers(0, 6), st.booleans())


@given(st.booleans(), st.lists(_step, max_size=12))
def test_book_of_any_history_adds_up(from_birth: bool, steps: list[tuple[str, int, int, bool]]) -> None:
    """Also of a tracer that uses indices again."""
    book = Book(from_birth, {})
    kept: list[bytes] = []
    for what, start, size, whole in steps:
        match what:
            case "came":
                said = mark(start, start + size + 2, (start, start + 1)) if whole else None
                kept.append(book.settle({1: came((start, start + size))}, said, whole=whole)[1])
            case "late":
                book.late(batch(start, start + size))
            case "evict" if kept:
                book.evict(kept.pop(0))
    places = book.places(3)
    assert places.balanced
    assert min(places.held, places.missing, places.late) >= 0
    assert writers_disagree(places, book.writers({1: 3}), 0) == ""


def test_writers_that_do_not_add_up_are_told() -> None:
    row = WriterLedger(3, held=3, writer=4)
    assert writers_disagree(Ledger(3, held=3), (row,), 0) == ""
    assert writers_disagree(Ledger(3, held=3), (), 0) == ""
    assert (
        writers_disagree(Ledger(3, held=3), (WriterLedger(3, held=2, writer=4),), 0) == "writer 4: 3 recorded != 2 held"
    )
    assert writers_disagree(Ledger(5, held=5), (row,), 0) == "5 records recorded, those of its writers are 3"
    assert writers_disagree(Ledger(5, held=5), (row,), 1) == ""
    assert writers_disagree(Ledger(2, held=2), (row,), 1) == "2 records recorded, those of its writers are 3"


def test_ledger_says_its_equation_and_sums() -> None:
    assert Ledger(9, 1, 2, 3, 1, 1, 1).equation == (
        "9 recorded = 2 held + 3 evicted + 1 open + 1 overwritten + 1 missing + 1 late"
    )
    assert Ledger(9, held=2).equation == "9 recorded != 2 held"
    assert Ledger().equation == "0 recorded = 0"
    assert total([Ledger(2, held=2, torn=1), Ledger(1, late=1, dropped=4)]) == Ledger(
        3, held=2, late=1, torn=1, dropped=4
    )
    assert Ledger(5, overwritten=1, missing=2, late=3, dropped=4, torn=5, evicted=9, duplicate=9, rejected=9).lost == 15
