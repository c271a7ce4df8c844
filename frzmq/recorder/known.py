"""The tracers that the recorder knows, whatever their state: by number, by their uuids, and by the peers that speak for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from frzmq.recorder.events import State
from frzmq.recorder.tracers import Tracer


@dataclass(slots=True)
class Known:
    by_number: dict[int, Tracer] = field(default_factory=dict)
    """Also an earlier incarnation of one, while something of it is kept."""
    by_uuid: dict[bytes, Tracer] = field(default_factory=dict)
    """The latest incarnation of each."""
    by_peer: dict[bytes, Tracer] = field(default_factory=dict)
    _next_number: int = 1

    def next_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    def add(self, tracer: Tracer) -> None:
        self.by_number[tracer.number] = tracer
        self.by_uuid[tracer.hello.uuid] = tracer
        self.by_peer[tracer.peer] = tracer

    def move(self, tracer: Tracer, peer: bytes) -> None:
        """It speaks by this peer from now on."""
        if self.by_peer.get(tracer.peer) is tracer:
            del self.by_peer[tracer.peer]
        tracer.peer = peer
        self.by_peer[peer] = tracer

    def remove(self, tracer: Tracer) -> None:
        del self.by_number[tracer.number]
        if self.by_uuid.get(tracer.hello.uuid) is tracer:
            del self.by_uuid[tracer.hello.uuid]
        if self.by_peer.get(tracer.peer) is tracer:
            del self.by_peer[tracer.peer]

    def live(self) -> list[Tracer]:
        return [t for t in self.by_number.values() if t.state is State.LIVE]

    def silent(self) -> list[Tracer]:
        """Not heard of for long; what is open of them may go on."""
        return [t for t in self.by_number.values() if t.state is State.SILENT]

    def dying(self) -> list[Tracer]:
        return [t for t in self.by_number.values() if t.dying]
