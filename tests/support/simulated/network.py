"""Connections as ZeroMQ makes them: in order within one pipe, bounded, refused where nobody is connected or the high-water mark is reached. A connection that is
cut loses what is under way; what had arrived at the other side can still be read there, beside what comes by the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from support.simulated.world import MS, US, World

DATA_FRAMES = 16
"""The high-water marks of both sides."""
MESSAGES = 1000
RECONNECT_NS = 50 * MS
RECONNECT_MAX_NS = 2000 * MS


@dataclass(slots=True)
class Wire:
    """Between two hosts."""

    world: World
    least_ns: int = 30 * US
    most_ns: int = 2 * MS
    drops: float = 0.0
    """How likely a message of the link or control is refused by a full pipe, and so lost."""
    broken_until_ns: int = 0

    def delay_ns(self) -> int:
        return self.world.between(self.least_ns, self.most_ns)

    @property
    def broken(self) -> bool:
        return self.world.now_ns < self.broken_until_ns


class Pipe:
    """One direction of one connection."""

    __slots__ = ("_hwm", "_last_ns", "_on_room", "_queue", "_wake", "_wire", "closed", "refused")

    def __init__(self, wire: Wire, hwm: int, wake: Callable[[], object], on_room: Callable[[], object]) -> None:
        self._wire, self._hwm, self._wake, self._on_room = wire, hwm, wake, on_room
        self._queue: deque[tuple[int, bytes]] = deque()
        self._last_ns = 0
        self.closed = False
        self.refused = False

    def send(self, data: bytes) -> bool:
        if self.closed or len(self._queue) >= self._hwm:
            self.refused = True
            return False
        world = self._wire.world
        self._last_ns = max(self._last_ns, world.now_ns + self._wire.delay_ns())
        self._queue.append((self._last_ns, data))
        world.at(self._last_ns, self._wake)
        return True

    def receive(self) -> bytes | None:
        if not self.readable:
            return None
        _, data = self._queue.popleft()
        if self.refused:
            self.refused = False
            self._wire.world.after(10 * US, self._on_room)
        return data

    @property
    def readable(self) -> bool:
        return bool(self._queue) and self._queue[0][0] <= self._wire.world.now_ns

    @property
    def under_way(self) -> int:
        return len(self._queue)

    def cut(self, *, reader_dies: bool = False) -> int:
        """How many are lost."""
        self.closed = True
        now_ns = self._wire.world.now_ns
        arrived = [] if reader_dies else [item for item in self._queue if item[0] <= now_ns]
        lost = len(self._queue) - len(arrived)
        self._queue = deque(arrived)
        return lost


class Server(Protocol):
    up: bool

    def accept(self, connection: Connection) -> None: ...
    def wake(self) -> None: ...


class Connection:
    """Of a client socket: it connects again by itself until it is closed. ``up`` is read by the server, ``down`` by the client."""

    def __init__(self, kind: str, peer: bytes, wire: Wire, server: Server, wake: Callable[[], object]) -> None:
        self.kind, self.peer = kind, peer
        self._wire, self._server, self._wake = wire, server, wake
        self._closed = False
        self._wait_ns = RECONNECT_NS
        self.up: Pipe | None = None
        self.down: Pipe | None = None
        wire.world.after(wire.delay_ns(), self._connect)

    def send(self, data: bytes) -> bool:
        if self.up is None or (self.kind != "data" and self._wire.world.chance(self._wire.drops)):
            return False
        return self.up.send(data)

    def answer(self, data: bytes) -> bool | None:
        """From the server: None: the client is gone."""
        if self.down is None:
            return None
        return not self._wire.world.chance(self._wire.drops) and self.down.send(data)

    def receive(self) -> bytes | None:
        return self.down.receive() if self.down is not None else None

    def _connect(self) -> None:
        if self._closed or self.up is not None:
            return
        world = self._wire.world
        if not self._server.up or self._wire.broken:
            world.after(self._wait_ns + self._wire.delay_ns(), self._connect)
            self._wait_ns = min(2 * self._wait_ns, RECONNECT_MAX_NS)
            return
        self._wait_ns = RECONNECT_NS
        frames = DATA_FRAMES if self.kind == "data" else MESSAGES
        self.up = Pipe(self._wire, frames, self._server.wake, self._wake)
        self.down = Pipe(self._wire, MESSAGES, self._wake, self._server.wake)
        self._server.accept(self)
        self._wake()

    def cut(self, *, server_dies: bool = False) -> int:
        """How many messages are lost. It connects again."""
        if self.up is None or self.down is None:
            return 0
        lost = self.up.cut(reader_dies=server_dies) + self.down.cut(reader_dies=True)
        self.up = self.down = None
        self._wire.world.after(RECONNECT_NS + self._wire.delay_ns(), self._connect)
        return lost

    def close(self) -> int:
        self._closed = True
        return self.cut()
