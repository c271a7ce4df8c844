"""RecorderMachine against an oracle of plain dicts and sets, which predicts every reply and every generation's content.

The tracers are honest and their pipes are not: frames are lost, sent again, sent twice, joined. One action in a few is hostile; then the oracle says
who is stopped, and that nobody else is.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.recorder_oracle import END, FLUSH, GOODBYE, MS, OPEN, RECORDS, STRINGS, Known, S, Tracer, raw

from frzmq.config import RecorderConfig
from frzmq.recorder.events import (
    FrameReceived,
    LinkReceived,
    RequestReceived,
    SendLink,
    SendReply,
    ShareSnapshot,
    SnapshotClient,
    SnapshotFinished,
    Tick,
    TracerDied,
    WriteSnapshot,
)
from frzmq.recorder.machine import RecorderMachine
from frzmq.wire.batch import BatchType, Header
from frzmq.wire.ledger import PLACES, WriterLedger, writers_disagree
from frzmq.wire.messages import (
    Ack,
    Advance,
    ErrorReply,
    FlushReply,
    FlushRequest,
    Hello,
    OkReply,
    Ping,
    Pong,
    RecorderHeartbeat,
    Reject,
    SnapshotRequest,
    StartRequest,
    Stop,
    StopRequest,
    TracerHeartbeat,
    Welcome,
)

BOOT = b"boot" * 4
CONFIG = RecorderConfig(
    min_age_ns=10**17,
    max_bytes=1 << 30,
    max_generation_bytes=1 << 28,
    advance_every_ns=S,
    heartbeat_ns=250 * MS,
    silence_ns=5 * S,
    flush_timeout_ns=2 * S,
    mode="service",
    on_death=False,  # a snapshot of its own accord is test_machine's
)
CONTROL = b"client"


class RecorderModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100 * S
        self.nonces = 0
        self.machine = RecorderMachine(CONFIG, BOOT, self._nonce, self.now)
        self.tracers: list[Tracer] = []
        self.known: dict[bytes, Known] = {}
        self.old: list[Known] = []
        self.on = True
        self.expected: list[Any] = []
        self.flushes: list[dict[str, Any]] = []
        self.snapshot: dict[str, Any] | None = None
        self.stopping: int | None = None
        self.errors = 0
        self.next_advance = self.now + S
        self.next_heartbeat = self.now + 250 * MS
        self.ids = 0
        self.stops: dict[bytes, list[int]] = {}
        self.snapshots = 0

    def _nonce(self) -> int:
        self.nonces += 1
        return self.nonces * 1000

    # --- the comparison

    def give(self, event: Any) -> list[Any]:
        """The machine's instructions must be what the oracle put into ``expected`` (in any order)."""
        self._progress()
        got = self.machine.handle(event, self.now)
        plain = [
            g
            for g in got
            if not isinstance(g, WriteSnapshot) and type(g).__name__ not in ("WatchTracer", "ForgetTracer")
        ]
        want, self.expected = self.expected, []
        written = [w for w in want if isinstance(w, tuple)]
        assert [_plain(g) for g in sorted(plain, key=repr)] == [
            _plain(w) for w in sorted((w for w in want if not isinstance(w, tuple)), key=repr)
        ]
        views = [g for g in got if isinstance(g, WriteSnapshot)]
        assert [("write", v.snapshot, v.clients, v.missing) for v in views] == written
        for view in views:
            assert len(view.view.streams) == len(self.known) + len(self.old)
        for g in got:
            if isinstance(g, SendLink) and isinstance(g.message, Advance | Welcome):
                for tracer in self.tracers:
                    if tracer.peer == g.peer:
                        tracer.told = g.message.generation
        return got

    @invariant()
    def streams_are_the_oracles(self) -> None:
        view = self.machine.telling.view(self.now, 0)
        oracle = {(k.uuid, k.incarnation): k for k in [*self.known.values(), *self.old]}
        assert {(s.hello.uuid, s.hello.incarnation) for s in view.streams} == set(oracle)
        for stream in view.streams:
            k = oracle[stream.hello.uuid, stream.hello.incarnation]
            assert stream.state.value == k.state
            assert bool(stream.error) == (bool(k.error) or k.state == "dead")
            sealed = [
                {
                    "generation": g.generation, "complete": g.complete, "seal": g.seal.value, "records": g.records, "frames": b"".join(g.frames),
                    "end_mark": g.end_mark, "lost": g.lost, "last": g.last_ns,
                } for g in stream.sealed
            ]  # fmt: skip
            assert sealed == k.sealed
            assert b"".join(stream.strings) == b"".join(k.strings)
            counts = k.ledger()
            ledger = stream.ledger
            opened = counts["open"]
            assert (ledger.held, ledger.evicted, ledger.late, ledger.overwritten, ledger.missing, ledger.open) == (
                counts["held"], counts["evicted"], counts["late"], counts["overwritten"], counts["missing"], opened,
            )  # fmt: skip
            assert (ledger.duplicate, ledger.rejected) == (k.duplicate, k.rejected)
            assert ledger.balanced
            assert {row.writer: _counts(row) for row in stream.writers if row.recorded} == k.by_writer()
            assert writers_disagree(ledger, stream.writers, stream.other_writers) == ""
        status = self.machine.status(self.now)
        assert (status.state, status.snapshots) == ("on" if self.on else "off", self.snapshots)
        deadline = self.machine.deadline_ns()
        assert deadline is None or deadline <= self.now + S

    # --- the oracle's rules

    def _live(self) -> list[Known]:
        return [k for k in self.known.values() if k.state == "live"]

    def _say(self, k: Known, message: Any) -> None:
        self.expected.append(SendLink(k.peer, message))

    def _advance(self, k: Known) -> None:
        k.asked += 1
        k.shared = self.now
        self._say(k, Advance(k.asked))

    def _advance_if_settled(self, k: Known) -> None:
        if self.on and k.opened >= k.asked:
            self._advance(k)

    def _progress(self) -> None:
        for flush in list(self.flushes):
            for k, (target, again) in list(flush["targets"].items()):
                while k.state == "live" and k.settled(target) and again:
                    target, again = target + 1, False
                flush["targets"][k] = (target, again)
                if k.state != "live" or k.settled(target):
                    del flush["targets"][k]
                elif k.asked <= target:
                    self._advance_if_settled(k)
            if not flush["targets"] or self.now >= flush["deadline"]:
                self.flushes.remove(flush)
                missing = ("svc[7]",) * len(flush["targets"])
                if flush["id"] is not None:
                    self.expected.append(SendReply(CONTROL, FlushReply(flush["id"], missing)))
                else:
                    assert self.snapshot is not None
                    self.snapshot["writing"] = True
                    missing += ("svc[7]",) * sum(k.state == "silent" for k in [*self.known.values(), *self.old])
                    self.expected.append(("write", self.snapshot["number"], tuple(self.snapshot["clients"]), missing))

    def _begin_flush(self, id_: int | None, timeout: int, double: bool) -> None:
        targets = {}
        for k in self._live():
            self._advance_if_settled(k)
            under_way = k.shared != self.now
            targets[k] = (k.asked if under_way else k.asked - 1, double or not k.end_marks)
        self.flushes.append({"id": id_, "deadline": self.now + (timeout or 2 * S), "targets": targets})

    def _take(self, part: tuple[Header, bytes]) -> None:
        """One batch of any sender."""
        h, _ = part
        k = self.known.get(h.uuid)
        if k is None:
            return
        records = h.count if h.type is RECORDS else 0
        if (h.nonce, h.incarnation) != (k.nonce, k.incarnation):
            k.rejected += records
            return
        k.dirty = True
        k.heard = self.now
        if k.state == "silent" and k.died is None:
            k.state = "live"
            self._advance(k)
        if h.type in (FLUSH, END):
            k.ack_now = True
        if h.tseq in k.seen:
            k.duplicate += records
            return
        k.seen.add(h.tseq)
        k.first_seen = k.first_seen or h.tseq
        if h.type in (OPEN, RECORDS, END):
            k.left = max(k.left, h.generation + (h.type is END))
        if h.type is STRINGS:
            ids = set(range(h.first_index, h.first_index + h.count))
            if ids - k.string_ids:
                k.strings.append(raw(part))
                k.string_ids |= ids
        elif k.state == "live" and h.type is GOODBYE:
            k.goodbye = h.tseq
        elif h.type in (OPEN, RECORDS, END) and h.generation >= k.record_from:
            if k.state != "live" or h.generation <= k.sealed_through:
                self._late(k, h)
                k.sealed_through = max(k.sealed_through, h.generation)
            else:
                k.parts.setdefault(h.generation, {})[h.tseq] = part
                k.opened = max(k.opened, h.generation)
        if k.state == "live":
            self._settle(k)

    def _late(self, k: Known, h: Header) -> None:
        if h.type is not RECORDS:
            return
        mine = range(h.first_index, h.first_index + h.count)
        place = k.place.setdefault(h.writer, {})
        known = (
            max(max(place, default=-1) + 1, k.ends.get(h.writer, 0))
            if place or h.writer in k.ends
            else k.begin(mine.start)
        )
        for n in range(known, mine.start):
            place[n] = "missing"
        for n in range(mine.stop, min(place, default=k.ends.get(h.writer, 0))):
            place[n] = "missing"
        place.update(dict.fromkeys(mine, "late"))

    def _settle(self, k: Known) -> None:
        while k.parts:
            number = min(k.parts)
            part = k.parts[number]
            types = Counter(h.type for h, _ in part.values())
            mark = next((h for h, _ in part.values() if h.type is END), None)
            start = min(part) if types[OPEN] else 1
            later = [min(p) for g, p in k.parts.items() if g > number]
            proven = bool(types[OPEN]) and mark is None and start >= k.low
            if types[OPEN] and mark is not None and types[RECORDS] == mark.count:
                self._seal(k, "end mark", True)
            elif later and k.all_seen(start, min(later)):
                self._seal(k, "later generation", proven)
            elif len(k.parts) > 2:
                self._seal(k, "later generation", False)
            elif k.goodbye and k.all_seen(start, k.goodbye):
                self._seal(k, "goodbye", proven)
            else:
                return
        if k.goodbye:
            k.state = "gone"

    def _seal(self, k: Known, seal: str, complete: bool) -> None:
        number = min(k.parts)
        part = k.parts.pop(number)
        k.sealed_through = number
        rows: dict[int, list[Any]] = {}
        end_mark = b""
        for h, body in part.values():
            if h.type is END:
                end_mark = body
                tracer = next(t for t in self.tracers if t.uuid == k.uuid)
                rows = {w: [first, next_, over] for w, first, next_, over in tracer.marks[h.tseq]}  # type: ignore[attr-defined]
        came: dict[int, set[int]] = {}
        for h, _ in part.values():
            if h.type is RECORDS:
                came.setdefault(h.writer, set()).update(range(h.first_index, h.first_index + h.count))
        lost = 0
        for writer in came.keys() | rows.keys():
            place = k.place.setdefault(writer, {})
            here = came.get(writer, set())
            first, next_, over = rows.get(writer) or [min(here), max(here) + 1, ()]
            gone = {n for a, b in over for n in range(a, b)}
            k_first = (
                max(max(place, default=-1) + 1, k.ends.get(writer, 0)) if place or writer in k.ends else k.begin(first)
            )
            for n in range(min(k_first, first), next_):
                if n in place:
                    continue
                cause = "held" if n in here else "overwritten" if n in gone else "missing"
                place[n] = cause
                lost += n >= first and cause != "held"
            k.ends[writer] = next_
        ordered = [raw(part[t]) for t in sorted(part) if part[t][0].type is not END]
        k.sealed.append(
            {
                "generation": number, "complete": complete, "seal": seal, "records": sum(map(len, came.values())),
                "frames": b"".join(ordered), "end_mark": end_mark, "lost": lost, "last": max(h.last_ns for h, _ in part.values()),
            }
        )  # fmt: skip

    def _close(self, k: Known, seal: str) -> None:
        while k.parts:
            part = k.parts[min(k.parts)]
            types = Counter(h.type for h, _ in part.values())
            mark = next((h for h, _ in part.values() if h.type is END), None)
            self._seal(k, seal, bool(types[OPEN]) and mark is not None and mark.count == types[RECORDS])

    def _acks(self, *, all_: bool) -> None:
        for k in self.known.values():
            if k.ack_now or (all_ and k.dirty):
                k.ack_now = k.dirty = False
                self._say(k, Ack(BOOT, *k.stored()))

    # --- actions

    def _pick(self, data: st.DataObject, tracers: list[Tracer] | None = None) -> Tracer:
        return data.draw(st.sampled_from(self.tracers if tracers is None else tracers))

    @initialize(end_marks=st.booleans(), generation=st.sampled_from([0, 4]))
    def first_joins(self, end_marks: bool, generation: int) -> None:
        self._join(end_marks, generation)

    @precondition(lambda self: len(self.tracers) < 3)
    @rule(end_marks=st.booleans(), generation=st.sampled_from([0, 4]))
    def joins(self, end_marks: bool, generation: int) -> None:
        self._join(end_marks, generation)

    def _join(self, end_marks: bool, generation: int) -> None:
        tracer = Tracer(len(self.tracers) + 1, end_marks, generation)
        tracer.marks = {}  # type: ignore[attr-defined]
        if generation:
            tracer.tseq = 50
        self.tracers.append(tracer)
        self._hello_new(tracer)

    def _hello_new(self, tracer: Tracer) -> None:
        tracer.nonce = (self.nonces + 1) * 1000
        k = Known(tracer, self.now)
        if not self.on:
            k.record_from, k.from_birth = 1 << 70, False
        self.known[tracer.uuid] = k
        self._say(k, Welcome(BOOT, tracer.nonce, k.asked, 1, 250 * MS, 5 * S))
        self.give(LinkReceived(tracer.peer, tracer.hello()))

    @rule(data=st.data())
    def says_hello_again(self, data: st.DataObject) -> None:
        tracer = self._pick(data)
        k = self.known.get(tracer.uuid)
        if k is None or not _seldom(data):
            return
        tracer.peer = k.peer = tracer.peer + b"'"
        if tracer.tseq or data.draw(st.booleans()):
            # else the welcome was lost on the way
            tracer.proof = tracer.nonce
        tracer.ended = False
        if k.state == "stopped":
            self._say(k, Stop(k.error, max(k.rejoin_at - self.now, 1)))
        else:
            if k.opened >= k.asked or tracer.generation >= k.asked:
                k.asked = max(k.asked, tracer.generation) + 1
            k.state, k.died, k.heard, k.goodbye, k.shared = "live", None, self.now, 0, None
            self._say(k, Welcome(BOOT, k.nonce, k.asked, 1, 250 * MS, 5 * S))
        self.give(LinkReceived(tracer.peer, tracer.hello()))

    @rule(data=st.data())
    def comes_back_as_a_new_incarnation(self, data: st.DataObject) -> None:
        tracer = self._pick(data)
        k = self.known.get(tracer.uuid)
        if k is None or not _seldom(data):
            return
        marks = tracer.marks  # type: ignore[attr-defined]
        fresh = Tracer(tracer.uuid[0], tracer.end_marks, 0)
        fresh.incarnation, fresh.peer, fresh.marks = tracer.incarnation + 1, tracer.peer + b"+", dict(marks)  # type: ignore[attr-defined]
        fresh.proof = tracer.nonce if tracer.tseq else tracer.proof
        if k.state == "stopped" and self.now < k.rejoin_at:
            self.expected.append(SendLink(fresh.peer, Stop(k.error, k.rejoin_at - self.now)))
            self.give(LinkReceived(fresh.peer, fresh.hello()))
            return
        self._close(k, "replaced")
        if k.state in ("live", "silent"):
            k.state = "gone"
        self.old.append(self.known.pop(tracer.uuid))
        self.tracers[self.tracers.index(tracer)] = fresh
        self._hello_new(fresh)

    @rule(data=st.data())
    def an_earlier_incarnation_or_version_is_turned_away(self, data: st.DataObject) -> None:
        tracer = self._pick(data)
        k = self.known.get(tracer.uuid)
        hello = Hello(tracer.uuid, 0, 1, 1, 7, "svc", 0) if k is not None else Hello(tracer.uuid, 1, 9, 9, 7, "svc", 0)
        self.expected.append(SendLink(b"other", Reject("any")))
        self.give(LinkReceived(b"other", hello))

    @rule(data=st.data(), step=st.integers(0, 2))
    def a_stranger_with_its_uuid_is_turned_away(self, data: st.DataObject, step: int) -> None:
        tracer = self._pick(data)
        if tracer.uuid not in self.known:
            return
        hello = dataclasses.replace(tracer.hello(), nonce=1, incarnation=tracer.incarnation + step)
        self.expected.append(SendLink(b"other", Reject("any")))
        self.give(LinkReceived(b"other", hello))

    def _cut(self, tracer: Tracer) -> None:
        if tracer.told <= tracer.generation or tracer.ended:
            return
        rows = [
            (w, tracer.first.get(w, n), n, tuple(tracer.overwritten.get(w, ())))
            for w, n in sorted(tracer.next_index.items())
        ]
        tracer.marks[tracer.tseq + 1] = rows  # type: ignore[attr-defined]
        tracer.cut(self.now)

    @rule(data=st.data(), doing=st.lists(st.sampled_from("rrrrccddddlasffto"), min_size=10, max_size=40))
    def works(self, data: st.DataObject, doing: list[str]) -> None:
        """What a tracer and its pipe do most of the time."""
        tracer = self._pick(data)
        self._cut(tracer)
        for step in doing:
            match step:
                case "r" if tracer.open:
                    skipped = data.draw(st.sampled_from([0, 0, 0, 2])) if tracer.end_marks else 0
                    tracer.record(self.now, data.draw(st.integers(1, 2)), data.draw(st.integers(1, 4)), skipped)
                case "c":
                    self._cut(tracer)
                case "d":
                    self._deliver(tracer, tracer.pipe[:4])
                case "l" if tracer.pipe:
                    tracer.lost.append(tracer.pipe.pop(0))
                case "a" if tracer.lost:
                    self._deliver(tracer, [tracer.lost.pop(0)])
                case "s":
                    self._tell(tracer, data.draw(st.sampled_from([STRINGS, FLUSH])))
                case "f" if data.draw(st.booleans()):
                    self.flush(False, 0)
                case "o" if _seldom(data):
                    # in the midst of it, with records in the ring
                    if self.on:
                        self._ask_to_stop()
                    if data.draw(st.booleans()):
                        self.start_request()
                case "t":
                    self.time_passes(data.draw(st.sampled_from([60 * MS, 500 * MS])))
            self.streams_are_the_oracles()

    def _tell(self, tracer: Tracer, kind: BatchType) -> None:
        if kind is STRINGS:
            tracer.make(STRINGS, self.now, b"\xa1a\xa1b", first_index=tracer.strings + 1, count=2)
            tracer.strings += 2
        else:
            tracer.make(FLUSH, self.now)

    @rule(data=st.data())
    def says_goodbye(self, data: st.DataObject) -> None:
        tracer = self._pick(data)
        if _seldom(data) and tracer.uuid in self.known:
            tracer.make(GOODBYE, self.now)
            tracer.open, tracer.ended = False, True
            self._deliver(tracer, tracer.pipe[:])

    @rule(data=st.data(), joined=st.integers(1, 6))
    def pipe_delivers(self, data: st.DataObject, joined: int) -> None:
        tracer = self._pick(data, [t for t in self.tracers if t.pipe] or None)
        self._deliver(tracer, tracer.pipe[:joined])

    @rule(data=st.data())
    def pipe_loses(self, data: st.DataObject) -> None:
        tracer = self._pick(data)
        if tracer.pipe:
            tracer.lost.append(tracer.pipe.pop(0))

    @rule(data=st.data())
    def lost_is_sent_again(self, data: st.DataObject) -> None:
        tracer = self._pick(data, [t for t in self.tracers if t.lost] or None)
        if tracer.lost:
            self._deliver(tracer, [tracer.lost.pop(data.draw(st.integers(0, len(tracer.lost) - 1)))])

    @rule(data=st.data())
    def sent_twice(self, data: st.DataObject) -> None:
        tracer = self._pick(data)
        k = self.known.get(tracer.uuid)
        if k is not None and k.seen and max(k.seen) in tracer.sent:
            self._deliver(tracer, [data.draw(st.sampled_from(sorted(n for n in k.seen if n in tracer.sent)))])

    def _deliver(self, tracer: Tracer, tseqs: list[int]) -> None:
        if not tseqs:
            return
        tracer.pipe = [t for t in tracer.pipe if t not in tseqs]
        for t in tseqs:
            self._take(tracer.sent[t])
        self._acks(all_=False)
        self.give(FrameReceived(b"".join(raw(tracer.sent[t]) for t in tseqs)))

    @rule(data=st.data(), how=st.sampled_from(["uuid", "nonce", "incarnation", "bytes"]))
    def forged(self, data: st.DataObject, how: str) -> None:
        tracer = self._pick(data)
        header = Header(
            RECORDS,
            b"x" * 16 if how == "uuid" else tracer.uuid,
            9 if how == "incarnation" else tracer.incarnation,
            5 if how == "nonce" else tracer.nonce,
            tracer.generation, 10**6, count=2, body_size=4,
        )  # fmt: skip
        before = self.machine.status(self.now).rejected_frames
        if how == "bytes":
            self.give(FrameReceived(b"no batch at all"))
        else:
            if tracer.uuid in self.known or how == "uuid":
                self._take((header, b"abcd"))
            self.give(FrameReceived(raw((header, b"abcd"))))
        assert self.machine.status(self.now).rejected_frames == before + 1

    @rule(
        data=st.data(),
        how=st.sampled_from(
            ["cut short", "not asked", "opened twice", "again", "behind mark", "bad mark", "backwards"]
        ),
    )
    def contradicts_itself(self, data: st.DataObject, how: str) -> None:
        tracer = self._pick(data)
        k = self.known.get(tracer.uuid)
        if k is None or k.state != "live" or not self.on or not _seldom(data):
            return
        g, tseq = k.opened, max(k.seen, default=0) + 1
        part = k.parts.get(g, {})
        kinds = [h.type for h, _ in part.values()]
        batches = [h for h, _ in part.values() if h.type is RECORDS]
        if how not in ("cut short", "not asked") and (not part or k.goodbye or g < k.record_from):
            return
        header = Header(OPEN, k.uuid, k.incarnation, k.nonce, g, tseq, last_ns=self.now, base_ns=self.now)
        body, tail = b"", b""
        if how == "cut short":
            header = Header(FLUSH, k.uuid, k.incarnation, k.nonce, g, tseq)
            tail = b"fz"
        elif how == "not asked":
            header = Header(OPEN, k.uuid, k.incarnation, k.nonce, k.asked + 1, tseq)
        elif how == "opened twice" and OPEN in kinds:
            pass
        elif how in ("again", "backwards") and batches:
            old = batches[-1]
            start = old.first_index if how == "again" else max(old.first_index - 1, 0)
            header = Header(RECORDS, k.uuid, k.incarnation, k.nonce, g, tseq, old.writer, first_index=start, count=1)
            body = b"abc"
        elif how == "behind mark" and END in kinds:
            header = Header(RECORDS, k.uuid, k.incarnation, k.nonce, g, tseq, 9, count=1)
            body = b"abc"
        elif how == "bad mark" and END not in kinds:
            header = Header(END, k.uuid, k.incarnation, k.nonce, g, tseq)
            body = b"\xc1"
        else:
            return
        # it sends the nonce: its welcome has come
        tracer.proof = tracer.nonce
        stops = [t for t in self.stops.get(k.uuid, []) if self.now - t < 3600 * S][-3:]
        self.stops[k.uuid] = [*stops, self.now]
        back_off = (5 * S << len(stops)) if len(stops) < 3 else stops[1] + 3600 * S - self.now
        k.heard = self.now
        k.dirty = k.ack_now = False
        self._close(k, "stop")
        k.state, k.error, k.rejoin_at = "stopped", "any", self.now + back_off
        self.errors += 1
        self._say(k, Stop("any", back_off))
        self.give(FrameReceived(raw((header, body)) + tail))

    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        tracer = self._pick(data)
        k = self.known.get(tracer.uuid)
        if k is None:
            self.expected.append(SendLink(tracer.peer, RecorderHeartbeat(BOOT, 0)))
        elif k.state == "stopped":
            self._say(k, Stop("any", max(k.rejoin_at - self.now, 1)))
        else:
            k.heard = self.now
            if k.state == "silent" and k.died is None:
                k.state = "live"
                self._advance(k)
        self.give(LinkReceived(tracer.peer, TracerHeartbeat(tracer.generation, tracer.tseq)))

    @rule()
    def ping(self) -> None:
        self.expected.append(SendLink(b"whoever", Pong(3, self.now)))
        self.give(LinkReceived(b"whoever", Ping(3)))

    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        tracer = self._pick(data)
        k = self.known.get(tracer.uuid)
        if not _seldom(data):
            return
        if k is not None and k.state in ("live", "silent") and k.died is None:
            k.died = self.now
        self.give(TracerDied(tracer.uuid))

    @rule(passed=st.sampled_from([1 * MS, 60 * MS, 250 * MS, 1 * S, 1 * S, 3 * S]))
    def time_passes(self, passed: int) -> None:
        self.now += passed
        for k in self._live():
            if k.died is None and self.now - k.heard >= 5 * S:
                k.state = "silent"
        for k in self.known.values():
            if k.died is not None and k.state in ("live", "silent") and self.now - k.died >= 100 * MS:
                self._close(k, "death")
                k.state = "dead"
        if self.now >= self.next_advance:
            self.next_advance = self.now + S
            for k in self._live():
                self._advance_if_settled(k)
        if self.now >= self.next_heartbeat:
            self.next_heartbeat = self.now + 250 * MS
            for k in self._live():
                self._say(k, RecorderHeartbeat(BOOT, k.asked))
        self._acks(all_=True)
        for k in [*self.known.values(), *self.old]:
            waits = k.state == "silent" or (k.state == "stopped" and self.now < k.rejoin_at)
            if k.state != "live" and not k.sealed and not waits:
                if self.known.get(k.uuid) is k:
                    del self.known[k.uuid]
                else:
                    self.old.remove(k)
        self.give(Tick())

    # --- control

    def _id(self) -> int:
        self.ids += 1
        return self.ids

    def _refused(self, id_: int, code: str) -> None:
        self.expected.append(SendReply(CONTROL, ErrorReply(id_, code, "any")))

    @rule(double=st.booleans(), timeout=st.sampled_from([0, 500 * MS]))
    def flush(self, double: bool, timeout: int) -> None:
        id_ = self._id()
        if not self.on or self.stopping is not None:
            self._refused(id_, "state")
        else:
            self._begin_flush(id_, timeout, double)
        self.give(RequestReceived(CONTROL, FlushRequest(id_, timeout, double)))

    @rule(share=st.booleans())
    def wants_snapshot(self, share: bool) -> None:
        id_ = self._id()
        client = SnapshotClient(CONTROL, id_, 4)
        if not self.on or self.stopping is not None:
            self._refused(id_, "state")
        elif self.snapshot is None:
            self.snapshot = {"number": self.__dict__.get("made", 0) + 1, "clients": [client], "writing": False}
            self.made = self.snapshot["number"]
            self._begin_flush(None, 0, False)
        elif not share:
            self._refused(id_, "snapshot_active")
        else:
            self.snapshot["clients"].append(client)
            if self.snapshot["writing"]:
                self.expected.append(ShareSnapshot(self.snapshot["number"], client))
        self.give(RequestReceived(CONTROL, SnapshotRequest(id_, share=share)))

    @precondition(lambda self: self.snapshot is not None and self.snapshot["writing"])
    @rule(good=st.booleans())
    def snapshot_ends(self, good: bool) -> None:
        assert self.snapshot is not None
        number, self.snapshot = self.snapshot["number"], None
        self.snapshots += good
        self.errors += not good
        if self.stopping is not None:
            self._switch_off(self.stopping)
            self.stopping = None
        self.give(SnapshotFinished(number, 10, "" if good else "disk full"))

    def _switch_off(self, id_: int) -> None:
        for flush in self.flushes:
            self._refused(flush["id"], "state")
        self.flushes = []
        for k in [*self.known.values(), *self.old]:
            self._close(k, "stop")
            counts = k.by_writer()
            for of_writer in counts.values():
                of_writer["evicted"] += of_writer.pop("held", 0)
            k.before, k.place, k.ends, k.sealed, k.record_from = counts, {}, {}, [], 1 << 70
            k.from_birth = False
        self.on = False
        if self.errors:
            self._refused(id_, "recording")
        else:
            self.expected.append(SendReply(CONTROL, OkReply(id_)))
        self.errors = 0

    @rule(data=st.data())
    def stop_request(self, data: st.DataObject) -> None:
        if _seldom(data):
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        id_ = self._id()
        if not self.on or self.stopping is not None:
            self._refused(id_, "state")
        elif self.snapshot is not None:
            self.stopping = id_
        else:
            self._switch_off(id_)
        self.give(RequestReceived(CONTROL, StopRequest(id_)))

    @rule()
    def start_request(self) -> None:
        id_ = self._id()
        if self.on:
            self._refused(id_, "state")
        else:
            self.on = True
            for k in [*self.known.values(), *self.old]:
                if k.state == "live":
                    self._advance(k)
                else:
                    k.asked += 1
                k.record_from = k.asked
            self.expected.append(SendReply(CONTROL, OkReply(id_)))
        self.give(RequestReceived(CONTROL, StartRequest(id_)))


def _counts(row: WriterLedger) -> Counter[str]:
    return +Counter({name: getattr(row, name) for name in PLACES})


def _seldom(data: st.DataObject) -> bool:
    return data.draw(st.integers(0, 5)) == 3


def _plain(instruction: Any) -> Any:
    """Without the words of a message, which are for people."""
    message = getattr(instruction, "message", None)
    match message:
        case Reject():
            return (instruction.peer, "reject")
        case Stop():
            return (instruction.peer, "stop", message.rejoin_ns)
        case ErrorReply():
            return (instruction.peer, "error", message.id, message.code)
    return instruction


# a failure shrinks for minutes before it is shown
@pytest.mark.timeout(600)
def test_recorder_any_history_is_the_oracles() -> None:
    run_state_machine_as_test(RecorderModel)
