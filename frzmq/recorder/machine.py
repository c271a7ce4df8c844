"""The recorder as a state machine: inputs of `frzmq.recorder.events` in, instructions out. It does no IO and reads no clock.

::

            hello                 error of its own
    (none) ───────> live ──────────────────────────> stopped ── hello of a later incarnation, after the back-off ──> (a new stream)
                    │ ^ ^
            silence │ │ │ hello again
                    v │ └──────────────── gone (goodbye) / dead (lock free)
                   silent ── lock free ──> dead

A stream that is not live is forgotten once the ring holds nothing of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import assert_never

from frzmq.config import RecorderConfig
from frzmq.errors import ConfigError, WireError
from frzmq.recorder.backoff import BackOff
from frzmq.recorder.control import RECOVERY_NS, Control
from frzmq.recorder.events import (
    Answer,
    ForgetTracer,
    FrameReceived,
    Input,
    Instruction,
    KeyRevoked,
    LinesFound,
    LinkGarbage,
    LinkReceived,
    ReadTail,
    RequestGarbage,
    RequestReceived,
    RingView,
    Seal,
    SealedGeneration,
    SendLink,
    SnapshotFinished,
    State,
    TailRead,
    Tick,
    TracerDied,
    Unwatched,
    WatchTracer,
)
from frzmq.recorder.ring import Evicted, Ring
from frzmq.recorder.stream import Stream
from frzmq.recorder.tail import Tail
from frzmq.recorder.tracers import MAX_ERROR_CHARS, ROW_BYTES, Tracer, status_bytes, whole_horizon_ns
from frzmq.triggers import parse_trigger
from frzmq.wire.batch import HEADER_SIZE, BatchType, Header, decode_header, split_headers
from frzmq.wire.messages import (
    MAX_GENERATION,
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
    Stop,
    TracerHeartbeat,
    TracerStatus,
    Welcome,
)
from frzmq.wire.version import choose_version

MAX_TRACERS = 4096
UNPROVEN_NS = 1_000_000_000
"""Among too many tracers one that has sent nothing since it joined is kept for so long."""
MAX_ERRORS = 64
ACK_EVERY_BYTES = 256 << 10
ACK_DELAY_NS = 50_000_000
ADVANCE_GAP_NS = 100_000_000
"""Between two early advances of a stream."""
DEATH_GRACE_NS = 100_000_000
"""For so long frames of a dead tracer, which were under way, are taken."""
MIN_GROWTH_BYTES = 64 << 10
MAX_STATUS_BYTES = 900 << 10
NEVER = 1 << 64


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
        self._boot_id = boot_id
        self._nonce_source = nonce_source
        self._pid, self._version, self._machine = pid, version, machine
        self._on = True
        self._out: list[Instruction] = []
        self._ring = Ring(config.min_age_ns, config.max_bytes, config.max_bytes + 2 * config.max_generation_bytes)
        self._tracers: dict[int, Tracer] = {}
        self._current: dict[bytes, Tracer] = {}
        self._peers: dict[bytes, Tracer] = {}
        self._back_off = BackOff()
        self._next_number = 1
        self._control = Control(self, config)
        self._started_ns = now_ns
        self._next_advance_ns = now_ns + config.advance_every_ns
        self._next_heartbeat_ns = now_ns + config.heartbeat_ns
        self._wake_ns: int | None = None
        self._changed: set[int] = set()
        """Tracers whose streams the frame in hand changed."""
        self._errors: list[str] = []
        self._first_error = ""
        self._rejected_frames = 0
        self._records = 0
        self._bytes = 0
        self._rate_marks = [(now_ns, 0, 0), (now_ns, 0, 0)]

    # --- the door

    def handle(self, event: Input, now_ns: int) -> list[Instruction]:
        changed: set[int] | None = None
        match event:
            case FrameReceived():
                self._changed = changed = set()
                self._frame(event.data, now_ns)
            case LinkReceived():
                self._link(event, now_ns)
            case LinkGarbage():
                self._link_garbage(event)
            case KeyRevoked():
                self._key_revoked(event.key, now_ns)
            case TracerDied():
                self._died(event, now_ns)
            case Unwatched():
                self._unwatched(event)
            case RequestReceived():
                self._control.request(event.peer, event.message, now_ns)
            case RequestGarbage():
                self._control.garbage(event.peer, event.reason)
            case SnapshotFinished():
                self._control.snapshot_finished(event, now_ns)
            case TailRead():
                self._tail_read(event, now_ns)
            case LinesFound():
                self._control.lines_found(event)
            case Tick():
                self._tick(now_ns)
            case _:
                assert_never(event)
        self._control.progress(now_ns, changed)
        out, self._out = self._out, []
        return out

    @property
    def busy(self) -> bool:
        """A snapshot is being made, a trigger asked for one, or what a dead tracer left is waited for."""
        return self._control.busy or any(t.dying for t in self._tracers.values())

    def hurry(self, now_ns: int) -> None:
        """It is to end soon: what triggers asked for is made at the next `Tick`, without the rest of their windows."""
        self._control.incidents.hurry(now_ns)

    def deadline_ns(self) -> int | None:
        """When it wants a `Tick`; None: not before something else happens."""
        deadlines = [d for d in (self._wake_ns, self._control.deadline_ns()) if d is not None]
        if self._tracers:
            deadlines += [self._next_advance_ns, self._next_heartbeat_ns]
        return min(deadlines, default=None)

    def status(self, now_ns: int, *, writers: bool = False) -> Status:
        """``writers``: with the ledgers of the tracers' writers, as far as a reply can hold them."""
        tracers: list[TracerStatus] = []
        told: list[Tracer] = []
        errors = [error[:256] for error in self._errors]
        room_bytes = MAX_STATUS_BYTES - 1024 * len(errors)
        for tracer in sorted(self._tracers.values(), key=lambda t: t.state is not State.LIVE):
            status = tracer.status(self._ring.kept(tracer.number), self._ring.stream_bytes(tracer.number))
            room_bytes -= status_bytes(status)
            if room_bytes < 0:
                errors = [
                    f"status: {len(self._tracers) - len(tracers)} more tracers than a reply can hold",
                    *errors[1 - MAX_ERRORS :],
                ]
                break
            tracers.append(status)
            told.append(tracer)
        if writers and room_bytes > 0:
            most = room_bytes // max(len(told), 1) // ROW_BYTES
            tracers = [tracer.with_writers(status, most) for tracer, status in zip(told, tracers, strict=True)]
        since_ns, records, size_bytes = self._rate_marks[0]
        passed_ns = max(now_ns - since_ns, 10**9)
        return Status(
            state="on" if self._on else "off",
            version=self._version,
            pid=self._pid,
            boot_id=self._boot_id,
            now_ns=now_ns,
            started_ns=self._started_ns,
            min_age_ns=self._config.min_age_ns,
            max_bytes=self._config.max_bytes,
            held_bytes=self._ring.size_bytes,
            horizon_ns=self._horizon_ns(),
            records_per_s=(self._records - records) * 10**9 // passed_ns,
            bytes_per_s=(self._bytes - size_bytes) * 10**9 // passed_ns,
            rejected_frames=self._rejected_frames,
            snapshots=self._control.snapshots,
            flushes=self._control.flushes,
            reports=self._control.incidents.reports,
            suppressed=self._control.incidents.suppressed,
            stored=self._control.stored,
            stored_last=self._control.stored_last,
            tracers=tuple(tracers),
            errors=tuple(errors),
        )

    # --- data socket

    def _frame(self, data: bytes, now_ns: int) -> None:
        self._bytes += len(data)
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
        self._rejected_frames += rejected
        self._evict(self._ring.evict_by_size())
        self._shrink(now_ns)
        for tracer in touched.values():
            if tracer.ack_now or tracer.unacknowledged_bytes >= ACK_EVERY_BYTES:
                self._acknowledge(tracer)
            elif tracer.unacknowledged_bytes:
                self._wake_at(now_ns + ACK_DELAY_NS)

    def _proven(self, header: Header) -> Tracer | None:
        tracer = self._current.get(header.uuid)
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
            self._rejected_frames += 1
        elif tracer.state in (State.LIVE, State.SILENT):
            self._stop(tracer, str(error), now_ns)

    def _batch(self, tracer: Tracer, header: Header, data: bytes, now_ns: int) -> None:
        stream = tracer.stream
        records = stream.records
        self._changed.add(tracer.number)
        self._heard(tracer, now_ns)
        if tracer.state is State.LIVE:
            try:
                sealed = stream.take(header, data)
            except WireError as error:
                self._stop(tracer, str(error), now_ns)
                return
            self._put(tracer, sealed, now_ns)
            if stream.ended:
                self._leave(tracer, State.GONE)
        else:
            stream.take_late(header, data)
        self._records += stream.records - records
        self._ring.charge(tracer.number, stream.charged_bytes)
        if stream.strings_refused:
            self.note_error(f"{tracer.name}: its string table grew past the bound; later names are lost")
        if header.type in (BatchType.FLUSH, BatchType.END):
            tracer.ack_now = True
        self._limit_growth(tracer, now_ns)

    def _acknowledge(self, tracer: Tracer) -> None:
        tracer.unacknowledged_bytes = 0
        tracer.ack_now = False
        self._out.append(SendLink(tracer.peer, Ack(self._boot_id, *tracer.stream.stored())))

    # --- link

    def _link(self, event: LinkReceived, now_ns: int) -> None:
        tracer = self._peers.get(event.peer)
        if tracer is not None and tracer.key != event.key:
            tracer = None
        match event.message:
            case Hello():
                self._hello(event.peer, event.message, event.key, now_ns)
            case Ping():
                self._out.append(SendLink(event.peer, Pong(event.message.sent_ns, now_ns)))
                if tracer is not None:
                    self._heard(tracer, now_ns)
            case TracerHeartbeat():
                if tracer is None:
                    # it says hello when it sees another boot_id or generation 0
                    self._out.append(SendLink(event.peer, RecorderHeartbeat(self._boot_id, 0)))
                elif tracer.state is State.STOPPED:
                    self._send_stop(tracer, now_ns)
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
                    self._control.lines_wanted(event.peer, event.message, now_ns)
            case _:
                assert_never(event.message)

    def _report(self, tracer: Tracer, report: Report, now_ns: int) -> None:
        try:
            trigger = parse_trigger(report.trigger)
        except ConfigError as error:
            self.note_error(f"{tracer.name}: {error}")
            return
        self._control.incidents.report(tracer.peer, report, trigger, tracer.name, tracer.hello.service, now_ns)

    def _link_garbage(self, event: LinkGarbage) -> None:
        self._rejected_frames += 1
        if event.peer not in self._peers:
            self._out.append(SendLink(event.peer, Reject(event.reason[:MAX_ERROR_CHARS])))

    def _key_revoked(self, key: str, now_ns: int) -> None:
        for tracer in self._current.values():
            if tracer.key == key and tracer.state in (State.LIVE, State.SILENT):
                self._stop(tracer, f"its key {key!r} was revoked", now_ns)

    def _hello(self, peer: bytes, hello: Hello, key: str, now_ns: int) -> None:
        known = self._current.get(hello.uuid)
        if known is None and len(self._tracers) >= MAX_TRACERS:
            self._make_room(now_ns)
        reason = self._why_not(known, peer, hello, key)
        if reason:
            self._rejected_frames += 1
            self._out.append(SendLink(peer, Reject(reason)))
        elif known is not None and known.hello.incarnation == hello.incarnation:
            self._know_peer(known, peer)
            if known.state is State.STOPPED:
                self._send_stop(known, now_ns)
            else:
                self._rejoin(known, hello, now_ns)
        elif known is not None and known.state is State.STOPPED and now_ns < known.rejoin_at_ns:
            self._out.append(SendLink(peer, Stop(known.error, known.rejoin_at_ns - now_ns)))
        else:
            if known is not None:
                # its peer may be the same: what is acknowledged from now on is of the new one
                known.unacknowledged_bytes = 0
                self._put(known, known.stream.close(Seal.REPLACED), now_ns)
                if known.state in (State.LIVE, State.SILENT):
                    self._leave(known, State.GONE)
            self._join(peer, hello, key, known.stream.ends() if known is not None else {}, now_ns)

    def _make_room(self, now_ns: int) -> None:
        """Whoever joined sends its opening at once: who has not is none, and one of many that only take the place of others."""
        for tracer in list(self._tracers.values()):
            if not tracer.has_nonce and now_ns - tracer.joined_ns >= UNPROVEN_NS:
                self._leave(tracer, State.GONE)
        self._forget(now_ns)

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
        if known is None and len(self._tracers) >= MAX_TRACERS:
            return f"hello: wanted at most {MAX_TRACERS} tracers, got one more"
        return ""

    def _join(self, peer: bytes, hello: Hello, key: str, ends: Mapping[int, int], now_ns: int) -> None:
        stream = Stream(
            asked=hello.generation + 1,
            young=hello.generation == 0,
            max_strings_bytes=max(1 << 20, self._config.max_bytes // 8),
            ends=ends,
        )
        tracer = Tracer(
            number=self._next_number,
            hello=hello,
            peer=peer,
            nonce=self._nonce_source(),
            stream=stream,
            joined_ns=now_ns,
            heard_ns=now_ns,
            advanced_ns=now_ns,
            hello_offset_ns=self._hello_offset_ns(hello, now_ns),
            key=key,
        )
        self._next_number += 1
        self._tracers[tracer.number] = tracer
        self._current[hello.uuid] = tracer
        self._ring.join(tracer.number)
        if not self._on:
            stream.discard_before(NEVER)
        self._know_peer(tracer, peer)
        self._watch(tracer)
        self._welcome(tracer)

    def _rejoin(self, tracer: Tracer, hello: Hello, now_ns: int) -> None:
        tracer.has_nonce |= hello.nonce == tracer.nonce
        tracer.hello = hello
        tracer.hello_offset_ns = self._hello_offset_ns(hello, now_ns)
        tracer.state = State.LIVE
        tracer.error = tracer.ended_how = ""
        tracer.died_ns = tracer.recover_until_ns = None
        tracer.heard_ns = tracer.advanced_ns = now_ns
        tracer.stream.rejoin(hello.generation)
        self._ring.set_live(tracer.number, True)
        self._watch(tracer)
        self._welcome(tracer)

    def _welcome(self, tracer: Tracer) -> None:
        tracer.shared_advance_ns = None
        version = choose_version(tracer.hello.wire_oldest, tracer.hello.wire_newest)
        welcome = Welcome(
            self._boot_id,
            tracer.nonce,
            tracer.stream.asked,
            version,
            self._config.heartbeat_ns,
            self._config.silence_ns,
            self._config.triggers,
        )
        self._out.append(SendLink(tracer.peer, welcome))

    def _hello_offset_ns(self, hello: Hello, now_ns: int) -> int:
        same = bool(hello.machine) and hello.machine == self._machine
        return 0 if same or not hello.monotonic_ns else now_ns - hello.monotonic_ns

    def _know_peer(self, tracer: Tracer, peer: bytes) -> None:
        if self._peers.get(tracer.peer) is tracer:
            del self._peers[tracer.peer]
        tracer.peer = peer
        self._peers[peer] = tracer

    def _watch(self, tracer: Tracer) -> None:
        if tracer.hello.lock and not tracer.watched:
            tracer.watched = True
            self._out.append(WatchTracer(tracer.hello.uuid))

    def _heard(self, tracer: Tracer, now_ns: int) -> None:
        tracer.heard_ns = now_ns
        if tracer.state is State.SILENT and tracer.died_ns is None:
            tracer.state = State.LIVE
            self._ring.set_live(tracer.number, True)
            self._advance(tracer, now_ns)

    # --- how a tracer ends

    def _died(self, event: TracerDied, now_ns: int) -> None:
        tracer = self._current.get(event.uuid)
        if tracer is not None and tracer.died_ns is None and tracer.state in (State.LIVE, State.SILENT):
            tracer.died_ns = now_ns
            tracer.ended_how = event.how
            self._wake_at(now_ns + DEATH_GRACE_NS)

    def _unwatched(self, event: Unwatched) -> None:
        tracer = self._current.get(event.uuid)
        if tracer is not None:
            tracer.watched = False
            tracer.hello = dataclasses.replace(tracer.hello, lock=False)
            self._ring.set_live(tracer.number, tracer.stands)

    def _tail_read(self, event: TailRead, now_ns: int) -> None:
        tracer = self._current.get(event.uuid)
        if tracer is None or tracer.state not in (State.LIVE, State.SILENT):
            return
        if tracer.recover_until_ns is None:
            self._control.tail_read(tracer.number, event)
            return
        tracer.recover_until_ns = now_ns
        problem = event.problem
        if event.tail is not None:
            tracer.stream.recover(event.tail, tracer.hello, tracer.nonce)
            problem = "; ".join(event.tail.problems)
        if problem:
            self.note_error(f"{tracer.name}: its last moments: {problem}")
        self._wake_at(now_ns)
        self._tick(now_ns)

    def _bury(self, tracer: Tracer, now_ns: int) -> None:
        tracer.error = f"it died: {tracer.ended_how}"
        self._leave(tracer, State.DEAD)
        if self._on and self._config.on_death:
            self._control.incidents.death(tracer.name, tracer.ended_how, tracer.hello.service, now_ns)

    def _leave(self, tracer: Tracer, state: State) -> None:
        """Nothing of it is open any more."""
        self._changed.add(tracer.number)
        tracer.state = state
        self._ring.charge(tracer.number, tracer.stream.charged_bytes)
        self._ring.set_live(tracer.number, tracer.stands)
        if tracer.watched and state is not State.SILENT:
            tracer.watched = False
            self._out.append(ForgetTracer(tracer.hello.uuid))

    def _stop(self, tracer: Tracer, error: str, now_ns: int) -> None:
        """It sent what it must not: it alone is stopped."""
        tracer.error = error[:MAX_ERROR_CHARS]
        tracer.unacknowledged_bytes = 0
        tracer.ack_now = False
        if self._config.mode != "embedded":
            tracer.rejoin_at_ns = now_ns + self._back_off.stopped(tracer.hello.uuid, now_ns)
        self._put(tracer, tracer.stream.close(Seal.STOP), now_ns)
        self._leave(tracer, State.STOPPED)
        self.note_error(f"{tracer.name}: {error}")
        self._send_stop(tracer, now_ns)

    def _send_stop(self, tracer: Tracer, now_ns: int) -> None:
        rejoin_ns = 0 if self._config.mode == "embedded" else max(tracer.rejoin_at_ns - now_ns, 1)
        self._out.append(SendLink(tracer.peer, Stop(tracer.error, rejoin_ns)))

    # --- time

    def _tick(self, now_ns: int) -> None:
        self._wake_ns = None
        live = self.live()
        for tracer in live:
            if tracer.died_ns is None and now_ns - tracer.heard_ns >= self._config.silence_ns:
                # what is open stays so: one that was suspended goes on where it was
                self._leave(tracer, State.SILENT)
        for tracer in self.silent():
            if self._is_given_up(tracer, now_ns):
                self._put(tracer, tracer.stream.close(Seal.SILENCE), now_ns)
                self._leave(tracer, State.SILENT)
        for tracer in [t for t in self._tracers.values() if t.dying]:
            assert tracer.died_ns is not None
            if now_ns - tracer.died_ns < DEATH_GRACE_NS:
                self._wake_at(tracer.died_ns + DEATH_GRACE_NS)
                continue
            if tracer.hello.shared and tracer.recover_until_ns is None:
                tracer.recover_until_ns = now_ns + RECOVERY_NS
                self._out.append(ReadTail(tracer.hello.uuid, tracer.stream.stored_records()))
            if tracer.recover_until_ns is not None and now_ns < tracer.recover_until_ns:
                self._wake_at(tracer.recover_until_ns)
                continue
            self._put(tracer, tracer.stream.close(Seal.DEATH), now_ns)
            self._bury(tracer, now_ns)
        if now_ns >= self._next_advance_ns:
            self._next_advance_ns = now_ns + self._config.advance_every_ns
            for tracer in self.live():
                self.advance(tracer, now_ns)
            self._rate_marks = [self._rate_marks[1], (now_ns, self._records, self._bytes)]
        if now_ns >= self._next_heartbeat_ns:
            self._next_heartbeat_ns = now_ns + self._config.heartbeat_ns
            self._out += [SendLink(t.peer, RecorderHeartbeat(self._boot_id, t.stream.asked)) for t in self.live()]
        for tracer in self._tracers.values():
            self._limit_growth(tracer, now_ns)
            if tracer.unacknowledged_bytes:
                self._acknowledge(tracer)
        self.retain(now_ns)
        self._shrink(now_ns)
        self._forget(now_ns)

    def _forget(self, now_ns: int) -> None:
        for tracer in list(self._tracers.values()):
            number = tracer.number
            if (
                tracer.stands
                or self._ring.kept(number)
                or (tracer.state is State.STOPPED and now_ns < tracer.rejoin_at_ns)
            ):
                continue
            if tracer.state is State.SILENT and not self._is_given_up(tracer, now_ns):
                continue
            if tracer.watched:
                self._out.append(ForgetTracer(tracer.hello.uuid))
            self._ring.forget(number)
            del self._tracers[number]
            if self._current.get(tracer.hello.uuid) is tracer:
                del self._current[tracer.hello.uuid]
            if self._peers.get(tracer.peer) is tracer:
                del self._peers[tracer.peer]

    def _is_given_up(self, tracer: Tracer, now_ns: int) -> bool:
        """Nobody can tell whether it lives, and what it had recorded when it fell silent is too old by now."""
        waited_ns = now_ns - tracer.heard_ns
        return not tracer.stands and not tracer.dying and waited_ns >= self._config.silence_ns + self._config.min_age_ns

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
            self._wake_at(tracer.advanced_ns + ADVANCE_GAP_NS)

    def _growth_limit_bytes(self) -> int:
        """Of one open generation: of many tracers all the open ones together stay a part of max_bytes."""
        share_bytes = self._config.max_bytes // (4 * max(len(self._current), 1))
        return min(self._config.max_generation_bytes, max(share_bytes, MIN_GROWTH_BYTES))

    def _wake_at(self, at_ns: int) -> None:
        self._wake_ns = at_ns if self._wake_ns is None else min(self._wake_ns, at_ns)

    # --- ring

    def _put(self, tracer: Tracer, sealed: list[SealedGeneration], now_ns: int) -> None:
        for generation in sealed:
            self._ring.put(tracer.number, tracer.kept(generation, now_ns))

    def _evict(self, evicted: list[Evicted]) -> None:
        for gone in evicted:
            tracer = self._tracers[gone.stream]
            tracer.stream.count_evicted(gone.kept.generation)
            if gone.past_cap:
                self.note_error(
                    f"{tracer.name}: even its newest generation was evicted: max_bytes ({self._config.max_bytes}) is too small"
                )

    def _shrink(self, now_ns: int) -> None:
        """Open generations that alone are past the cap are sealed, and go."""
        while self._ring.over_cap:
            tracer = max(self._tracers.values(), key=lambda t: t.stream.open_bytes)
            if not tracer.stream.open_bytes:
                return
            self._changed.add(tracer.number)
            self._put(tracer, tracer.stream.close_oldest(Seal.OVERFLOW), now_ns)
            self._ring.charge(tracer.number, tracer.stream.charged_bytes)
            self._evict(self._ring.evict_by_size())
            self.note_error(
                f"{tracer.name}: an open generation grew past the cap: max_bytes ({self._config.max_bytes}) is too small"
            )

    def _horizon_ns(self) -> int:
        return whole_horizon_ns((tracer, self._ring.kept(tracer.number)) for tracer in self._tracers.values())

    def view(
        self,
        now_ns: int,
        last_ns: int,
        stuck: Mapping[int, Tail | None] = MappingProxyType({}),
        asked: frozenset[int] = frozenset(),
    ) -> RingView:
        """The ring as it is. ``last_ns``: only what reaches into the last so many ns; 0: all. By number ``asked``: tracers that were told to flush, and
        ``stuck``: those that do not answer, with what was read of their buffers."""
        from_ns = now_ns - last_ns if last_ns else 0
        parts = []
        for tracer in self._tracers.values():
            kept = self._ring.kept(tracer.number)
            parts.append((tracer, tuple(k for k in kept if k.end_ns >= from_ns)))
        streams = tuple(
            tracer.view_stuck(kept, stuck[tracer.number], now_ns)
            if tracer.number in stuck
            else tracer.view(
                kept,
                Answer.FLUSHED if tracer.number in asked and tracer.state in (State.LIVE, State.GONE) else Answer.NONE,
            )
            for tracer, kept in parts
        )
        horizon_ns = max(whole_horizon_ns(parts), from_ns if any(s.sealed for s in streams) else 0)
        return RingView(streams, self._config.min_age_ns, self._config.max_bytes, horizon_ns)

    # --- for the control side

    @property
    def on(self) -> bool:
        return self._on

    def live(self) -> list[Tracer]:
        return [t for t in self._tracers.values() if t.state is State.LIVE]

    def silent(self) -> list[Tracer]:
        """Not heard of for long; what is open of them may go on."""
        return [t for t in self._tracers.values() if t.state is State.SILENT]

    @property
    def tracers(self) -> int:
        """That are known, whatever their state."""
        return len(self._tracers)

    def tracer(self, number: int) -> Tracer | None:
        return self._tracers.get(number)

    def retain(self, now_ns: int) -> None:
        """Evicts what is too old, or too much, now."""
        self._evict(self._ring.evict_by_age(now_ns))
        self._evict(self._ring.evict_by_size())

    def emit(self, instruction: Instruction) -> None:
        self._out.append(instruction)

    def note_error(self, text: str) -> None:
        self._first_error = self._first_error or text
        if text not in self._errors:
            self._errors = [*self._errors, text][-MAX_ERRORS:]

    def switch_off(self, now_ns: int) -> str:
        """Forgets all that is recorded, and discards what comes. Returns the first error since it was switched on, or ""."""
        for tracer in self._tracers.values():
            self._put(tracer, tracer.stream.close(Seal.STOP), now_ns)
            self._ring.charge(tracer.number, tracer.stream.charged_bytes)
            tracer.stream.discard_before(NEVER)
        self._evict(self._ring.clear())
        self._on = False
        error, self._first_error = self._first_error, ""
        return error

    def switch_on(self, now_ns: int) -> None:
        """Every stream begins anew, with its next generation."""
        self._on = True
        for tracer in self._tracers.values():
            if tracer.state is State.LIVE:
                self._advance(tracer, now_ns)
            else:
                tracer.stream.advance()
            tracer.stream.discard_before(tracer.stream.asked)
