"""When all connections are closed: by the figures that it is given, on a clock of the test's."""

from __future__ import annotations

import itertools
import mmap
import os
import resource

import pytest

from frzmq.recorder.guard import (
    ALERT_NS,
    ALLOWANCE_BYTES,
    GRANT_NS,
    LOOK_NS,
    MAX_GRANT_NS,
    TRACER_BYTES,
    Guard,
    descriptors,
    give_back_memory,
    rss_bytes,
)

MIB = 1 << 20
BASE = 30 * MIB
RING = 100 * MIB
BOUND = BASE + 150 * MIB + ALLOWANCE_BYTES


class Bench:
    def __init__(self) -> None:
        self.now = 0
        self.taken: int | None = BASE
        self.free = (1000, 900)
        self.given_back = 0
        self.guard = Guard(
            RING, memory=lambda: self.taken, descriptors=lambda: self.free, give_back=self._count_given_back
        )

    def _count_given_back(self) -> None:
        self.given_back += 1

    def look(self, taken: int | None = None, tracers: int = 0) -> str:
        """At the next time that it wants to."""
        self.taken = self.taken if taken is None else taken
        self.now = max(self.now, self.guard.deadline_ns())
        return self.guard.why_cut(tracers, self.now)

    def waits(self) -> int:
        return self.guard.deadline_ns() - self.now


def test_guard_within_its_bound_looks_seldom_and_says_nothing() -> None:
    bench = Bench()
    assert bench.guard.bound_bytes(0) == BOUND
    assert (bench.look(), bench.waits()) == ("", LOOK_NS)
    assert bench.guard.why_cut(0, bench.now + LOOK_NS - 1) == ""
    assert (bench.look(BOUND), bench.waits()) == ("", ALERT_NS)
    assert (bench.look(BOUND), bench.waits()) == ("", LOOK_NS)
    assert bench.guard.cuts == 0


def test_guard_past_its_bound_cuts_once_and_waits_for_what_that_brings() -> None:
    bench = Bench()
    assert bench.look(BOUND + 1) == f"wanted at most {BOUND // MIB} MiB of memory"
    cut_at = bench.now
    while bench.guard.deadline_ns() < cut_at + GRANT_NS:
        assert (bench.look(), bench.waits()) == ("", ALERT_NS)
    assert bench.look(BASE) == ""
    assert (bench.guard.cuts, bench.given_back) == (1, GRANT_NS // ALERT_NS - 1)
    assert bench.waits() == LOOK_NS
    assert bench.look(BOUND + 1) != ""
    assert bench.guard.cuts == 2


def test_guard_cuts_again_at_once_what_helped_and_grows_again() -> None:
    bench = Bench()
    for _ in range(5):
        assert bench.look(BOUND + 1) != ""
        assert (bench.look(BASE), bench.waits()) == ("", ALERT_NS)
    assert bench.guard.cuts == 5


def test_guard_whose_cuts_do_not_help_makes_them_rare() -> None:
    bench = Bench()
    at: list[int] = []
    while len(at) < 10:
        if bench.look(BOUND + 1):
            at.append(bench.now)
    waits = [b - a for a, b in itertools.pairwise(at)]
    assert waits == [min(GRANT_NS << n, MAX_GRANT_NS) for n in range(9)]
    assert bench.look(BASE) == ""
    assert bench.look(BOUND + 1)
    at = [bench.now]
    while not bench.look(BOUND + 1):
        pass
    assert bench.now - at[0] == GRANT_NS


def test_guard_grants_each_tracer_its_share() -> None:
    bench = Bench()
    assert bench.look(BOUND + 10 * TRACER_BYTES, tracers=10) == ""
    assert bench.look(BOUND + 10 * TRACER_BYTES + 1, tracers=10) != ""


@pytest.mark.parametrize(("limit", "reserved"), [(100, 25), (4096, 1024), (1 << 20, 4096)])
def test_guard_keeps_descriptors_free(limit: int, reserved: int) -> None:
    bench = Bench()
    bench.free = (limit, reserved + 16)
    assert (bench.look(), bench.waits()) == ("", LOOK_NS)
    bench.free = (limit, reserved)
    assert (bench.look(), bench.waits()) == ("", ALERT_NS)
    bench.free = (limit, reserved - 1)
    assert bench.look() == f"wanted {reserved} of {limit} file descriptors free"


def test_guard_where_nothing_tells_the_memory_looks_at_descriptors_alone() -> None:
    bench = Bench()
    bench.taken = None
    bench.guard = Guard(RING, memory=lambda: None, descriptors=lambda: bench.free, give_back=lambda: None)
    assert bench.look() == ""
    bench.free = (1000, 0)
    assert bench.look() != ""


def test_guard_measures_this_process() -> None:
    before = rss_bytes()
    assert before is not None
    # new pages: what the allocator gives may be old ones of an earlier test
    with mmap.mmap(-1, 32 * MIB) as held:
        held.write(os.urandom(32 * MIB))
        during = rss_bytes()
    assert during is not None and during - before > 24 * MIB
    give_back_memory()
    limit, free = descriptors()
    assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    try:
        assert descriptors()[1] == free - 100
    finally:
        for fd in opened:
            os.close(fd)
