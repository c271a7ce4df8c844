"""Single cases of retention; whole histories are in tests/model/test_ring_model.py."""

from __future__ import annotations

from frzmq.recorder.events import Seal, SealedGeneration
from frzmq.recorder.ring import OVERHEAD_BYTES, Kept, Ring


def _put(ring: Ring, stream: int, number: int, begin_ns: int, size_bytes: int) -> None:
    generation = SealedGeneration(
        number, True, Seal.END_MARK, begin_ns, begin_ns + 1, 1, 1, (bytes(size_bytes - OVERHEAD_BYTES),)
    )
    ring.put(stream, Kept(generation, begin_ns, begin_ns + 1))


def _ring(streams: int, max_bytes: int) -> Ring:
    ring = Ring(10**9, max_bytes, 10**9)
    for stream in range(streams):
        ring.join(stream)
    return ring


def test_ring_stream_at_just_half_gives_no_earlier_than_others() -> None:
    ring = _ring(3, 2000)
    for number, (stream, begin_ns) in enumerate([(1, 1), (1, 2), (2, 3), (0, 5), (0, 6)]):
        _put(ring, stream, number, begin_ns, 500)
    ring.charge(2, 100)
    assert [(e.stream, e.kept.begin_ns, e.past_cap) for e in ring.evict_by_size()] == [(1, 1, False)]


def test_ring_chatty_stream_gives_its_own_first() -> None:
    ring = _ring(2, 2000)
    _put(ring, 0, 1, 1, 600)
    _put(ring, 0, 2, 2, 600)
    for number in range(3):
        _put(ring, 1, number, 10 + number, 700)
    assert [(e.stream, e.kept.begin_ns) for e in ring.evict_by_size()] == [(1, 10)]


def test_ring_size_0_keeps_exactly_one() -> None:
    ring = _ring(1, 0)
    for number in range(3):
        _put(ring, 0, number, number, 600)
    ring.evict_by_size()
    assert [k.generation.generation for k in ring.kept(0)] == [2]
