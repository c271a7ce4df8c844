"""When a stopped tracer may come back."""

from __future__ import annotations

HOUR_NS = 3600 * 10**9
FIRST_REJOIN_NS = 5 * 10**9
REJOINS_PER_HOUR = 3
MAX_REMEMBERED = 4096


class BackOff:
    """Longer each time, and at most REJOINS_PER_HOUR in any hour. Remembers the stops of the last MAX_REMEMBERED tracers."""

    def __init__(self) -> None:
        self._stops: dict[bytes, list[int]] = {}

    def stopped(self, uuid: bytes, now_ns: int) -> int:
        """The tracer was stopped now: how long it has to wait, ns."""
        stops = [at for at in self._stops.pop(uuid, []) if now_ns - at < HOUR_NS][-REJOINS_PER_HOUR:]
        self._stops[uuid] = [*stops, now_ns]
        if len(self._stops) > MAX_REMEMBERED:
            del self._stops[next(iter(self._stops))]
        if len(stops) < REJOINS_PER_HOUR:
            return FIRST_REJOIN_NS << len(stops)
        # after the first of the last three rejoins, which came before the second stop, an hour passes
        return stops[1] + HOUR_NS - now_ns
