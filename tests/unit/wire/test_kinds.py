from __future__ import annotations

import pytest

from frzmq.errors import WireError
from frzmq.wire.codec import pack, unpack
from frzmq.wire.kinds import FIELD_TYPES, KINDS, MAX_ARITY, MAX_KINDS, Kind, KindSpec, kinds_from_wire, kinds_to_wire


def test_kinds_every_kind_has_one_row() -> None:
    assert [*KINDS] == [*Kind]
    assert [spec.name for spec in KINDS.values()] == [kind.name.lower() for kind in Kind]


def test_kinds_fields_have_known_types() -> None:
    assert {field[-1] for spec in KINDS.values() for field in spec.fields} == set(FIELD_TYPES)


def test_kinds_numbers_and_arities_stay_as_they_were_released() -> None:
    assert {spec.name: (int(spec.kind), spec.arity) for spec in KINDS.values()} == {
        "span_begin": (1, 2), "span_end": (2, 2), "operation_begin": (3, 6), "operation_end": (4, 2), "event": (5, 2),
        "gauge": (6, 2), "log": (7, 4), "exception": (8, 4), "context": (9, 3), "thread_begin": (10, 2),
        "thread_end": (11, 0), "process_begin": (12, 2), "process_end": (13, 1), "inject": (14, 3), "extract": (15, 3),
        "operation_update": (16, 3), "log_suppressed": (17, 4),
        "call_begin": (18, 1), "call_end": (19, 1), "call_fail": (20, 2), "call_resume": (21, 1), "call_suspend": (22, 1),
        "call_open": (23, 3), "call_quiet": (24, 4), "calls": (25, 3),
    }  # fmt: skip


def test_kinds_table_comes_back_through_the_wire() -> None:
    rows = unpack(pack(kinds_to_wire(KINDS)))  # type: ignore[arg-type]  # list is invariant
    assert kinds_from_wire(rows) == KINDS


def test_kinds_an_unknown_kind_is_kept() -> None:
    assert kinds_from_wire([[900, "lock_wait", ["name:s", "owner:u"]]]) == {
        900: KindSpec(900, "lock_wait", ("name:s", "owner:u"))
    }


def test_kinds_rows_at_the_limit_are_taken_and_one_past_it_not() -> None:
    rows = [[n + 1, f"k{n}", []] for n in range(MAX_KINDS)]
    assert len(kinds_from_wire(rows)) == MAX_KINDS
    with pytest.raises(WireError, match=f"^kind table: wanted a list of at most {MAX_KINDS} rows, got list"):
        kinds_from_wire([*rows, [MAX_KINDS + 1, "more", []]])


def test_kinds_fields_at_the_limit_are_taken_and_one_past_it_not() -> None:
    assert kinds_from_wire([[1, "wide", ["a:u"] * MAX_ARITY]])[1].arity == MAX_ARITY
    with pytest.raises(WireError, match=r"^kind table: wanted rows \[kind, name, fields\], got \[1, 'wide'"):
        kinds_from_wire([[1, "wide", ["a:u"] * (MAX_ARITY + 1)]])


def test_kinds_numbers_at_the_limit_are_taken_and_one_past_it_not() -> None:
    assert [*kinds_from_wire([[1, "a", []], [65535, "b", []]])] == [1, 65535]
    for number in (0, 65536, -1):
        with pytest.raises(WireError, match=rf"wanted rows \[kind, name, fields\], got \[{number}, 'a', \[\]\]"):
            kinds_from_wire([[number, "a", []]])


@pytest.mark.parametrize(
    "rows", [None, {}, 3, "x", [1], [[1, "a"]], [["1", "a", []]], [[1, b"a", []]], [[1, "a", "b:s"]]]
)
def test_kinds_what_is_no_table_is_a_wire_error(rows: object) -> None:
    with pytest.raises(WireError, match=r"^kind table: wanted "):
        kinds_from_wire(rows)


@pytest.mark.parametrize("field", ["name", "name:x", "name:", ":", "", 3, None])
def test_kinds_what_is_no_field_is_named(field: object) -> None:
    with pytest.raises(WireError) as caught:
        kinds_from_wire([[7, "log", [field]]])
    assert str(caught.value) == f"kind table: kind 7: wanted fields like 'name:s', got {field!r}"
