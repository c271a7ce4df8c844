"""The tracer's side of the protocol as a state machine: it has every decision; the agent moves bytes. It does no IO and reads no clock.

::

             sockets made          welcome                  stop
    idle ──────────────> greeting ─────────> recording ─────────> stopped
     ^                    ^    ^              │    │                 │
     │  sockets closed    │    └──────────────┘    │ end, all of it  │ the back-off is over: next incarnation
     └──── (any but closed)    silence, or         v acknowledged    │
                          │    another recorder  closed              │
                          └──────────────────────────────────────────┘

`frzmq.tracer.events` has the events, the instructions, and the duties of the loop around it.

Its `Outbox` keeps what is not acknowledged. To a recorder that has started anew goes the string table, with a new ``tseq``, then all of that, with the
opening of its generation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, assert_never

from frzmq.errors import StateError
from frzmq.tracer.events import (
    Close,
    Collect,
    Collected,
    CompleteFlush,
    CutTo,
    EndAsked,
    Event,
    FlushAsked,
    FrameRefused,
    FrameSent,
    GenerationCut,
    Instruction,
    LinkReceived,
    Parked,
    Question,
    ReadSlices,
    ReadStrings,
    Release,
    ResumeRecording,
    SendFrame,
    SendHeartbeat,
    SendHello,
    SendPing,
    SlicesRead,
    Started,
    State,
    StopRecording,
    Strings,
    StringsRead,
    Ticked,
)
from frzmq.tracer.generations import GenerationBook, bounded_opening
from frzmq.tracer.outbox import ChunkUse, Outbox
from frzmq.tracer.slices import Slice
from frzmq.wire.batch import COALESCE_BYTES, BatchType, Header, encode_end_mark
from frzmq.wire.chunk import LARGE_CHUNK_BYTES
from frzmq.wire.messages import (
    MAX_GENERATION,
    Ack,
    Advance,
    Lines,
    Pong,
    RecorderHeartbeat,
    Reject,
    Reported,
    Stop,
    Welcome,
)
from frzmq.wire.version import OLDEST_WIRE_VERSION, WIRE_VERSION

MS: Final = 1_000_000
SHIP_NS: Final = 50 * MS
"""After something was shipped, until the buffer is looked at again."""
BUSY_BYTES: Final = 512 << 10
"""After so much at once"""
BUSY_SHIP_NS: Final = 5 * MS
"""the next look is due: at 5 million records a second the buffer is full in less than 100 ms."""
IDLE_SHIP_NS: Final = 100 * MS
"""The same, when there was nothing."""
WINDOW_BYTES: Final = 4 << 20
"""Stamped and not acknowledged: beyond it no more is taken from the buffer but by a cut."""
FIRST_HELLO_NS: Final = 20 * MS
MAX_HELLO_NS: Final = 2_000 * MS
ENDING_HELLO_NS: Final = 50 * MS
PING_NS: Final = 5_000 * MS
FIRST_PINGS: Final = 4
"""So many go with the first heartbeats, one each."""
MAX_SAMPLES: Final = 12
"""Clock samples that are looked at: the last minute's."""
MIN_HEARTBEAT_NS: Final = 10 * MS
MIN_SILENCE_NS: Final = 100 * MS
MAX_FLUSHES: Final = 16
"""Flush marks under way; later ones wait, and share the next."""
MAX_REASON_CHARS: Final = 1024

_ANSWERS: Final = {
    SendFrame: (FrameSent, FrameRefused),
    Collect: (Collected,),
    CutTo: (GenerationCut,),
    ReadSlices: (SlicesRead,),
    ReadStrings: (StringsRead,),
}


