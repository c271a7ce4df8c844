"""Retention against a slow, obvious model, and from both sides: enough was kept, and not too much."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from frzmq.recorder.events import Seal, SealedGeneration
from frzmq.recorder.ring import OVERHEAD_BYTES, Kept, Ring


def sealed(number: int, begin_ns: int, end_ns: int, size_bytes: int) -> Kept:
    frames = (bytes(size_bytes - OVERHEAD_BYTES),)
    return Kept(SealedGeneration(number, True, Seal.END_MARK, begin_ns, end_ns, 1, 1, frames), begin_ns, end_ns)


@dataclass
class Item:
    stream: int
    number: int
    begin: int
    end: int
    size: int


class Model:
    """One list of all, sums made anew each time."""

    def __init__(self, age: int, most: int, cap: int) -> None:
        self.age, self.most, self.cap = age, most, cap
        self.items: list[Item] = []
        self.live: dict[int, bool] = {}
        self.charged: dict[int, int] = {}

    def of(self, stream: int) -> list[Item]:
        return [i for i in self.items if i.stream == stream]

    def bytes_of(self, stream: int) -> int:
        return sum(i.size for i in self.of(stream)) + self.charged[stream]

    def total(self) -> int:
        return sum(self.bytes_of(s) for s in self.live)

    def may_go(self, newest_too: bool) -> list[Item]:
        """The oldest of each stream, but for the newest of the live ones."""
        return [own[0] for s in self.live if (own := self.of(s)) and (newest_too or len(own) > 1 or not self.live[s])]

    def by_size(self) -> list[tuple[int, int]]:
        gone = []
        while self.total() > self.most:
            candidates = self.may_go(False)
            if sum(self.live.values()) >= 2:
                chatty = [i for i in candidates if self.bytes_of(i.stream) > self.most / 2]
                top = max((self.bytes_of(i.stream) for i in chatty), default=0)
                candidates = [i for i in chatty if self.bytes_of(i.stream) == top][:1] or candidates
            if not candidates:
                break
            victim = min(candidates, key=lambda i: (i.begin, i.stream))
            if self.total() - victim.size <= self.most:
                break
            self.items.remove(victim)
            gone.append((victim.stream, victim.number))
        while self.total() > self.cap and self.items:
            victim = min(self.may_go(True), key=lambda i: (i.begin, i.stream))
            self.items.remove(victim)
            gone.append((victim.stream, victim.number))
        return gone

    def by_age(self, now: int) -> list[tuple[int, int]]:
        gone = []
        for stream in self.live:
            own = self.of(stream)
            keep = [i for at, i in enumerate(own) if at + 1 == len(own) or now - own[at + 1].begin <= self.age]
            if not self.live[stream] and own and now - own[-1].end > self.age:
                keep = []
            gone += [(i.stream, i.number) for i in own if i not in keep]
            self.items = [i for i in self.items if i.stream != stream or i in keep]
        return gone


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 2), st.integers(0, 30), st.sampled_from([500, 600, 750, 900])),
        st.tuples(st.just("charge"), st.integers(0, 2), st.sampled_from([0, 1, 150, 750, 1500]), st.just(0)),
        st.tuples(st.just("end"), st.integers(0, 2), st.just(0), st.just(0)),
        st.tuples(st.just("revive"), st.integers(0, 2), st.just(0), st.just(0)),
        st.tuples(st.just("age"), st.integers(0, 40), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(
    STEPS,
    st.integers(1, 3),
    st.sampled_from([0, 1, 20, 60]),
    st.sampled_from([0, 600, 1500, 3000]),
    st.sampled_from([1000, 2500]),
)
def test_ring_any_history_is_the_models(
    steps: list[tuple[str, int, int, int]], streams: int, age: int, most: int, over: int
) -> None:
    ring, model = Ring(age, most, most + over), Model(age, most, most + over)
    for stream in range(streams):
        ring.join(stream)
        model.live[stream], model.charged[stream] = True, 0
    now, number = 1000, 0
    for what, a, b, c in steps:
        stream = a % streams
        before = {s: list(model.of(s)) for s in model.live}
        if what == "put":
            number += 1
            begin = now
            now += b
            ring.put(stream, sealed(number, begin, now, c))
            model.items.append(Item(stream, number, begin, now, c))
        elif what == "charge":
            ring.charge(stream, b)
            model.charged[stream] = b
        elif what in ("end", "revive"):
            ring.set_live(stream, what == "revive")
            model.live[stream] = what == "revive"
        elif what == "age":
            now += a
            assert [(e.stream, e.kept.generation.generation) for e in ring.evict_by_age(now)] == model.by_age(now)
        gone = ring.evict_by_size()
        assert [(e.stream, e.kept.generation.generation) for e in gone] == model.by_size()
        for s in model.live:
            assert [k.generation.generation for k in ring.kept(s)] == [i.number for i in model.of(s)]
            assert ring.stream_bytes(s) == model.bytes_of(s)
        assert ring.size_bytes == model.total()
        _not_too_much(model)
        if what != "age":
            _enough(model, before, [e.past_cap for e in gone])


def _not_too_much(model: Model) -> None:
    """Past max_bytes by less than the next to go, and never past the cap while there is anything to give."""
    assert model.total() <= model.cap or not model.items
    victims = model.may_go(False)
    if victims and model.total() > model.most:
        assert model.total() - max(v.size for v in victims) <= model.most


def _enough(model: Model, before: dict[int, list[Item]], past_cap: list[bool]) -> None:
    """The newest of a live stream only goes past the cap, and that is said."""
    for stream, own in before.items():
        if own and model.live[stream] and not model.of(stream):
            assert any(past_cap)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(500, 900)), min_size=1, max_size=30),
    st.sampled_from([0, 10, 40, 10**6]),
    st.sampled_from([0, 700, 2000, 10**6]),
)
def test_ring_one_live_stream_keeps_what_go_keeps(history: list[tuple[int, int]], age: int, most: int) -> None:
    """Go's own words: from the newest back, stop before an older one when too much or old enough is kept."""
    ring = Ring(age, most, most + 10**9)
    ring.join(0)
    now, everything = 5, []
    for number, (length, size) in enumerate(history, 1):
        begin, now = now, now + length
        everything.append((number, begin, size))
        ring.put(0, sealed(number, begin, now, size))
    ring.evict_by_size()
    ring.evict_by_age(now)
    kept: list[int] = []
    size_bytes = 0
    oldest = now
    for number, begin, size in reversed(everything):
        if kept and (size_bytes > most or now - oldest > age):
            break
        kept.append(number)
        size_bytes += size
        oldest = begin
    assert [k.generation.generation for k in ring.kept(0)] == kept[::-1]
