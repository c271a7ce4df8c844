"""`Door` with listeners and descriptors of our own."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from frzmq.recorder.door import LOOK_NS, MAX_LOOKS, Door, some_free
from frzmq.recorder.guard import descriptors


class Bench:
    """Listeners 3 and 4; ``hidden`` are not found yet."""

    def __init__(self, hidden: set[int]) -> None:
        self.hidden = hidden
        self.free = True
        self.found: set[int] = set()
        self.watched: set[int] = set()
        self.let: list[int] = []
        self.looks = 0
        self.door = Door(self, self.watched.add, self.watched.remove, lambda: self.free)

    @property
    def complete(self) -> bool:
        return self.found == {3, 4}

    def find(self) -> list[int]:
        self.looks += 1
        new = {3, 4} - self.found - self.hidden
        self.found |= new
        return sorted(new)

    def let_in(self, fd: int) -> None:
        self.let.append(fd)


def test_door_lets_one_in_for_each_listener_that_somebody_waits_at() -> None:
    bench = Bench(set())
    assert not bench.door.turn(set(), 0)
    assert bench.watched == {3, 4}
    assert bench.door.deadline_ns() is None
    bench.door.turn({4, 9, "link"}, 1)
    bench.door.turn({4}, 2)
    assert bench.let == [4, 4]


def test_door_without_free_descriptors_is_shut_until_there_are_some() -> None:
    bench = Bench(set())
    bench.door.turn(set(), 0)
    bench.free = False
    assert bench.door.turn({3}, 1)
    assert (bench.watched, bench.let) == ({4}, [])
    # it is said once
    assert not bench.door.turn({3, 4}, 2)
    assert bench.watched == set()
    assert bench.door.deadline_ns() == LOOK_NS
    assert not bench.door.turn(set(), LOOK_NS)
    assert bench.watched == set()
    bench.free = True
    bench.door.turn(set(), 2 * LOOK_NS)
    assert bench.watched == {3, 4}
    assert bench.door.deadline_ns() is None
    bench.door.turn({3}, 2 * LOOK_NS)
    assert bench.let == [3]


def test_door_looks_for_its_listeners_again_and_not_for_ever() -> None:
    bench = Bench({4})
    bench.door.turn(set(), 0)
    assert (bench.watched, bench.door.deadline_ns()) == ({3}, LOOK_NS)
    bench.hidden = set()
    bench.door.turn(set(), LOOK_NS)
    assert (bench.watched, bench.door.deadline_ns()) == ({3, 4}, None)
    never = Bench({3, 4})
    for n in range(2 * MAX_LOOKS):
        never.door.turn(set(), n * LOOK_NS)
    assert (never.looks, never.door.deadline_ns()) == (MAX_LOOKS, None)


@contextlib.contextmanager
def limited(limit: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_some_free_counts_what_can_be_opened() -> None:
    assert some_free()
    # none above the standard streams
    with limited(8):
        assert not some_free()


def test_some_free_leaves_the_last_descriptors_to_whom_needs_them_meanwhile() -> None:
    """zmq's thread, which ends the process where it finds none."""
    looks = threading.Event()

    def look_on() -> int:
        count = 0
        while not looks.is_set():
            some_free()
            count += 1
        return count

    held: list[int] = []
    with limited(256), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(look_on)
        try:
            _, free = descriptors()
            # one is for the looking itself
            kept = 7
            held += [os.dup(0) for _ in range(free - kept - 1)]
            for _ in range(20_000):
                held += [os.dup(0) for _ in range(kept)]
                for _ in range(kept):
                    os.close(held.pop())
        finally:
            looks.set()
            for fd in held:
                os.close(fd)
        assert asked.result() > 10