class TracerMachine:
    """``uuid``: 16 bytes that name the tracer. ``window_bytes``: stamped and not acknowledged; beyond it only a cut takes more from the buffer."""

    def __init__(self, uuid: bytes, *, window_bytes: int = WINDOW_BYTES) -> None:
        self._uuid = uuid
        self._window_bytes = window_bytes
        self._out: list[Instruction] = []
        self._question: Question | None = None
        self.state = State.IDLE
        self.incarnation = 1
        self.generation = 0
        """The last that was opened."""
        self.tseq = 0
        """The last that was given."""
        self.error = ""
        """Why the recorder stopped or refused this tracer, the last time."""
        self.ignored = 0
        """Messages that no honest recorder says."""
        self._outbox = Outbox()
        self._boot_id = b""
        self._nonce = 0
        self._proof = 0
        """The nonce of the last welcome, also when it counts no more."""
        self._fresh = True
        """No generation of this incarnation is open: what was recorded goes into the first."""
        self._wanted = 0
        self._book = GenerationBook()
        self._refused = False
        self._strings_wanted = False
        self._dropped = 0
        self._more = False
        self._burst_bytes = 0
        """Collected without a pause."""
        self._flush_asked: int | None = None
        self._flushes: deque[tuple[int, int]] = deque()
        """``(tseq, token)`` of the marks under way."""
        self._stopped = False
        """`StopRecording` was said last."""
        self._ending = False
        self._said_goodbye = False
        self._heartbeat_ns = self._silence_ns = 0
        self._hello_at_ns = self._hello_wait_ns = 0
        self._heard_at_ns = self._heartbeat_at_ns = self._ping_at_ns = self._ship_at_ns = 0
        self._waits_for: int | None = None
        """For the acknowledgement of this tseq, since the last heartbeat."""
        self._pings = 0
        self._pinged_ns: int | None = None
        self._rejoin_at_ns: int | None = None
        self._samples: deque[tuple[int, int, int]] = deque(maxlen=MAX_SAMPLES)
        """``(rtt_ns, offset_ns, sampled_ns)``"""

    # --- the door

    def handle(self, event: Event, now_ns: int) -> list[Instruction]:
        """Raises StateError when ``event`` does not answer the question that was asked, or answers none."""
        self._check_answer(event)
        match event:
            case Started():
                self._started(now_ns)
            case Parked():
                self._parked()
            case LinkReceived():
                self._link(event, now_ns)
            case Collected():
                self._collected(event, now_ns)
            case GenerationCut():
                self._cut(event, now_ns)
            case SlicesRead():
                self._slices_read(event)
            case StringsRead():
                self._strings_read(event, now_ns)
            case FrameSent():
                self._outbox.frame_sent()
            case FrameRefused():
                self._refused = True
            case FlushAsked():
                self._flush(event.token)
            case EndAsked():
                self._end(now_ns)
            case Ticked():
                self._tick(now_ns)
            case _:
                assert_never(event)
        if self._question is None and self.state is State.RECORDING:
            self._question = self._next_question(now_ns)
            if self._question is not None:
                self._out.append(self._question)
        out, self._out = self._out, []
        return out

    def deadline_ns(self) -> int | None:
        """When it wants a `Ticked`; None: not before something else happens."""
        match self.state:
            case State.GREETING:
                return self._hello_at_ns
            case State.STOPPED:
                return self._rejoin_at_ns
            case State.RECORDING:
                at_ns = min(self._heartbeat_at_ns, self._heard_at_ns + self._silence_ns)
                collects = self._has_room and not self._refused and not self._ending
                return min(at_ns, self._ship_at_ns) if collects else at_ns
            case State.IDLE | State.CLOSED:
                return None
            case _:
                assert_never(self.state)

    @property
    def wants_room(self) -> bool:
        """A frame waits until the data socket takes it."""
        return self._refused and self.state is State.RECORDING

    @property
    def unacknowledged(self) -> int:
        """Batches."""
        return len(self._outbox)

    @property
    def unacknowledged_bytes(self) -> int:
        """As charged to the window."""
        return self._outbox.unacknowledged_bytes

    @property
    def resent(self) -> int:
        """Batches."""
        return self._outbox.resent

    @property
    def lost_records(self) -> int:
        """Overwritten after they were sent, and before they were acknowledged."""
        return self._outbox.lost_records

    @property
    def joined(self) -> bool:
        """A recorder has welcomed this incarnation."""
        return self.generation > 0 and not self._fresh

    def _check_answer(self, event: Event) -> None:
        asked, self._question = self._question, None
        wanted = _ANSWERS[type(asked)] if asked is not None else ()
        answers = isinstance(event, (Collected, GenerationCut, SlicesRead, StringsRead, FrameSent, FrameRefused))
        if not isinstance(event, wanted) if asked is not None else answers:
            self._question = asked
            names = " or ".join(t.__name__ for t in wanted) or "no answer: nothing was asked"
            raise StateError(f"tracer machine: wanted {names}, got {type(event).__name__}")

    # --- how it begins, rests, ends

    def _started(self, now_ns: int) -> None:
        if self.state is State.IDLE:
            self._greet(now_ns)

    def _parked(self) -> None:
        if self.state is not State.CLOSED:
            self.state = State.IDLE
            self._refused = False

    def _greet(self, now_ns: int) -> None:
        self.state = State.GREETING
        self._refused = False
        self._hello_wait_ns = FIRST_HELLO_NS
        self._say_hello(now_ns)

    def _say_hello(self, now_ns: int) -> None:
        self._out.append(SendHello(self.incarnation, self.generation, self._proof))
        self._hello_at_ns = now_ns + self._hello_wait_ns
        longest_ns = ENDING_HELLO_NS if self._ending else MAX_HELLO_NS
        self._hello_wait_ns = min(2 * self._hello_wait_ns, longest_ns)

    def _end(self, now_ns: int) -> None:
        self._ending = True
        if self.state is State.STOPPED:
            self._close()
        elif self.state is State.GREETING:
            self._hello_wait_ns = min(self._hello_wait_ns, ENDING_HELLO_NS)
            self._hello_at_ns = min(self._hello_at_ns, now_ns + ENDING_HELLO_NS)

    def _close(self) -> None:
        self.state = State.CLOSED
        self._fail_flushes()
        self._out.append(Close())

    def _tick(self, now_ns: int) -> None:
        match self.state:
            case State.GREETING:
                if now_ns >= self._hello_at_ns:
                    self._say_hello(now_ns)
            case State.STOPPED:
                if self._rejoin_at_ns is not None and now_ns >= self._rejoin_at_ns:
                    self.incarnation += 1
                    self._rejoin_at_ns = None
                    self._greet(now_ns)
            case State.RECORDING:
                self._refused = False
                if now_ns >= self._heard_at_ns + self._silence_ns:
                    self._greet(now_ns)
                elif now_ns >= self._heartbeat_at_ns:
                    self._beat(now_ns)
            case State.IDLE | State.CLOSED:
                pass
            case _:
                assert_never(self.state)

    def _beat(self, now_ns: int) -> None:
        self._heartbeat_at_ns = now_ns + self._heartbeat_ns
        rtt_ns, offset_ns, sampled_ns = min(self._samples, default=(0, 0, 0))
        self._out.append(SendHeartbeat(self.generation, self._outbox.sent_through, offset_ns, rtt_ns, sampled_ns))
        if now_ns >= self._ping_at_ns or self._pings < FIRST_PINGS:
            self._ping(now_ns)
        self._ask_for_what_is_lost(now_ns)

    def _ask_for_what_is_lost(self, now_ns: int) -> None:
        """The last of what was sent may have gone with a connection: no gap shows that before something comes behind it."""
        before, self._waits_for = self._waits_for, self._outbox.waits_for
        if self._waits_for is not None and self._waits_for == before:
            self._stamp(BatchType.FLUSH, b"", now_ns)

    def _ping(self, now_ns: int) -> None:
        self._ping_at_ns = now_ns + PING_NS
        self._pings += 1
        self._pinged_ns = now_ns
        self._out.append(SendPing(now_ns))

    # --- the link

    def _link(self, event: LinkReceived, now_ns: int) -> None:
        if self.state in (State.IDLE, State.CLOSED):
            return
        self._heard_at_ns = now_ns
        match event.message:
            case Welcome() as welcome:
                self._welcome(welcome, now_ns)
            case Reject(reason):
                self.error = reason[:MAX_REASON_CHARS]
            case Stop() as stop:
                self._stop(stop, now_ns)
            case Advance(generation):
                self._want(generation)
            case RecorderHeartbeat(boot_id, generation):
                if self.state is not State.RECORDING:
                    return
                if boot_id != self._boot_id or generation == 0:
                    self._greet(now_ns)
                else:
                    self._want(generation)
            case Ack() as ack:
                self._acknowledge(ack)
            case Pong() as pong:
                self._pong(pong, now_ns)
            case Reported() | Lines():
                pass  # of the triggers, which are the agent's
            case _:
                assert_never(event.message)

    def _want(self, generation: int) -> None:
        if generation <= MAX_GENERATION:
            self._wanted = max(self._wanted, generation)
        else:
            self.ignored += 1

    def _welcome(self, welcome: Welcome, now_ns: int) -> None:
        if self.state not in (State.GREETING, State.RECORDING):
            return
        if not OLDEST_WIRE_VERSION <= welcome.version <= WIRE_VERSION or not 0 < welcome.generation <= MAX_GENERATION:
            self.ignored += 1
            self.error = f"welcome: wanted wire version {OLDEST_WIRE_VERSION}..{WIRE_VERSION} and a generation above 0, got {welcome}"[
                :MAX_REASON_CHARS
            ]
            return
        self._proof = welcome.nonce
        same = (welcome.boot_id, welcome.nonce) == (self._boot_id, self._nonce)
        greeting = self.state is State.GREETING
        if same:
            self._wanted = max(self._wanted, welcome.generation)
        else:
            self._boot_id, self._nonce = welcome.boot_id, welcome.nonce
            self._wanted = max(welcome.generation, self.generation + 1)
            self._samples.clear()
            self._outbox.start_over()
            self._strings_wanted = self.tseq > 0
        self._heartbeat_ns = max(welcome.heartbeat_ns, MIN_HEARTBEAT_NS)
        self._silence_ns = max(welcome.silence_ns, MIN_SILENCE_NS)
        if greeting:
            self.state = State.RECORDING
            self._heartbeat_at_ns = now_ns + self._heartbeat_ns
            self._ship_at_ns = now_ns
            self._pings = 0
            self._ping(now_ns)
            if self._stopped:
                self._stopped = False
                self._out.append(ResumeRecording())

    def _stop(self, stop: Stop, now_ns: int) -> None:
        if self.state is State.STOPPED:
            return
        self.error = stop.reason
        self._stopped = True
        self._forget_all()
        self._out.append(StopRecording(stop.reason))
        self.state = State.STOPPED
        self._rejoin_at_ns = now_ns + stop.rejoin_ns if stop.rejoin_ns else None
        if self._ending:
            self._close()

    def _pong(self, pong: Pong, now_ns: int) -> None:
        if pong.sent_ns != self._pinged_ns:
            return
        self._pinged_ns = None
        rtt_ns = max(now_ns - pong.sent_ns, 1)
        self._samples.append((rtt_ns, pong.recorder_ns - pong.sent_ns - rtt_ns // 2, now_ns))

    # --- acknowledgements

    def _acknowledge(self, ack: Ack) -> None:
        if ack.boot_id != self._boot_id:
            return
        if ack.stored_through > self._outbox.sent_through:
            self.ignored += 1
            return
        self._release(self._outbox.acknowledge(ack))
        self._outbox.forget_openings(self.generation)
        first = self._outbox.first_unacknowledged or self.tseq + 1
        while self._flushes and self._flushes[0][0] < first:
            self._out.append(CompleteFlush(self._flushes.popleft()[1], True))

    def _release(self, uses: Iterable[ChunkUse]) -> None:
        self._out += [Release(*use) for use in uses]

    def _forget_all(self) -> None:
        """The recorder takes no more of this incarnation."""
        self._refused = self._more = self._strings_wanted = False
        self._book.give_up(self._outbox.records())
        self._release(self._outbox.clear())
        self._fresh = True
        self._boot_id, self._nonce = b"", 0
        self._fail_flushes()

    # --- flush

    def _flush(self, token: int) -> None:
        if self.state in (State.STOPPED, State.CLOSED):
            self._out.append(CompleteFlush(token, False))
        else:
            self._flush_asked = max(token, self._flush_asked or 0)

    def _fail_flushes(self) -> None:
        tokens = [token for _, token in self._flushes]
        if self._flush_asked is not None:
            tokens.append(self._flush_asked)
        if tokens:
            self._out.append(CompleteFlush(max(tokens), False))
        self._flushes.clear()
        self._flush_asked = None

    # --- what to do next

    @property
    def _has_room(self) -> bool:
        return self._outbox.unacknowledged_bytes < self._window_bytes

    def _next_question(self, now_ns: int) -> Question | None:
        if self._refused:
            return None
        if self._strings_wanted:
            return ReadStrings()
        if (frame := self._outbox.next_frame(self._nonce)) is not None:
            return frame
        if self._fresh:
            return CutTo(self._wanted, carry=True)
        if self._ending:
            return self._last_question()
        if self._wanted > self.generation:
            return CutTo(self._wanted)
        wants = (
            self._more
            or now_ns >= self._ship_at_ns
            or (self._flush_asked is not None and len(self._flushes) < MAX_FLUSHES)
        )
        return Collect(COALESCE_BYTES) if wants and self._has_room else None

    def _last_question(self) -> Question | None:
        if not self._said_goodbye:
            return CutTo(self.generation + 1)
        if not len(self._outbox):
            self._close()
        return None

    # --- answers

    def _slices_read(self, event: SlicesRead) -> None:
        for header in self._outbox.slices_read(event.bodies):
            if header.generation == self.generation:
                self._book.lose(header.writer, header.first_index, header.count)

    def _strings_read(self, event: StringsRead, now_ns: int) -> None:
        self._strings_wanted = False
        self._strings(event.strings, now_ns, first=True)

    def _collected(self, event: Collected, now_ns: int) -> None:
        self._dropped = event.dropped
        self._strings(event.strings, now_ns)
        self._records(event.slices)
        size_bytes = sum(s.size for s in event.slices)
        self._burst_bytes += size_bytes
        self._more = size_bytes > COALESCE_BYTES - LARGE_CHUNK_BYTES
        if self._more:
            return
        wait_ns = BUSY_SHIP_NS if self._burst_bytes >= BUSY_BYTES else SHIP_NS if event.slices else IDLE_SHIP_NS
        self._ship_at_ns = now_ns + wait_ns
        self._burst_bytes = 0
        if self._flush_asked is not None and len(self._flushes) < MAX_FLUSHES:
            self._stamp(BatchType.FLUSH, b"", now_ns)
            self._flushes.append((self.tseq, self._flush_asked))
            self._flush_asked = None

    def _cut(self, event: GenerationCut, now_ns: int) -> None:
        self._dropped = event.dropped
        self._strings(event.strings, now_ns)
        if self._fresh:
            first_ns = min([event.at_ns, *(s.base_ns for s in event.slices if s.count)])
            self._open(event, self._wanted, first_ns)
            self._fresh = False
            self._book.carry(event.writers)
            self._records(event.slices)
            return
        self._records(event.slices)
        batches, mark = self._book.end(event.writers)
        self._stamp(BatchType.END, encode_end_mark(mark), now_ns, count=batches)
        if self._flush_asked is not None:
            # the cut took all that was published, and an end mark is acknowledged at once
            self._flushes.append((self.tseq, self._flush_asked))
            self._flush_asked = None
        if self._ending:
            self._stamp(BatchType.GOODBYE, b"", now_ns)
            self._said_goodbye = True
        else:
            self._open(event, self._wanted, event.at_ns)

    # --- batches

    def _open(self, event: GenerationCut, generation: int, first_ns: int) -> None:
        self.generation = generation
        self._outbox.put_opening(self._header(BatchType.OPEN, first_ns, first_ns), bounded_opening(event.opening))

    def _strings(self, strings: Strings | None, now_ns: int, *, first: bool = False) -> None:
        if strings is not None:
            first_id, count, body = strings
            header = self._header(BatchType.STRINGS, now_ns, now_ns, first_index=first_id, count=count)
            self._outbox.put(header, body, first=first)

    def _records(self, slices: tuple[Slice, ...]) -> None:
        for taken in slices:
            if taken.count == 0:
                self._release(self._outbox.finish_chunk(taken))
                continue
            header = self._header(
                BatchType.RECORDS,
                taken.base_ns,
                taken.last_ns,
                writer=taken.writer,
                first_index=taken.first_index,
                count=taken.count,
            )
            self._outbox.put_slice(header, taken)
            self._book.stamp(taken)

    def _stamp(self, type_: BatchType, body: bytes, at_ns: int, *, count: int = 0) -> None:
        self._outbox.put(self._header(type_, at_ns, at_ns, count=count), body)

    def _header(
        self, type_: BatchType, base_ns: int, last_ns: int, *, writer: int = 0, first_index: int = 0, count: int = 0
    ) -> Header:
        """The next of this incarnation's batches, in the generation that is open."""
        self.tseq += 1
        return Header(
            type=type_,
            uuid=self._uuid,
            incarnation=self.incarnation,
            nonce=self._nonce,
            generation=self.generation,
            tseq=self.tseq,
            writer=writer,
            base_ns=base_ns,
            last_ns=last_ns,
            first_index=first_index,
            count=count,
            dropped=self._dropped,
        )
