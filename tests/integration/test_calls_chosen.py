"""Which calls are recorded: by the names of modules, and of code that is called too often or of too many names none."""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.called import MONITORED, hot, leaf, of, recorder, total
from support.flights import taken

import frzmq
from frzmq.tracer import calls
from frzmq.tracer.choice import native

pytestmark = [
    pytest.mark.usefixtures("runtime_directory"),
    pytest.mark.skipif(native is None, reason="only the native buffer records calls"),
]


# --- filters


def module(name: str, file: str = "<string>") -> Callable[[], int]:
    """A function of a module of this name."""
    found = types.ModuleType(name)
    exec(compile("def f():\n    return 1\n", file, "exec"), found.__dict__)
    made: Callable[[], int] = found.__dict__["f"]
    return made


def recorded(tmp_path: Path, names: list[str], **options: Any) -> list[str]:
    """Of a function in a module of each name those that are recorded."""
    functions = [module(name) for name in names]
    with recorder(**{"calls_include": (), **options}) as flight:
        for function in functions:
            function()
        snapshot = taken(flight, tmp_path)
    found = {call.name for call in snapshot.calls}
    return [name for name in names if f"{name}.f" in found]


def test_calls_include_and_exclude_are_patterns_of_modules(tmp_path: Path) -> None:
    names = ["shop", "shop.orders", "shop.orders.db", "shopping", "other", "frzmq.inner", "zmq"]
    assert recorded(tmp_path, names) == ["shop", "shop.orders", "shop.orders.db", "shopping", "other"]
    assert recorded(tmp_path, names, calls_include=("shop",)) == ["shop", "shop.orders", "shop.orders.db"]
    assert recorded(tmp_path, names, calls_include=("shop*",), calls_exclude=("shop.orders",)) == ["shop", "shopping"]
    assert recorded(tmp_path, names, calls_include=("zmq", "frzmq")) == ["zmq"]


def test_calls_leave_out_the_standard_library_unless_it_is_included(tmp_path: Path) -> None:
    with recorder() as flight:
        os.path.normcase("a")
        os.path.join("a", "b")
        assert taken(flight, tmp_path).calls == ()
    with recorder(calls_include=("posixpath",)) as flight:
        os.path.join("a", "b")
        assert "posixpath.join" in {call.name for call in taken(flight, tmp_path).calls}
    judge = calls._Judge((), ())
    assert judge.judge(os.path.join.__code__, {"__name__": "posixpath"}) is None
    where = f"{leaf.__code__.co_filename}:{leaf.__code__.co_firstlineno}"
    assert judge.judge(leaf.__code__, {"__name__": "shop"}) == f"shop.leaf ({where})"


def test_calls_the_snapshot_says_which_are_recorded(tmp_path: Path) -> None:
    with recorder(calls_include=("a", "b.*"), calls_exclude=("a.c",), calls_per_second=7) as flight:
        frzmq.event("something")
        (said,) = taken(flight, tmp_path).call_filters
    assert (said.process, said.include, said.exclude, said.limit) == (0, "a,b.*", "a.c", 7)


def test_calls_a_name_is_short_enough_for_the_table() -> None:
    long = calls.call_name("m." + "f" * 500, "/dir/" * 100 + "é" * 100 + "/last.py", 1234567)
    assert len(long.encode()) <= 256
    assert long.startswith("m.ffff") and long.endswith("/last.py:1234567)")
    assert calls.call_name("m.f", "/x.py", 3) == "m.f (/x.py:3)"


# --- quiet


def test_calls_of_hot_code_are_counted(tmp_path: Path) -> None:
    with recorder(calls_per_second=100) as flight:
        hot(5000)
        snapshot = taken(flight, tmp_path)
    assert 100 <= len(of(snapshot, "leaf")) <= 200  # a second may have ended in the middle
    told = [quiet for quiet in snapshot.quiet_calls if quiet.code.name == f"{leaf.__module__}.leaf"]
    assert told[0].count == 0
    if MONITORED:
        assert told[-1].at_least
    else:
        assert len(of(snapshot, "leaf")) + sum(quiet.count for quiet in told) == 5000
    assert [call.end_held for call in of(snapshot, "hot")] == [True]


def test_calls_of_code_that_became_quiet_inside_of_itself_end_once(tmp_path: Path) -> None:
    with recorder(calls_per_second=100) as flight:
        total(300)
        total(300)
        snapshot = taken(flight, tmp_path)
    begun = of(snapshot, "total")
    assert 100 <= len(begun) <= 200
    assert all(call.begin_held and call.end_held for call in begun)
    assert [call.depth for call in begun[:100]] == [*range(100)]


def test_calls_of_code_that_is_calm_again_are_recorded_again(tmp_path: Path) -> None:
    calm = threading.Event()
    with recorder(calls_per_second=100) as flight:
        hot(1000)
        for _ in range(40):
            snapshot = taken(flight, tmp_path)  # each begins a generation, which looks whether a second is over
            if any(quiet.calm for quiet in snapshot.quiet_calls):
                break
            calm.wait(0.1)
        before = len(of(snapshot, "leaf"))
        hot(3)
        after = taken(flight, tmp_path)
    assert len(of(after, "leaf")) == before + 3


def test_calls_beyond_the_table_of_names_are_counted(tmp_path: Path) -> None:
    functions = [module(f"many{n}{'x' * 200}") for n in range(1000)]
    with recorder(calls_include=("many*",), buffer_bytes=256 << 10) as flight:
        for function in functions:
            function()
        snapshot = taken(flight, tmp_path)
    # in each generation, if a second was over in between
    told = [quiet for quiet in snapshot.quiet_calls if quiet.code.name == "code beyond the table of names"]
    assert 50 < len(snapshot.calls) < 1000
    assert len(snapshot.calls) + sum(quiet.count for quiet in told) == 1000
