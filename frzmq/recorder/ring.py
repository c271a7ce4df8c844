"""The ring: the sealed generations that are kept, of all streams, and which of them go.

The rule for one stream is that of Go's flight recorder: the newest is kept; walking back, stop before adding an older one when what is kept already
exceeds ``max_bytes``, or when the oldest kept one began more than ``min_age_ns`` ago. Seen from the old end: a generation goes when all that is younger is
already too much, or already old enough. So one that crosses a limit is kept and one wholly outside of it is not.

Over several streams, in this order:

1. size: ``max_bytes`` is one budget; what began first goes first. A stream that holds more than half of it, while several are live, gives its own first.
2. age, also for the streams that ended; of these the last generation goes too, when its end is old enough.
3. the newest of a live stream is kept, but not past the cap (``cap_bytes``): then the oldest of these go too, and are reported.

Open frames and strings count (`charge`). Times are the recorder's clock in ns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from frzmq.recorder.events import SealedGeneration

OVERHEAD_BYTES = 500
"""Charged for each open frame and for each sealed generation beyond its bytes."""


@dataclass(frozen=True, slots=True)
class Kept:
    generation: SealedGeneration
    begin_ns: int
    end_ns: int
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        size_bytes = (
            sum(map(len, (self.generation.end_mark, self.generation.counted)))
            + self.generation.frame_bytes
            + OVERHEAD_BYTES
        )
        object.__setattr__(self, "size_bytes", size_bytes)


@dataclass(frozen=True, slots=True)
class Evicted:
    stream: int
    kept: Kept
    past_cap: bool
    """It was the newest of a live stream."""


class _Share:
    """One stream's part of the ring."""

    __slots__ = ("charged_bytes", "kept", "live", "size_bytes")

    def __init__(self) -> None:
        self.kept: tuple[Kept, ...] = ()
        self.live = True
        self.charged_bytes = 0
        self.size_bytes = 0
        """Of all, what is charged included."""

    def first(self, *, newest_too: bool = False) -> Kept | None:
        """What would go first; None when there is nothing that may."""
        return self.kept[0] if len(self.kept) > (1 if self.live and not newest_too else 0) else None


class Ring:
    """Streams are named by number. Not a thread in it, nor a clock."""

    def __init__(self, min_age_ns: int, max_bytes: int, cap_bytes: int) -> None:
        self._min_age_ns = min_age_ns
        self._max_bytes = max_bytes
        self._cap_bytes = cap_bytes
        self._shares: dict[int, _Share] = {}
        self.size_bytes = 0
        """Everything: sealed, and what is charged."""
        self._least_bytes: int | None = None
        """Of what may go next, the size of the smallest; None: to be found out."""

    @property
    def over_cap(self) -> bool:
        return self.size_bytes > self._cap_bytes

    def join(self, stream: int) -> None:
        """A new stream, live."""
        self._shares[stream] = _Share()

    def forget(self, stream: int) -> None:
        share = self._shares.pop(stream)
        self._least_bytes = None
        self.size_bytes -= share.size_bytes

    def set_live(self, stream: int, live: bool) -> None:
        self._shares[stream].live = live

    def charge(self, stream: int, size_bytes: int) -> None:
        """What the stream holds beside its sealed generations is now ``size_bytes``."""
        share = self._shares[stream]
        added = size_bytes - share.charged_bytes
        share.charged_bytes = size_bytes
        share.size_bytes += added
        self.size_bytes += added

    def put(self, stream: int, kept: Kept) -> None:
        """The stream's newest sealed generation."""
        share = self._shares[stream]
        share.kept = (*share.kept, kept)
        self._least_bytes = None
        share.size_bytes += kept.size_bytes
        self.size_bytes += kept.size_bytes

    def kept(self, stream: int) -> tuple[Kept, ...]:
        """Oldest first. The tuple is replaced, never changed."""
        return self._shares[stream].kept

    def stream_bytes(self, stream: int) -> int:
        return self._shares[stream].size_bytes

    def clear(self) -> list[Evicted]:
        return [self._pop(stream, False) for stream, share in self._shares.items() for _ in share.kept]

    def evict_by_size(self) -> list[Evicted]:
        """What has to go for ``max_bytes``, then for the cap; in the order of going."""
        evicted: list[Evicted] = []
        if self._is_surely_in_size():
            return evicted
        while (stream := self._next()) is not None:
            if self.size_bytes - self._shares[stream].kept[0].size_bytes <= self._max_bytes:
                break
            evicted.append(self._pop(stream, False))
        while self.over_cap and (stream := self._oldest(newest_too=True)) is not None:
            share = self._shares[stream]
            evicted.append(self._pop(stream, share.live and len(share.kept) == 1))
        return evicted

    def evict_by_age(self, now_ns: int) -> list[Evicted]:
        evicted: list[Evicted] = []
        for stream, share in self._shares.items():
            while len(share.kept) > 1 and now_ns - share.kept[1].begin_ns > self._min_age_ns:
                evicted.append(self._pop(stream, False))
            if len(share.kept) == 1 and not share.live and now_ns - share.kept[0].end_ns > self._min_age_ns:
                evicted.append(self._pop(stream, False))
        return evicted

    def _is_surely_in_size(self) -> bool:
        """Whichever went next, too little would be left. Asked for each frame: hence not by a look at every stream."""
        if self.size_bytes <= self._max_bytes:
            return True
        if self._least_bytes is None:
            self._least_bytes = min(
                (share.kept[0].size_bytes for share in self._shares.values() if share.kept), default=1 << 63
            )
        return self.size_bytes - self._least_bytes <= self._max_bytes and not self.over_cap

    def _next(self) -> int | None:
        """The stream whose oldest generation goes next for size; None when nothing may."""
        if sum(share.live for share in self._shares.values()) > 1:
            over = [
                s
                for s, share in self._shares.items()
                if 2 * share.size_bytes > self._max_bytes and share.first() is not None
            ]
            if over:
                return max(over, key=lambda stream: self._shares[stream].size_bytes)
        return self._oldest(newest_too=False)

    def _oldest(self, *, newest_too: bool) -> int | None:
        began = [
            (first.begin_ns, s)
            for s, share in self._shares.items()
            if (first := share.first(newest_too=newest_too)) is not None
        ]
        return min(began)[1] if began else None

    def _pop(self, stream: int, past_cap: bool) -> Evicted:
        share = self._shares[stream]
        kept, share.kept = share.kept[0], share.kept[1:]
        self._least_bytes = None
        share.size_bytes -= kept.size_bytes
        self.size_bytes -= kept.size_bytes
        return Evicted(stream, kept, past_cap)
