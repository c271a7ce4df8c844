"""How a tracer comes: its hello, whether it is taken, and the welcome. A part of the recorder's machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frzmq.config import RecorderConfig
from frzmq.errors import WireError
from frzmq.recorder.events import Seal, SendLink, State, WatchTracer
from frzmq.recorder.stream import NEVER, Stream
from frzmq.recorder.tracers import Tracer
from frzmq.wire.messages import MAX_GENERATION, Hello, Reject, Stop, Welcome
from frzmq.wire.version import choose_version

if TYPE_CHECKING:
    from frzmq.recorder.machine import RecorderMachine

MAX_TRACERS = 4096
UNPROVEN_NS = 1_000_000_000
"""Among too many tracers one that has sent nothing since it joined is kept for so long."""


@dataclass(slots=True)
class Joining:
    machine: RecorderMachine
    config: RecorderConfig
    nonce_source: Callable[[], int]
    kernel: str
    """That this runs on, as `Hello.machine` names it."""

    def hello(self, peer: bytes, hello: Hello, key: str, now_ns: int) -> None:
        machine = self.machine
        known = machine.known.by_uuid.get(hello.uuid)
        if known is None and machine.tracers >= MAX_TRACERS:
            self._make_room(now_ns)
        reason = self._why_not(known, peer, hello, key)
        if reason:
            machine.telling.rejected_frames += 1
            machine.emit(SendLink(peer, Reject(reason)))
        elif known is not None and known.hello.incarnation == hello.incarnation:
            machine.known.move(known, peer)
            if known.state is State.STOPPED:
                machine.ends.send_stop(known, now_ns)
            else:
                self._rejoin(known, hello, now_ns)
        elif known is not None and known.state is State.STOPPED and now_ns < known.rejoin_at_ns:
            machine.emit(SendLink(peer, Stop(known.error, known.rejoin_at_ns - now_ns)))
        else:
            if known is not None:
                # its peer may be the same: what is acknowledged from now on is of the new one
                known.unacknowledged_bytes = 0
                machine.put(known, known.stream.close(Seal.REPLACED), now_ns)
                if known.state in (State.LIVE, State.SILENT):
                    machine.ends.leave(known, State.GONE)
            self._join(peer, hello, key, known.stream.ends() if known is not None else {}, now_ns)

    def _make_room(self, now_ns: int) -> None:
        """Whoever joined sends its opening at once: who has not is none, and one of many that only take the place of others."""
        for tracer in list(self.machine.known.by_number.values()):
            if not tracer.has_nonce and now_ns - tracer.joined_ns >= UNPROVEN_NS:
                self.machine.ends.leave(tracer, State.GONE)
        self.machine.ends.forget(now_ns)

    def _why_not(self, known: Tracer | None, peer: bytes, hello: Hello, key: str) -> str:
        try:
            choose_version(hello.wire_oldest, hello.wire_newest)
        except WireError as error:
            return str(error)
        if hello.generation >= MAX_GENERATION:
            return f"hello: wanted a generation below {MAX_GENERATION}, got {hello.generation}"
        if known is not None and known.key != key:
            return f"hello: wanted the key that tracer {hello.uuid.hex()[:8]} came with, got {key!r}"
        if known is not None and peer != known.peer and not known.is_proven_by(hello):
            return f"hello: wanted the nonce of tracer {hello.uuid.hex()[:8]}, which joined on another connection"
        if known is not None and hello.incarnation < known.hello.incarnation:
            return f"hello: wanted incarnation {known.hello.incarnation} or later of tracer {hello.uuid.hex()[:8]}, got {hello.incarnation}"
        if known is None and self.machine.tracers >= MAX_TRACERS:
            return f"hello: wanted at most {MAX_TRACERS} tracers, got one more"
        return ""

    def _join(self, peer: bytes, hello: Hello, key: str, ends: Mapping[int, int], now_ns: int) -> None:
        stream = Stream(
            asked=hello.generation + 1,
            young=hello.generation == 0,
            max_strings_bytes=max(1 << 20, self.config.max_bytes // 8),
            ends=ends,
        )
        tracer = Tracer(
            number=self.machine.known.next_number(),
            hello=hello,
            peer=peer,
            nonce=self.nonce_source(),
            stream=stream,
            joined_ns=now_ns,
            heard_ns=now_ns,
            advanced_ns=now_ns,
            hello_offset_ns=self._hello_offset_ns(hello, now_ns),
            key=key,
        )
        self.machine.known.add(tracer)
        self.machine.ring.join(tracer.number)
        if not self.machine.on:
            stream.discard_before(NEVER)
        self._watch(tracer)
        self._welcome(tracer)

    def _rejoin(self, tracer: Tracer, hello: Hello, now_ns: int) -> None:
        tracer.has_nonce |= hello.nonce == tracer.nonce
        tracer.hello = hello
        tracer.hello_offset_ns = self._hello_offset_ns(hello, now_ns)
        tracer.state = State.LIVE
        tracer.error = tracer.ended_how = ""
        tracer.says_end = False
        tracer.died_ns = tracer.recover_until_ns = None
        tracer.heard_ns = tracer.advanced_ns = now_ns
        tracer.stream.rejoin(hello.generation)
        self.machine.ring.set_live(tracer.number, True)
        self._watch(tracer)
        self._welcome(tracer)

    def _watch(self, tracer: Tracer) -> None:
        if tracer.hello.lock and not tracer.watched:
            tracer.watched = True
            self.machine.emit(WatchTracer(tracer.hello.uuid))

    def _welcome(self, tracer: Tracer) -> None:
        tracer.shared_advance_ns = None
        version = choose_version(tracer.hello.wire_oldest, tracer.hello.wire_newest)
        welcome = Welcome(
            self.machine.boot_id,
            tracer.nonce,
            tracer.stream.asked,
            version,
            self.config.heartbeat_ns,
            self.config.silence_ns,
            self.config.triggers,
        )
        self.machine.emit(SendLink(tracer.peer, welcome))

    def _hello_offset_ns(self, hello: Hello, now_ns: int) -> int:
        same = bool(hello.machine) and hello.machine == self.kernel
        return 0 if same or not hello.monotonic_ns else now_ns - hello.monotonic_ns
