"""The recorder as a state machine: inputs of `frzmq.recorder.events` in, instructions out. It does no IO and reads no clock.

::

            hello                 error of its own
    (none) ───────> live ──────────────────────────> stopped ── hello of a later incarnation, after the back-off ──> (a new stream)
                    │ ^ ^
            silence │ │ │ hello again
                    v │ └──────────────── gone (goodbye) / dead (lock free)
                   silent ── lock free ──> dead

A stream that is not live is forgotten once the ring holds nothing of it.

The machine is the door, the data, the time and the ring. Its parts know it: `Joining` and `Ends` are how a tracer comes and goes, `Control` is what people
ask for, `Telling` what is said of it all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from frzmq.config import RecorderConfig
from frzmq.errors import ConfigError, WireError
from frzmq.recorder.control import Control
from frzmq.recorder.ends import Ends
from frzmq.recorder.events import (
    FrameReceived,
    Input,
    Instruction,
    KeyRevoked,
    LinesFound,
    LinkGarbage,
    LinkReceived,
    RequestGarbage,
    RequestReceived,
    Seal,
    SealedGeneration,
    SendLink,
    SnapshotFinished,
    State,
    TailRead,
    Tick,
    TracerDied,
    Unwatched,
)
from frzmq.recorder.joining import Joining
from frzmq.recorder.known import Known
from frzmq.recorder.ring import Evicted, Ring
from frzmq.recorder.stream import NEVER
from frzmq.recorder.telling import Telling
from frzmq.recorder.tracers import MAX_ERROR_CHARS, Tracer
from frzmq.triggers import parse_trigger
from frzmq.wire.batch import HEADER_SIZE, BatchType, Header, decode_header, split_headers
from frzmq.wire.messages import (
    Ack,
    Advance,
    Hello,
    LinesWanted,
    Ping,
    Pong,
    RecorderHeartbeat,
    Reject,
    Report,
    Status,
    TracerHeartbeat,
)

ACK_SOON_BYTES = 128 << 10
"""Of a tracer that sent so much the acknowledgement is due"""
ACK_SOON_NS = 5_000_000
"""so soon, not at once: each costs 50 us here, and as much there. At 50 MB/s 400 KB wait, a tenth of a buffer."""
ACK_DELAY_NS = 50_000_000
"""The same, of less."""
ADVANCE_GAP_NS = 100_000_000
"""Between two early advances of a stream."""
MIN_GROWTH_BYTES = 64 << 10


class RecorderMachine:
    """``handle`` takes one input and returns what is to be done, in order. ``boot_id``: 16 bytes that name this run. ``nonce_source``: unguessable numbers of 64
    bits. ``machine``: names the kernel that this runs on, as `Hello.machine` does."""

    def __init__(
        self,
        config: RecorderConfig,
        boot_id: bytes,
        nonce_source: Callable[[], int],
        now_ns: int,
        *,
        pid: int = 0,
        version: str = "",
        machine: str = "",
    ) -> None:
        self._config = config
        self.boot_id = boot_id
        self._on = True
        self._out: list[Instruction] = []
        self.ring = Ring(config.min_age_ns, config.max_bytes, config.max_bytes + 2 * config.max_generation_bytes)
        self.known = Known()
        self.joining = Joining(self, config, nonce_source, machine)
        self.ends = Ends(self, config)
        self.control = Control(self, config)
        self.telling = Telling(self, config, pid, version, now_ns)
        self._next_advance_ns = now_ns + config.advance_every_ns
        self._next_heartbeat_ns = now_ns + config.heartbeat_ns
        self._wake_ns: int | None = None
        self.changed: set[int] = set()
        """Tracers whose streams the frame in hand changed."""

    # --- the door

    def handle(self, event: Input, now_ns: int) -> list[Instruction]:
        changed: set[int] | None = None
        match event:
            case FrameReceived():
                self.changed = changed = set()
                self._frame(event.data, now_ns)
            case LinkReceived():
                self._link(event, now_ns)
            case LinkGarbage():
                self._link_garbage(event)
            case KeyRevoked():
                self.ends.key_revoked(event.key, now_ns)
            case TracerDied():
                self.ends.died(event, now_ns)
            case Unwatched():
                self.ends.unwatched(event)
            case RequestReceived():
                self.control.request(event.peer, event.message, now_ns)
            case RequestGarbage():
                self.control.garbage(event.peer, event.reason)
            case SnapshotFinished():
                self.control.snapshot_finished(event, now_ns)
            case TailRead():
                if self.ends.tail_read(event, now_ns):
                    self._tick(now_ns)
            case LinesFound():
                self.control.lines_found(event)
            case Tick():
                self._tick(now_ns)
            case _:
                assert_never(event)
        self.control.progress(now_ns, changed)
        out, self._out = self._out, []
        return out

    @property
    def busy(self) -> bool:
        """A snapshot is being made, a trigger asked for one, or what a dead tracer left is waited for."""
        return self.control.busy or bool(self.known.dying())

    def hurry(self, now_ns: int) -> None:
        """It is to end soon: what triggers asked for is made at the next `Tick`, without the rest of their windows."""
        self.control.incidents.hurry(now_ns)

    def deadline_ns(self) -> int | None:
        """When it wants a `Tick`; None: not before something else happens."""
        deadlines = [d for d in (self._wake_ns, self.control.deadline_ns()) if d is not None]
        if self.known.by_number:
            deadlines += [self._next_advance_ns, self._next_heartbeat_ns]
        return min(deadlines, default=None)

    def status(self, now_ns: int, *, writers: bool = False) -> Status:
        """``writers``: with the ledgers of the tracers' writers, as far as a reply can hold them."""
        return self.telling.status(now_ns, writers=writers)

    # --- data socket

    def _frame(self, data: bytes, now_ns: int) -> None:
        self.telling.frame_bytes += len(data)
        try:
            headers = split_headers(data)
        except WireError as error:
            self._malformed(data, error, now_ns)
            return
        offset = 0
        rejected = False
        touched: dict[int, Tracer] = {}
        for header in headers:
            size = HEADER_SIZE + header.body_size
            tracer = self._proven(header)
            if tracer is None:
                rejected = True
            else:
                touched[tracer.number] = tracer
                tracer.unacknowledged_bytes += size
                self._batch(tracer, header, data if size == len(data) else data[offset : offset + size], now_ns)
            offset += size
        self.telling.rejected_frames += rejected
        self._evict(self.ring.evict_by_size())
        self._shrink(now_ns)
        for tracer in touched.values():
            if tracer.ack_now:
                self._acknowledge(tracer)
            elif tracer.unacknowledged_bytes:
                soon = tracer.unacknowledged_bytes >= ACK_SOON_BYTES
                self.wake_at(now_ns + (ACK_SOON_NS if soon else ACK_DELAY_NS))

    def _proven(self, header: Header) -> Tracer | None:
        tracer = self.known.by_uuid.get(header.uuid)
        if tracer is None:
            return None
        if (tracer.hello.incarnation, tracer.nonce) == (header.incarnation, header.nonce):
            tracer.has_nonce = True
            return tracer
        tracer.stream.count_rejected(header)
        return None

    def _malformed(self, data: bytes, error: WireError, now_ns: int) -> None:
        try:
            tracer = self._proven(decode_header(data))
        except WireError:
            tracer = None
        if tracer is None:
            self.telling.rejected_frames += 1
        elif tracer.state in (State.LIVE, State.SILENT):
            self.ends.stop(tracer, str(error), now_ns)

    def _batch(self, tracer: Tracer, header: Header, data: bytes, now_ns: int) -> None:
        stream = tracer.stream
        records = stream.records
        self.changed.add(tracer.number)
        self._heard(tracer, now_ns)
        # silent still: it is dead, and this was under way
        if tracer.state in (State.LIVE, State.SILENT):
            try:
                sealed = stream.take(header, data)
            except WireError as error:
                self.ends.stop(tracer, str(error), now_ns)
                return
            self.put(tracer, sealed, now_ns)
            if stream.ended:
                self.ends.leave(tracer, State.GONE)
        else:
            stream.take_late(header, data)
        self.telling.records += stream.records - records
        self.ring.charge(tracer.number, stream.charged_bytes)
        if stream.strings_refused:
            self.note_error(f"{tracer.name}: its string table grew past the bound; later names are lost")
        if header.type in (BatchType.FLUSH, BatchType.END):
            tracer.ack_now = True
        self._limit_growth(tracer, now_ns)

    def _acknowledge(self, tracer: Tracer) -> None:
        tracer.unacknowledged_bytes = 0
        tracer.ack_now = False
        self._out.append(SendLink(tracer.peer, Ack(self.boot_id, *tracer.stream.stored())))

    # --- link

    def _link(self, event: LinkReceived, now_ns: int) -> None:
        tracer = self.known.by_peer.get(event.peer)
        if tracer is not None and tracer.key != event.key:
            tracer = None
        match event.message:
            case Hello():
                self.joining.hello(event.peer, event.message, event.key, now_ns)
            case Ping():
                self._out.append(SendLink(event.peer, Pong(event.message.sent_ns, now_ns)))
                if tracer is not None:
                    self._heard(tracer, now_ns)
            case TracerHeartbeat():
                if tracer is None:
                    # it says hello when it sees another boot_id or generation 0
                    self._out.append(SendLink(event.peer, RecorderHeartbeat(self.boot_id, 0)))
                elif tracer.state is State.STOPPED:
                    self.ends.send_stop(tracer, now_ns)
                else:
                    self._heard(tracer, now_ns)
                    tracer.heartbeat = event.message
                    tracer.stream.count_dropped(event.message.dropped)
            case Report():
                if tracer is not None and self._on:
                    self._heard(tracer, now_ns)
                    self._report(tracer, event.message, now_ns)
            case LinesWanted():
                if tracer is not None and self._on:
                    self.control.lines_wanted(event.peer, event.message, now_ns)
            case _:
                assert_never(event.message)

    def _report(self, tracer: Tracer, report: Report, now_ns: int) -> None:
        try:
            trigger = parse_trigger(report.trigger)
        except ConfigError as error:
            self.note_error(f"{tracer.name}: {error}")
            return
        self.control.incidents.report(tracer.peer, report, trigger, tracer.name, tracer.hello.service, now_ns)

    def _link_garbage(self, event: LinkGarbage) -> None:
        self.telling.rejected_frames += 1
        if event.peer not in self.known.by_peer:
            self._out.append(SendLink(event.peer, Reject(event.reason[:MAX_ERROR_CHARS])))

    def _heard(self, tracer: Tracer, now_ns: int) -> None:
        tracer.heard_ns = now_ns
        if tracer.state is State.SILENT and tracer.died_ns is None:
            tracer.state = State.LIVE
            self.ring.set_live(tracer.number, True)
            self._advance(tracer, now_ns)

    # --- time

    def _tick(self, now_ns: int) -> None:
        self._wake_ns = None
        self.ends.tick(now_ns)
        if now_ns >= self._next_advance_ns:
            self._next_advance_ns = now_ns + self._config.advance_every_ns
            for tracer in self.live():
                self.advance(tracer, now_ns)
            self.telling.mark_rates(now_ns)
        if now_ns >= self._next_heartbeat_ns:
            self._next_heartbeat_ns = now_ns + self._config.heartbeat_ns
            self._out += [SendLink(t.peer, RecorderHeartbeat(self.boot_id, t.stream.asked)) for t in self.live()]
        for tracer in self.known.by_number.values():
            self._limit_growth(tracer, now_ns)
            if tracer.unacknowledged_bytes:
                self._acknowledge(tracer)
        self.retain(now_ns)
        self._shrink(now_ns)
        self.ends.forget(now_ns)

    def advance(self, tracer: Tracer, now_ns: int) -> None:
        """Unless it is on its way to a new generation, or the recorder is off: it is to open the next."""
        if self._on and not tracer.stream.advancing:
            self._advance(tracer, now_ns)

    def _advance(self, tracer: Tracer, now_ns: int) -> None:
        tracer.advanced_ns = tracer.shared_advance_ns = now_ns
        generation = tracer.stream.advance()
        self._out.append(SendLink(tracer.peer, Advance(generation)))

    def _limit_growth(self, tracer: Tracer, now_ns: int) -> None:
        stream = tracer.stream
        if tracer.state is not State.LIVE or stream.advancing or stream.growth_bytes <= self._growth_limit_bytes():
            return
        if now_ns - tracer.advanced_ns >= ADVANCE_GAP_NS:
            self.advance(tracer, now_ns)
        else:
            self.wake_at(tracer.advanced_ns + ADVANCE_GAP_NS)

    def _growth_limit_bytes(self) -> int:
        """Of one open generation: of many tracers all the open ones together stay a part of max_bytes."""
        share_bytes = self._config.max_bytes // (4 * max(len(self.known.by_uuid), 1))
        return min(self._config.max_generation_bytes, max(share_bytes, MIN_GROWTH_BYTES))

    def wake_at(self, at_ns: int) -> None:
        self._wake_ns = at_ns if self._wake_ns is None else min(self._wake_ns, at_ns)

    # --- ring

    def put(self, tracer: Tracer, sealed: list[SealedGeneration], now_ns: int) -> None:
        for generation in sealed:
            self.ring.put(tracer.number, tracer.kept(generation, now_ns))

    def _evict(self, evicted: list[Evicted]) -> None:
        for gone in evicted:
            tracer = self.known.by_number[gone.stream]
            tracer.stream.count_evicted(gone.kept.generation)
            if gone.past_cap:
                self.note_error(
                    f"{tracer.name}: even its newest generation was evicted: max_bytes ({self._config.max_bytes}) is too small"
                )

    def _shrink(self, now_ns: int) -> None:
        """Open generations that alone are past the cap are sealed, and go."""
        while self.ring.over_cap:
            tracer = max(self.known.by_number.values(), key=lambda t: t.stream.open_bytes)
            if not tracer.stream.open_bytes:
                return
            self.changed.add(tracer.number)
            self.put(tracer, tracer.stream.close_oldest(Seal.OVERFLOW), now_ns)
            self.ring.charge(tracer.number, tracer.stream.charged_bytes)
            self._evict(self.ring.evict_by_size())
            self.note_error(
                f"{tracer.name}: an open generation grew past the cap: max_bytes ({self._config.max_bytes}) is too small"
            )

    # --- for its parts

    @property
    def on(self) -> bool:
        return self._on

    def live(self) -> list[Tracer]:
        return self.known.live()

    def silent(self) -> list[Tracer]:
        """Not heard of for long; what is open of them may go on."""
        return self.known.silent()

    @property
    def tracers(self) -> int:
        """That are known, whatever their state."""
        return len(self.known.by_number)

    def tracer(self, number: int) -> Tracer | None:
        return self.known.by_number.get(number)

    def retain(self, now_ns: int) -> None:
        """Evicts what is too old, or too much, now."""
        self._evict(self.ring.evict_by_age(now_ns))
        self._evict(self.ring.evict_by_size())

    def emit(self, instruction: Instruction) -> None:
        self._out.append(instruction)

    def note_error(self, text: str) -> None:
        self.telling.note_error(text)

    def switch_off(self, now_ns: int) -> str:
        """Forgets all that is recorded, and discards what comes. Returns the first error since it was switched on, or ""."""
        for tracer in self.known.by_number.values():
            self.put(tracer, tracer.stream.close(Seal.STOP), now_ns)
            self.ring.charge(tracer.number, tracer.stream.charged_bytes)
            tracer.stream.discard_before(NEVER)
        self._evict(self.ring.clear())
        self._on = False
        return self.telling.take_first_error()

    def switch_on(self, now_ns: int) -> None:
        """Every stream begins anew, with its next generation."""
        self._on = True
        for tracer in self.known.by_number.values():
            if tracer.state is State.LIVE:
                self._advance(tracer, now_ns)
            else:
                tracer.stream.advance()
            tracer.stream.discard_before(tracer.stream.asked)
