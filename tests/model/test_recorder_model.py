"""RecorderMachine against an oracle of plain dicts and sets, which predicts every reply and every generation's content.

The tracers are honest and their pipes are not: frames are lost, sent again, sent twice, joined. One action in a few is hostile; then the oracle says
who is stopped, and that nobody else is.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.recorder_oracle import END, FLUSH, GOODBYE, MS, OPEN, RECORDS, STRINGS, Known, S, Tracer, raw
from support.recorder_predicted import BOOT, CONTROL, RecorderPredicted

from frzmq.recorder.control import MAX_CLIENTS
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
)
from frzmq.wire.batch import BatchType, Header
from frzmq.wire.messages import (
    ErrorReply,
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


class RecorderModel(RecorderPredicted):
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
            tracer.incarnation + (how == "incarnation"),
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
        elif not share or len(self.snapshot["clients"]) >= MAX_CLIENTS:
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


def _seldom(data: st.DataObject) -> bool:
    return data.draw(st.integers(0, 5)) == 3


# a failure shrinks for minutes before it is shown
@pytest.mark.timeout(600)
def test_recorder_any_history_is_the_oracles() -> None:
    run_state_machine_as_test(RecorderModel)
