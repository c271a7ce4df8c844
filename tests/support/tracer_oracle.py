"""What a tracer is to do, as plain dicts and sets: it predicts every instruction of the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from frzmq.tracer import events as ev
from frzmq.tracer.machine import (
    BUSY_BYTES,
    BUSY_SHIP_NS,
    ENDING_HELLO_NS,
    FIRST_HELLO_NS,
    FIRST_PINGS,
    IDLE_SHIP_NS,
    MAX_FLUSHES,
    MAX_HELLO_NS,
    PING_NS,
    SHIP_NS,
)
from frzmq.tracer.outbox import ENTRY_BYTES
from frzmq.tracer.slices import Slice
from frzmq.wire.batch import (
    COALESCE_BYTES,
    HEADER_SIZE,
    BatchType,
    EndMark,
    Header,
    WriterEnd,
    encode_batch,
    encode_end_mark,
    encode_opening,
)
from frzmq.wire.chunk import LARGE_CHUNK_BYTES
from frzmq.wire.messages import Ack, Advance, Pong, RecorderHeartbeat, Stop, Welcome

MS = 1_000_000
UUID = bytes(range(16))
WINDOW_BYTES = 200 << 10
HEARTBEAT_NS, SILENCE_NS = 1000 * MS, 5000 * MS


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@dataclass
class Oracle:
    """Everything that ever was stamped, by tseq, and sets of them."""

    headers: dict[int, Header] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    slices: dict[int, Slice] = field(default_factory=dict)
    finals: set[tuple[int, int]] = field(default_factory=set)
    released: set[tuple[int, int]] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    unread: set[int] = field(default_factory=set)
    proof: dict[int, int] = field(default_factory=dict)
    queue: list[int] = field(default_factory=list)
    frame: list[int] = field(default_factory=list)
    state: str = "idle"
    incarnation: int = 1
    generation: int = 0
    wanted: int = 0
    session: tuple[bytes, int] = (b"", 0)
    fresh: bool = True
    refused: bool = False
    strings_wanted: bool = False
    more: bool = False
    burst: int = 0
    stopped: bool = False
    ending: bool = False
    goodbye: bool = False
    asked: Any = None
    dropped: int = 0
    carried: tuple[WriterEnd, ...] = ()
    lost: dict[int, set[int]] = field(default_factory=dict)
    gone: dict[int, int] = field(default_factory=dict)
    """By tseq: the records of a batch that goes without them."""
    marks: dict[int, EndMark] = field(default_factory=dict)
    gave_up: dict[int, set[int]] = field(default_factory=dict)
    """By writer: what was under way as the recorder stopped it, and is to be told of."""
    flush_asked: int = 0
    flushes: dict[int, int] = field(default_factory=dict)
    hello_at: int = 0
    hello_wait: int = 0
    heard_at: int = 0
    beat_at: int = 0
    ping_at: int = 0
    ship_at: int = 0
    pings: int = 0
    held: int = 0
    """The oldest at the last heartbeat, if it was sent."""
    pinged: int | None = None
    rejoin_at: int | None = None
    samples: list[tuple[int, int, int]] = field(default_factory=list)

    def waiting(self) -> list[int]:
        """Stamped and not acknowledged, oldest first."""
        return sorted(set(self.headers) - self.acked)

    def size(self, tseq: int) -> int:
        return self.slices[tseq].size if tseq in self.slices else len(self.bodies[tseq])

    def predict(self, event: Any, now: int) -> list[Any]:
        self.asked = None
        out: list[Any] = getattr(self, "on_" + snake(type(event).__name__))(event, now) or []
        if self.state == "recording":
            self.asked = self.question(now)
            if self.asked == ev.Close():
                self.state, self.asked = "closed", None
                out += [*self.fail_flushes(), ev.Close()]
            elif self.asked is not None:
                out.append(self.asked)
        return out

    def question(self, now: int) -> Any:
        if self.refused:
            return None
        if self.strings_wanted:
            return ev.ReadStrings()
        if not self.frame and self.queue:
            take = [self.queue[0]]
            for tseq in self.queue[1:]:
                if sum(self.size(t) + HEADER_SIZE for t in [*take, tseq]) > COALESCE_BYTES:
                    break
                take.append(tseq)
            unread = [t for t in take if t in self.unread]
            if unread:
                return ev.ReadSlices(tuple(self.slices[t] for t in unread))
            self.frame, self.queue = take, self.queue[len(take) :]
        if self.frame:
            batches = [
                encode_batch(replace(self.headers[t], nonce=self.session[1]), self.bodies[t]) for t in self.frame
            ]
            return ev.SendFrame(b"".join(batches))
        if self.fresh:
            return ev.CutTo(self.wanted, carry=True)
        if self.ending:
            if not self.goodbye:
                return ev.CutTo(self.generation + 1)
            return None if self.waiting() else ev.Close()
        if self.wanted > self.generation:
            return ev.CutTo(self.wanted)
        flushes = self.flush_asked and len(self.flushes) < MAX_FLUSHES
        if (self.more or now >= self.ship_at or flushes) and self.has_room():
            return ev.Collect(COALESCE_BYTES)
        return None

    def has_room(self) -> bool:
        return sum(ENTRY_BYTES + self.size(t) for t in self.waiting()) < WINDOW_BYTES

    # --- events

    def on_started(self, _event: Any, now: int) -> list[Any]:
        return self.greet(now) if self.state == "idle" else []

    def on_parked(self, _event: Any, _now: int) -> None:
        if self.state != "closed":
            self.state, self.refused = "idle", False

    def greet(self, now: int) -> list[Any]:
        self.state, self.refused, self.hello_wait = "greeting", False, FIRST_HELLO_NS
        return self.hello(now)

    def hello(self, now: int) -> list[Any]:
        self.hello_at = now + self.hello_wait
        self.hello_wait = min(2 * self.hello_wait, ENDING_HELLO_NS if self.ending else MAX_HELLO_NS)
        return [ev.SendHello(self.incarnation, self.generation, self.nonce)]

    def on_ticked(self, _event: Any, now: int) -> list[Any]:
        if self.state == "greeting" and now >= self.hello_at:
            return self.hello(now)
        if self.state == "stopped" and self.rejoin_at is not None and now >= self.rejoin_at:
            self.incarnation += 1
            return self.greet(now)
        if self.state != "recording":
            return []
        self.refused = False
        if now - self.heard_at >= SILENCE_NS:
            return self.greet(now)
        if now < self.beat_at:
            return []
        self.beat_at = now + HEARTBEAT_NS
        rtt, offset, at = min(self.samples[-12:], default=(0, 0, 0))
        through = max(self.proof, default=0)
        out: list[Any] = [ev.SendHeartbeat(self.generation, through, offset, rtt, at)]
        if now >= self.ping_at or self.pings < FIRST_PINGS:
            out += self.ping(now)
        oldest = next((t for t in self.waiting()[:1] if t in self.sent), 0)
        if oldest and oldest == self.held:
            self.stamp(BatchType.FLUSH, self.generation, b"", now)
        self.held = oldest
        return out

    def ping(self, now: int) -> list[Any]:
        self.ping_at, self.pinged = now + PING_NS, now
        self.pings += 1
        return [ev.SendPing(now)]

    def on_end_asked(self, _event: Any, now: int) -> list[Any]:
        self.ending = True
        if self.state == "stopped":
            self.state = "closed"
            return [ev.Close()]
        if self.state == "greeting":
            self.hello_wait = min(self.hello_wait, ENDING_HELLO_NS)
            self.hello_at = min(self.hello_at, now + ENDING_HELLO_NS)
        return []

    def on_flush_asked(self, event: Any, _now: int) -> list[Any]:
        if self.state in ("stopped", "closed"):
            return [ev.CompleteFlush(event.token, ok=False)]
        self.flush_asked = event.token
        return []

    def fail_flushes(self) -> list[Any]:
        tokens = {*self.flushes.values(), self.flush_asked} - {0}
        self.flushes, self.flush_asked = {}, 0
        return [ev.CompleteFlush(max(tokens), ok=False)] if tokens else []

    def on_link_received(self, event: Any, now: int) -> list[Any]:
        if self.state in ("idle", "closed"):
            return []
        self.heard_at = now
        match event.message:
            case Advance(generation):
                self.wanted = max(self.wanted, generation)
            case RecorderHeartbeat(boot_id, generation) if self.state == "recording":
                if boot_id != self.session[0] or not generation:
                    return self.greet(now)
                self.wanted = max(self.wanted, generation)
            case Pong(sent, recorder) if sent == self.pinged:
                rtt = max(1, now - sent)
                self.pinged = None
                self.samples.append((rtt, recorder - sent - rtt // 2, now))
            case Welcome() as welcome if self.state in ("greeting", "recording"):
                return self.welcome(welcome, now)
            case Stop(_, rejoin) if self.state != "stopped":
                return self.stop(event.message.reason, now + rejoin if rejoin else None)
            case Ack() as ack if ack.boot_id == self.session[0]:
                return self.ack(ack)
        return []

    def welcome(self, welcome: Welcome, now: int) -> list[Any]:
        out: list[Any] = []
        self.nonce = welcome.nonce
        if self.session == (welcome.boot_id, welcome.nonce):
            self.wanted = max(self.wanted, welcome.generation)
        else:
            self.session = (welcome.boot_id, welcome.nonce)
            self.wanted = max(welcome.generation, self.generation + 1)
            self.samples = []
            if not self.fresh:
                # of each generation of which something waits, and of the one that is open, the opening
                oldest = min([self.headers[t].generation for t in self.waiting()] + [self.generation])
                for tseq, header in self.headers.items():
                    if header.type is BatchType.OPEN and header.generation >= max(oldest, self.kept_from):
                        self.acked.discard(tseq)
            self.unread |= {t for t in self.sent & set(self.slices) if t not in self.acked and t in self.first_sent}
            self.sent = set()
            self.frame, self.queue = [], self.waiting()
            self.strings_wanted = bool(self.headers)
        if self.state == "greeting":
            self.state, self.beat_at, self.ship_at, self.pings = "recording", now + HEARTBEAT_NS, now, 0
            out += self.ping(now)
            if self.stopped:
                self.stopped = False
                out.append(ev.ResumeRecording())
        return out

    first_sent: set[int] = field(default_factory=set)
    nonce: int = 0
    """The nonce of the last welcome."""
    kept_from: int = 0
    """Openings of earlier generations are forgotten: all of those was acknowledged once."""

    def stop(self, reason: str, rejoin_at: int | None) -> list[Any]:
        self.stopped, self.state, self.fresh, self.rejoin_at = True, "stopped", True, rejoin_at
        for tseq in self.waiting():
            header = self.headers[tseq]
            if header.type is BatchType.RECORDS:
                end = header.first_index + header.count + self.gone.get(tseq, 0)
                self.give_up(header.writer, range(header.first_index, end))
            for row in self.marks[tseq].writers if tseq in self.marks else ():
                for lost in row.overwritten:
                    self.give_up(row.writer, range(*lost))
        for writer, untold in self.lost.items():
            self.give_up(writer, untold)
        self.lost = {}
        in_use = {(self.slices[t].chunk, self.slices[t].serial): t for t in self.waiting() if t in self.slices}
        out: list[Any] = [ev.Release(*key) for key in in_use if key in self.finals]
        out = sorted(out, key=lambda r: next(t for t in self.waiting() if self.is_of(t, r)))
        out += self.fail_flushes()
        self.acked = set(self.headers)
        self.queue, self.frame = [], []
        self.refused = self.more = self.strings_wanted = False
        self.session = (b"", 0)
        self.kept_from = 1 << 62
        out.append(ev.StopRecording(reason))
        if self.ending:
            self.state = "closed"
            out.append(ev.Close())
        return out

    def is_of(self, tseq: int, release: ev.Release) -> bool:
        piece = self.slices.get(tseq)
        return piece is not None and (piece.chunk, piece.serial) == (release.chunk, release.serial)

    def ack(self, ack: Ack) -> list[Any]:
        out: list[Any] = []
        missing = {t for a, b in ack.gaps for t in range(a, b)}
        known = [t for t in self.waiting() if t <= ack.stored_through and t in self.sent]
        for tseq in known:
            if tseq not in missing:
                self.acked.add(tseq)
                out += self.releases(tseq)
        again = [t for t in known if t in missing and self.proof[t] <= ack.stored_through]
        self.queue = again + self.queue
        self.sent -= set(again)
        self.unread |= set(again) & set(self.slices)
        if not self.fresh:
            oldest = min([self.headers[t].generation for t in self.waiting()[:1]] + [self.generation])
            self.kept_from = max(self.kept_from if self.kept_from < 1 << 62 else 0, oldest)
        done = [t for t in self.flushes if t < min(self.waiting(), default=1 << 62)]
        return out + [ev.CompleteFlush(self.flushes.pop(t), ok=True) for t in sorted(done)]

    def give_up(self, writer: int, indices: Iterable[int]) -> None:
        self.gave_up.setdefault(writer, set()).update(indices)

    def releases(self, tseq: int) -> list[Any]:
        piece = self.slices.get(tseq)
        if piece is None:
            return []
        key = piece.chunk, piece.serial
        left = any((self.slices[t].chunk, self.slices[t].serial) == key for t in self.waiting() if t in self.slices)
        return [ev.Release(*key)] if key in self.finals and not left else []

    # --- answers

    def on_frame_sent(self, _event: Any, _now: int) -> None:
        before = max(self.proof, default=0)
        through = max(before, *self.frame)
        for tseq in self.frame:
            self.proof[tseq] = 1 + (through if tseq <= before else tseq)
        self.sent |= set(self.frame)
        self.first_sent |= set(self.frame)
        self.frame = []

    def on_frame_refused(self, _event: Any, _now: int) -> None:
        self.refused = True

    def on_slices_read(self, event: Any, _now: int) -> None:
        unread = [t for t in self.queue if t in self.unread][: len(event.bodies)]
        for tseq, body in zip(unread, event.bodies, strict=True):
            self.unread.discard(tseq)
            if body is None:
                header = self.headers[tseq]
                self.bodies[tseq] = b""
                self.headers[tseq] = replace(header, count=0, last_ns=header.base_ns)
                self.gone[tseq] = header.count
                if header.generation == self.generation:
                    first = header.first_index
                    self.lost.setdefault(header.writer, set()).update(range(first, first + header.count))
            else:
                self.bodies[tseq] = body

    def on_strings_read(self, event: Any, now: int) -> None:
        self.strings_wanted = False
        if event.strings is not None:
            self.strings(event.strings, now)
            self.queue.insert(0, self.queue.pop())

    def on_collected(self, event: Any, now: int) -> list[Any]:
        self.dropped = event.dropped
        self.strings(event.strings, now)
        out = self.records(event.slices, self.generation)
        size = sum(s.size for s in event.slices)
        self.burst += size
        self.more = size > COALESCE_BYTES - LARGE_CHUNK_BYTES
        if not self.more:
            busy = self.burst >= BUSY_BYTES
            self.ship_at = now + (BUSY_SHIP_NS if busy else SHIP_NS if event.slices else IDLE_SHIP_NS)
            self.burst = 0
            if self.flush_asked and len(self.flushes) < MAX_FLUSHES:
                self.flushes[self.stamp(BatchType.FLUSH, self.generation, b"", now)] = self.flush_asked
                self.flush_asked = 0
        return out

    def on_generation_cut(self, event: Any, now: int) -> list[Any]:
        self.dropped = event.dropped
        self.strings(event.strings, now)
        if self.fresh:
            first = min([event.at_ns, *(s.base_ns for s in event.slices if s.count)])
            # what was given up is lost of this generation
            self.fresh, self.generation = False, self.wanted
            # and what was sent before it was stopped is not of this incarnation
            self.carried = tuple(
                replace(row, first_index=min(max(row.first_index, self.stamped(row.writer)), row.next_index))
                for row in event.writers
            )
            self.lost, self.gave_up = self.gave_up, {}
            rests = self.lost.keys() - {row.writer for row in event.writers}
            self.carried += tuple(
                WriterEnd(writer, min(lost), max(lost) + 1, 0) for writer, lost in self.lost.items() if writer in rests
            )
            self.kept_from = self.generation
            self.stamp(BatchType.OPEN, self.generation, encode_opening(event.opening), first)
            return self.records(event.slices, self.generation)
        out = self.records(event.slices, self.generation)
        old = self.generation
        count = len(
            [
                h
                for h in self.headers.values()
                if h.type is BatchType.RECORDS and h.generation == old and h.incarnation == self.incarnation
            ]
        )
        mark = self.end_mark(event.writers)
        tseq = self.stamp(BatchType.END, old, encode_end_mark(mark), now, count=count)
        self.marks[tseq] = mark
        self.carried, self.lost = (), {}
        if self.flush_asked:
            self.flushes[tseq] = self.flush_asked
            self.flush_asked = 0
        if self.ending:
            self.goodbye = True
            self.stamp(BatchType.GOODBYE, old, b"", now)
        else:
            self.generation = self.wanted
            self.stamp(BatchType.OPEN, self.generation, encode_opening(event.opening), event.at_ns)
        return out

    def stamped(self, writer: int) -> int:
        """Behind the last record of it that was ever stamped."""
        of_writer = (h for h in self.headers.values() if h.type is BatchType.RECORDS and h.writer == writer)
        return max((h.first_index + h.count + self.gone.get(h.tseq, 0) for h in of_writer), default=0)

    def end_mark(self, rows: tuple[WriterEnd, ...]) -> EndMark:
        merged = {row.writer: row for row in self.carried}
        for row in rows:
            first = merged[row.writer].first_index if row.writer in merged else row.first_index
            merged[row.writer] = replace(row, first_index=min([first, *self.lost.get(row.writer, ())]))
        for row in self.carried:
            first = min([merged[row.writer].first_index, *self.lost.get(row.writer, ())])
            merged[row.writer] = replace(merged[row.writer], first_index=first)
        return EndMark(tuple(replace(row, overwritten=self.ranges(row)) for row in merged.values()))

    def ranges(self, row: WriterEnd) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        for index in sorted(self.lost.get(row.writer, ())):
            if found and found[-1][1] == index:
                found[-1] = (found[-1][0], index + 1)
            else:
                found.append((index, index + 1))
        return tuple(found)

    def strings(self, strings: Any, now: int) -> None:
        if strings is not None:
            self.stamp(BatchType.STRINGS, self.generation, strings[2], now, first_index=strings[0], count=strings[1])

    def records(self, slices: tuple[Slice, ...], generation: int) -> list[Any]:
        out: list[Any] = []
        for piece in slices:
            key = piece.chunk, piece.serial
            if piece.final:
                self.finals.add(key)
            if piece.count:
                tseq = self.stamp(
                    BatchType.RECORDS, generation, piece.body, piece.base_ns, writer=piece.writer, first_index=piece.first_index,
                    count=piece.count, last_ns=piece.last_ns,
                )  # fmt: skip
                self.slices[tseq] = replace(piece, body=b"")
            elif piece.final and not any(
                (self.slices[t].chunk, self.slices[t].serial) == key for t in self.waiting() if t in self.slices
            ):
                out.append(ev.Release(*key))
        return out

    def stamp(self, type_: BatchType, generation: int, body: bytes, at: int, **more: int) -> int:
        tseq = max(self.headers, default=0) + 1
        fields = {"base_ns": at, "last_ns": at, **more}
        self.headers[tseq] = Header(
            type_, UUID, self.incarnation, self.session[1], generation, tseq, dropped=self.dropped, **fields
        )
        self.bodies[tseq] = body
        self.queue.append(tseq)
        return tseq


@dataclass
class Recorder:
    """What one run of a recorder has, of the frames that were not lost."""

    boot_id: bytes
    nonce: int
    stored: dict[int, Any] = field(default_factory=dict)

    def ack(self) -> Ack:
        through = max(self.stored, default=0)
        gaps = tuple((t, t + 1) for t in range(1, through) if t not in self.stored)
        return Ack(self.boot_id, through, gaps)
