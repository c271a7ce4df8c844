from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frzmq.recorder.ranges import Ranges

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=20)


@given(SPANS, st.integers(0, 45), st.integers(0, 45))
def test_ranges_any_additions_are_those_of_a_set(spans: list[tuple[int, int]], low: int, high: int) -> None:
    ranges, model = Ranges(), set[int]()
    for start, length in spans:
        new = set(range(start, start + length)) - model
        model |= new
        assert ranges.add(start, start + length) == len(new)
    assert [n for start, end in ranges.ranges() for n in range(start, end)] == sorted(model)
    assert all(a[1] < b[0] for a, b in zip(ranges.ranges(), ranges.ranges()[1:], strict=False))
    assert (ranges.start, ranges.end) == (min(model, default=0), max(model, default=-1) + 1)
    assert ranges.count(low, high) == len(model & set(range(low, high)))
    assert [n for start, end in ranges.gaps(low, high) for n in range(start, end)] == [
        n for n in range(low, high) if n not in model
    ]
    assert [n for n in range(50) if n in ranges] == sorted(model)


def test_ranges_join_first_fills_the_lowest_gap() -> None:
    ranges = Ranges()
    for start in (1, 5, 9):
        ranges.add(start, start + 1)
    assert (ranges.join_first(), ranges.ranges()) == (5, [(1, 6), (9, 10)])
