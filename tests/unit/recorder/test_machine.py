"""Single cases, one behaviour each; whole histories are in tests/model."""

from __future__ import annotations

import dataclasses
import struct
from itertools import count

import pytest

from frzmq.config import RecorderConfig
from frzmq.recorder.ends import DEATH_GRACE_NS
from frzmq.recorder.events import (
    Answer,
    ForgetTracer,
    FrameReceived,
    Input,
    Instruction,
    KeyRevoked,
    LinkGarbage,
    LinkReceived,
    ReadTail,
    RequestGarbage,
    RequestReceived,
    Seal,
    SealedGeneration,
    SendLink,
    SendReply,
    SnapshotFinished,
    State,
    TailRead,
    Tick,
    TracerDied,
    Unwatched,
    WatchTracer,
    WriteSnapshot,
)
from frzmq.recorder.incidents import COALESCE_NS
from frzmq.recorder.joining import MAX_TRACERS
from frzmq.recorder.machine import ACK_EVERY_BYTES, RecorderMachine
from frzmq.recorder.tail import Run, Tail
from frzmq.wire.batch import BatchType, EndMark, Header, WriterEnd, decode_end_mark, encode_batch, encode_end_mark
from frzmq.wire.chunk import FileHeader, layout_for
from frzmq.wire.ledger import Ledger, WriterLedger
from frzmq.wire.messages import (
    MAX_GAPS,
    Ack,
    Advance,
    ErrorReply,
    FlushReply,
    FlushRequest,
    Hello,
    OkReply,
    RecorderHeartbeat,
    Reject,
    SnapshotRequest,
    StartRequest,
    StatusReply,
    StatusRequest,
    Stop,
    StopRequest,
    TracerHeartbeat,
    Welcome,
    decode_message,
    encode_message,
)

MS, S = 10**6, 10**9
BOOT = b"b" * 16
RECORD = b"\x05\x01\xa0\xc0"
"""An event without a name, 1 ns after the one before."""
CONFIG = RecorderConfig(
    min_age_ns=60 * S,
    max_bytes=1 << 20,
    max_generation_bytes=100 << 10,
    advance_every_ns=S,
    heartbeat_ns=S // 4,
    silence_ns=5 * S,
    flush_timeout_ns=2 * S,
    mode="service",
)


class Bench:
    """A machine, its clock, and the tracers that talk to it."""

    def __init__(self, config: RecorderConfig = CONFIG) -> None:
        self.now = 1000 * S
        numbers = count(1)
        self.machine = RecorderMachine(
            config, BOOT, lambda: next(numbers) * 100, self.now, pid=5, version="v", machine="here"
        )

    def give(self, event: Input) -> list[Instruction]:
        return self.machine.handle(event, self.now)

    def tick(self, passed_ns: int) -> list[Instruction]:
        self.now += passed_ns
        return self.give(Tick())

    def ask(
        self, request: StartRequest | StopRequest | FlushRequest | SnapshotRequest | StatusRequest
    ) -> list[Instruction]:
        return self.give(RequestReceived(b"c", request))

    def sealed(self, at: int = 0) -> tuple[SealedGeneration, ...]:
        return self.machine.telling.view(self.now, 0).streams[at].sealed


class Peer:
    def __init__(self, bench: Bench, name: bytes = b"p", **hello: object) -> None:
        self.bench, self.name, self.generation, self.tseq = bench, name, 0, 0
        fields: dict[str, object] = {"generation": 0, "lock": True, "machine": "here", **hello}
        self.hello = Hello(name * 16, 1, 1, 1, 42, "svc", **fields)  # type: ignore[arg-type]
        self.joined = bench.give(LinkReceived(name, self.hello))
        self.nonce = next(
            i.message.nonce for i in self.joined if isinstance(i, SendLink) and isinstance(i.message, Welcome)
        )

    def batch(self, kind: BatchType, body: bytes = b"", **fields: int) -> bytes:
        self.tseq += 1
        now = self.bench.now
        values = {"generation": self.generation, "tseq": self.tseq, "base_ns": now, "last_ns": now, **fields}
        return encode_batch(Header(kind, self.hello.uuid, self.hello.incarnation, self.nonce, **values), body)

    def send(self, kind: BatchType, body: bytes = b"", **fields: int) -> list[Instruction]:
        return self.bench.give(FrameReceived(self.batch(kind, body, **fields)))

    def open(self, generation: int) -> list[Instruction]:
        self.generation = generation
        return self.send(BatchType.OPEN, b"opening")

    def records(self, first: int, number: int, size_bytes: int = 0) -> list[Instruction]:
        return self.send(
            BatchType.RECORDS, b"r" * max(size_bytes, 2 * number), writer=1, first_index=first, count=number
        )

    def end(self, batches: int, first: int, next_: int, *overwritten: tuple[int, int]) -> list[Instruction]:
        return self.send(
            BatchType.END, encode_end_mark(EndMark((WriterEnd(1, first, next_, 0, overwritten),))), count=batches
        )

    def say(self, message: object) -> SendLink:
        return SendLink(self.name, message)  # type: ignore[arg-type]


def test_machine_hello_is_welcomed_and_watched() -> None:
    peer = Peer(Bench())
    assert peer.joined == [WatchTracer(b"p" * 16), peer.say(Welcome(BOOT, 100, 1, 1, S // 4, 5 * S))]


def test_machine_hello_with_another_key_than_its_tracer_came_with_is_rejected() -> None:
    bench = Bench()
    hello = Hello(b"p" * 16, 1, 1, 1, 42, "svc", 0)
    bench.give(LinkReceived(b"p", hello, "checkout"))
    for incarnation in (1, 2):
        stolen = dataclasses.replace(hello, incarnation=incarnation)
        assert bench.give(LinkReceived(b"q", stolen, "other")) == [
            SendLink(b"q", Reject("hello: wanted the key that tracer 70707070 came with, got 'other'"))
        ]
    assert bench.give(LinkReceived(b"r", hello, "checkout")) == [
        SendLink(b"r", Welcome(BOOT, 100, 1, 1, S // 4, 5 * S))
    ]


def test_machine_message_with_another_key_is_not_its_tracers() -> None:
    """A connection may have the routing id that another had before it."""
    bench = Bench()
    bench.give(LinkReceived(b"p", Hello(b"p" * 16, 1, 1, 1, 42, "svc", 0, lock=True), "checkout"))
    bench.now += 4 * S
    assert bench.give(LinkReceived(b"p", TracerHeartbeat(1, 1), "other")) == [
        SendLink(b"p", RecorderHeartbeat(BOOT, 0))
    ]
    bench.tick(2 * S)
    assert [tracer.state for tracer in bench.machine.status(bench.now).tracers] == ["silent"]


def test_machine_tracers_of_a_revoked_key_are_stopped_and_the_others_are_not() -> None:
    bench = Bench()
    for name, key in ((b"p", "checkout"), (b"q", "checkout"), (b"r", "stock")):
        bench.give(LinkReceived(name, Hello(name * 16, 1, 1, 1, 42, "svc", 0), key))
    said = bench.give(KeyRevoked("checkout"))
    assert [(i.peer, i.message.reason) for i in said if isinstance(i, SendLink) and isinstance(i.message, Stop)] == [
        (b"p", "its key 'checkout' was revoked"),
        (b"q", "its key 'checkout' was revoked"),
    ]
    assert sorted(tracer.state for tracer in bench.machine.status(bench.now).tracers) == ["live", "stopped", "stopped"]


def test_machine_hello_of_another_wire_version_is_rejected() -> None:
    bench = Bench()
    (said,) = bench.give(LinkReceived(b"p", Hello(b"u" * 16, 1, 7, 9, 42, "svc", 0)))
    assert isinstance(said, SendLink)
    assert said.message == Reject("no common wire version: wanted one of 1..1, the peer speaks 7..9")


def rejected(said: list[Instruction]) -> list[str]:
    return [i.message.reason for i in said if isinstance(i, SendLink) and isinstance(i.message, Reject)]


@pytest.mark.parametrize("incarnation", [1, 2, (1 << 32) - 1])
@pytest.mark.parametrize("ended", ["live", "silent", "stopped", "gone"])
def test_machine_hello_of_a_known_uuid_from_a_stranger_takes_nothing_over(incarnation: int, ended: str) -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.give(FrameReceived(peer.batch(BatchType.OPEN, b"opening", generation=1)))
    match ended:
        case "silent":
            bench.tick(60 * S)
        case "stopped":
            bench.give(FrameReceived(peer.batch(BatchType.FLUSH, generation=1) + b"tail"))
            bench.now += 3600 * S
        case "gone":
            bench.give(FrameReceived(peer.batch(BatchType.GOODBYE, generation=1)))
        case _:
            pass
    for nonce in (0, peer.nonce + 1):
        stranger = dataclasses.replace(peer.hello, incarnation=incarnation, nonce=nonce)
        (reason,) = rejected(bench.give(LinkReceived(b"x", stranger)))
        assert (
            reason
            == f"hello: wanted the nonce of tracer {peer.hello.uuid.hex()[:8]}, which joined on another connection"
        )
    assert bench.machine.status(bench.now).rejected_frames == 2
    (status,) = bench.machine.status(bench.now).tracers
    assert status.state == ended
    again = bench.give(LinkReceived(b"q", dataclasses.replace(peer.hello, nonce=peer.nonce)))
    assert rejected(again) == []
    assert {i.peer for i in again if isinstance(i, SendLink)} == {b"q"}


def test_machine_hello_whose_welcome_was_lost_is_welcomed_on_the_next_connection() -> None:
    bench = Bench()
    peer = Peer(bench, nonce=77)  # of the recorder before this one
    for connection in (b"2", b"3"):
        assert rejected(bench.give(LinkReceived(connection, peer.hello))) == []
    assert len(rejected(bench.give(LinkReceived(b"x", dataclasses.replace(peer.hello, nonce=78))))) == 1
    bench.give(FrameReceived(peer.batch(BatchType.OPEN, b"opening", generation=1)))
    # it has the welcome: from now on that counts
    assert len(rejected(bench.give(LinkReceived(b"4", peer.hello)))) == 1
    assert rejected(bench.give(LinkReceived(b"4", dataclasses.replace(peer.hello, nonce=peer.nonce)))) == []


def test_machine_hello_with_a_generation_near_the_end_is_rejected() -> None:
    (said,) = Bench().give(LinkReceived(b"p", Hello(b"u" * 16, 1, 1, 1, 42, "svc", (1 << 64) - 1)))
    assert isinstance(said, SendLink) and isinstance(said.message, Reject)


def test_machine_generation_with_all_its_batches_is_sealed_by_its_mark() -> None:
    bench = Bench()
    peer = Peer(bench)
    opening = peer.batch(BatchType.OPEN, b"opening", generation=1)
    records = peer.batch(BatchType.RECORDS, b"abcd", generation=1, writer=1, count=2)
    mark = encode_end_mark(EndMark((WriterEnd(1, 0, 2),)))
    end = peer.batch(BatchType.END, mark, generation=1, count=1)
    assert bench.give(FrameReceived(opening + records + end)) == [peer.say(Ack(BOOT, 3))]
    assert bench.sealed() == (
        SealedGeneration(
            1,
            True,
            Seal.END_MARK,
            bench.now,
            bench.now,
            2,
            1,
            (opening + records,),
            mark,
            counted=struct.pack("<QQ", 1, 2),
        ),
    )


def test_machine_generation_whose_opening_is_lost_is_not_complete() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.generation, peer.tseq = 1, 1
    peer.records(0, 2)
    peer.end(1, 0, 2)
    assert bench.sealed() == ()
    peer.tseq, end = 0, peer.tseq
    peer.open(1)
    peer.tseq = end
    assert [(g.seal, g.complete) for g in bench.sealed()] == [(Seal.END_MARK, True)]


def test_machine_mark_that_counts_more_than_was_sent_stops_its_tracer_alone() -> None:
    bench = Bench()
    one, two = Peer(bench), Peer(bench, b"q")
    one.open(1)
    two.open(1)
    said = one.end(3, 0, 0)
    assert said[0] == ForgetTracer(b"p" * 16)
    assert isinstance(said[1], SendLink) and isinstance(said[1].message, Stop)
    assert said[1].message.rejoin_ns == 5 * S
    assert "wanted 3 batches" in said[1].message.reason
    status = bench.machine.status(bench.now)
    assert [(t.state, bool(t.error)) for t in status.tracers] == [("live", False), ("stopped", True)]
    assert status.errors == (f"svc[42]: {said[1].message.reason}",)
    assert two.end(0, 0, 0) == [two.say(Ack(BOOT, 2))]
    assert [g.seal for g in bench.sealed(0)] == [Seal.STOP]


def test_machine_embedded_stop_is_for_good() -> None:
    bench = Bench(dataclasses.replace(CONFIG, mode="embedded"))
    peer = Peer(bench)
    said = bench.give(FrameReceived(peer.batch(BatchType.FLUSH) + b"tail"))
    assert isinstance(said[1], SendLink) and isinstance(said[1].message, Stop)
    assert said[1].message.rejoin_ns == 0


def test_machine_stopped_tracer_rejoins_three_times_an_hour() -> None:
    bench = Bench()
    waits, rejoins = [], []
    for incarnation in range(1, 7):
        hello = Hello(b"u" * 16, incarnation, 1, 1, 42, "svc", 0)
        said = bench.give(LinkReceived(b"p", hello))
        welcome = said[-1].message  # type: ignore[union-attr]
        assert isinstance(welcome, Welcome)
        rejoins.append(bench.now)
        header = Header(BatchType.FLUSH, b"u" * 16, incarnation, welcome.nonce, 1, 1)
        (stop,) = bench.give(FrameReceived(encode_batch(header) + b"tail"))
        waits.append(stop.message.rejoin_ns)  # type: ignore[union-attr]
        early = bench.give(LinkReceived(b"p", dataclasses.replace(hello, incarnation=incarnation + 1)))
        assert early == [SendLink(b"p", stop.message)]  # type: ignore[union-attr, arg-type]
        bench.now += waits[-1]
    assert waits[:3] == [5 * S, 10 * S, 20 * S]
    assert all(sum(other - 3600 * S < at <= other for at in rejoins[1:]) <= 3 for other in rejoins)


def test_machine_overwritten_and_missing_are_told_apart() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    peer.records(2, 3)
    peer.tseq += 1
    peer.end(2, 0, 10, (0, 2), (7, 8))
    bench.tick(S)
    peer.open(2)
    ledger = bench.machine.telling.view(bench.now, 0).streams[0].ledger
    assert (ledger.recorded, ledger.open) == (3, 3)
    bench.tick(S)
    peer.open(3)
    ledger = bench.machine.telling.view(bench.now, 0).streams[0].ledger
    assert (ledger.recorded, ledger.held, ledger.overwritten, ledger.missing) == (10, 3, 3, 4)
    assert [(g.complete, g.lost) for g in bench.sealed()] == [(False, 7), (True, 0)]


def test_machine_big_generation_makes_it_advance_early_but_not_oftener_than_100_ms() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    assert peer.records(0, 1, 101 << 10) == []
    assert bench.machine.deadline_ns() == bench.now + 50 * MS
    assert bench.tick(50 * MS) == [peer.say(Ack(BOOT, 2))]
    assert bench.machine.deadline_ns() == bench.now + 50 * MS
    assert bench.tick(50 * MS) == [peer.say(Advance(2))]
    assert bench.tick(50 * MS) == []


def test_machine_acknowledges_each_256_kib_and_else_at_a_tick() -> None:
    bench = Bench(dataclasses.replace(CONFIG, max_bytes=64 << 20, max_generation_bytes=16 << 20))
    peer = Peer(bench)
    peer.open(1)
    assert peer.records(0, 1, 128 << 10) == []
    assert peer.records(1, 1, ACK_EVERY_BYTES // 2) == [peer.say(Ack(BOOT, 3))]
    assert peer.records(2, 1) == []
    assert bench.tick(50 * MS) == [peer.say(Ack(BOOT, 4))]


def test_machine_memory_stays_below_the_cap_when_a_tracer_never_advances() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    for n in range(40):
        peer.records(n, 1, 100 << 10)
        assert bench.machine.status(bench.now).held_bytes <= CONFIG.max_bytes + 2 * CONFIG.max_generation_bytes
    stream = bench.machine.telling.view(bench.now, 0).streams[0]
    assert (stream.ledger.recorded, stream.ledger.held, stream.state) == (40, 0, State.LIVE)
    assert stream.ledger.evicted + stream.ledger.late + stream.ledger.open == 40
    assert any("past the cap" in error for error in bench.machine.status(bench.now).errors)


def test_machine_horizon_is_behind_what_came_late_of_a_generation_that_grew_past_the_cap() -> None:
    bench = Bench(dataclasses.replace(CONFIG, max_bytes=0, max_generation_bytes=1 << 10))
    peer = Peer(bench)
    peer.open(1)
    for n in range(4):
        peer.records(n, 1, 1 << 10)
        bench.tick(MS)
    before = bench.machine.telling.view(bench.now, 0)
    peer.records(4, 1, 1 << 10)
    after = bench.machine.telling.view(bench.now, 0)
    (generation,) = bench.sealed()
    assert (generation.seal, generation.complete) == (Seal.OVERFLOW, False)
    assert after.streams[0].ledger.late == before.streams[0].ledger.late + 1
    assert after.horizon_ns == after.streams[0].horizon_ns == bench.now > before.horizon_ns


def test_machine_gaps_are_bounded_and_the_oldest_given_up() -> None:
    bench = Bench()
    peer = Peer(bench)
    for _ in range(MAX_GAPS + 50):
        peer.tseq += 1
        said = peer.send(BatchType.FLUSH)
    (ack,) = said
    assert isinstance(ack, SendLink) and isinstance(ack.message, Ack)
    assert ack.message.stored_through == peer.tseq
    assert len(ack.message.gaps) <= MAX_GAPS
    assert decode_message(encode_message(ack.message)) == ack.message


@pytest.mark.parametrize("lock", [True, False])
def test_machine_silent_tracer_goes_on_where_it_was(lock: bool) -> None:
    bench = Bench()
    peer = Peer(bench, lock=lock)
    peer.open(1)
    peer.records(0, 2)
    bench.tick(5 * S)
    bench.tick(55 * S)
    assert bench.machine.status(bench.now).tracers[0].state == "silent"
    assert bench.sealed() == ()
    assert bench.give(LinkReceived(b"p", TracerHeartbeat(1, 2))) == [peer.say(Advance(2))]
    assert bench.machine.status(bench.now).tracers[0].state == "live"
    # what it had recorded before it was suspended, and not sent
    peer.records(2, 3)
    peer.end(2, 0, 5)
    assert [(g.seal, g.complete, g.records, g.lost) for g in bench.sealed()] == [(Seal.END_MARK, True, 5, 0)]
    assert bench.machine.status(bench.now).tracers[0].late == 0


def test_machine_silent_tracer_without_a_lock_is_forgotten_once_all_of_it_is_too_old() -> None:
    bench = Bench()
    held, unknown = Peer(bench, b"h"), Peer(bench, b"u", lock=False)
    for peer in (held, unknown):
        peer.open(1)
        peer.records(0, 2)
    bench.tick(5 * S)
    bench.tick(60 * S - 1)
    assert [t.open for t in bench.machine.status(bench.now).tracers] == [2, 2]
    bench.tick(1)
    assert [t.uuid for t in bench.machine.status(bench.now).tracers] == [held.hello.uuid]


def test_machine_snapshot_has_what_is_open_of_a_silent_tracer_and_names_it() -> None:
    bench = Bench()
    peer = Peer(bench, lock=False)
    peer.open(1)
    peer.records(0, 2)
    bench.tick(5 * S)
    (write,) = bench.ask(SnapshotRequest(1))
    assert isinstance(write, WriteSnapshot)
    assert write.missing == ("svc[42]",)
    (stream,) = write.view.streams
    assert (stream.state, stream.answer) == (State.SILENT, Answer.MISSING)
    assert [(g.seal, g.complete, g.records) for g in stream.sealed] == [(Seal.STUCK, False, 2)]
    assert bench.machine.status(bench.now).tracers[0].open == 2


def test_machine_frames_of_a_dead_tracer_under_way_are_taken() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    bench.give(TracerDied(b"p" * 16))
    peer.records(0, 2)
    assert bench.tick(100 * MS)[0] == ForgetTracer(b"p" * 16)
    assert [(g.seal, g.complete, g.records) for g in bench.sealed()] == [(Seal.DEATH, False, 2)]


def test_machine_records_that_come_while_the_buffer_is_read_are_there_once() -> None:
    bench = Bench()
    peer = Peer(bench, shared=True)
    peer.open(1)
    under_way = peer.batch(BatchType.RECORDS, RECORD * 2, writer=1, first_index=0, count=2)
    bench.give(TracerDied(b"p" * 16))
    asked = bench.tick(DEATH_GRACE_NS)
    assert any(isinstance(instruction, ReadTail) for instruction in asked)
    bench.give(FrameReceived(under_way))
    header = FileHeader(42, b"p" * 16, 1, layout_for(256 << 10), 1, 1, 1)
    run = Run(1, 1, 0, 3, bench.now, bench.now + 3, RECORD * 3)
    bench.give(TailRead(b"p" * 16, Tail(header, (), (run,), (), ())))
    (sealed,) = bench.sealed()
    assert (sealed.seal, sealed.records, sealed.batches) == (Seal.DEATH, 3, 2)
    ledger = bench.machine.telling.view(bench.now, 0).streams[0].ledger
    assert (ledger.recorded, ledger.held, ledger.balanced) == (3, 3, True)


def test_machine_tail_holds_nothing_again_that_was_there_before_the_recorder_was_off() -> None:
    bench = Bench()
    peer = Peer(bench, shared=True)
    peer.open(1)
    peer.records(0, 2)
    peer.end(1, 0, 2)
    bench.ask(StopRequest(1))
    bench.ask(StartRequest(2))
    peer.open(2)
    bench.give(TracerDied(b"p" * 16))
    asked = bench.tick(DEATH_GRACE_NS)
    [stored] = [i.stored for i in asked if isinstance(i, ReadTail)]
    assert {writer: records.ranges() for writer, records in stored.items()} == {1: [(0, 2)]}
    header = FileHeader(42, b"p" * 16, 1, layout_for(256 << 10), 1, 1, 1)
    # a writer that rested since has no cut in its chunk
    run = Run(2, 1, 0, 3, bench.now, bench.now + 3, RECORD * 3)
    bench.give(TailRead(b"p" * 16, Tail(header, (), (run,), (), ())))
    assert bench.machine.telling.view(bench.now, 0).streams[0].ledger == Ledger(3, held=1, evicted=2)


def test_machine_death_leaves_a_snapshot_that_says_how_it_ended() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    bench.give(TracerDied(b"p" * 16, "SIGSEGV"))
    assert bench.machine.busy
    bench.tick(DEATH_GRACE_NS)
    [write] = [i for i in bench.tick(COALESCE_NS) if isinstance(i, WriteSnapshot)]
    assert write.reason.startswith("death: ")
    assert write.reason.endswith(" ended by SIGSEGV")
    assert write.store is not None
    assert (write.store.service, write.store.reason) == ("svc", "death")
    assert [(s.state, s.error) for s in write.view.streams] == [(State.DEAD, "it died: SIGSEGV")]
    # nobody asked for it: nobody is told
    assert bench.give(SnapshotFinished(write.snapshot, 9, path="/s/x.frz")) == []
    assert not bench.machine.busy


@pytest.mark.parametrize(
    ("how", "config"),
    [
        ("SIGTERM", CONFIG),
        ("exit status 0", CONFIG),
        ("SIGKILL", dataclasses.replace(CONFIG, on_death=False)),
    ],
)
def test_machine_death_that_was_wished_or_is_not_asked_about_leaves_none(how: str, config: RecorderConfig) -> None:
    bench = Bench(config)
    Peer(bench).open(1)
    bench.give(TracerDied(b"p" * 16, how))
    bench.tick(DEATH_GRACE_NS)
    assert not [i for i in bench.tick(COALESCE_NS) if isinstance(i, WriteSnapshot)]
    assert [t.state for t in bench.machine.status(bench.now).tracers] == ["dead"]


def test_machine_snapshot_that_is_asked_for_while_one_of_its_own_accord_is_made_waits_for_its_turn() -> None:
    bench = Bench()
    Peer(bench).open(1)
    bench.give(TracerDied(b"p" * 16, "SIGSEGV"))
    bench.tick(DEATH_GRACE_NS)
    [own] = [i for i in bench.tick(COALESCE_NS) if isinstance(i, WriteSnapshot)]
    assert bench.ask(SnapshotRequest(7)) == []
    [asked] = [
        i for i in bench.give(SnapshotFinished(own.snapshot, 9, path="/s/x.frz")) if isinstance(i, WriteSnapshot)
    ]
    assert [client.id for client in asked.clients] == [7]


def test_machine_dead_stream_is_forgotten_once_nothing_of_it_is_held() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    bench.give(TracerDied(b"p" * 16))
    bench.tick(100 * MS)
    bench.tick(CONFIG.min_age_ns - 100 * MS)
    assert len(bench.sealed()) == 1
    bench.tick(1)
    assert bench.machine.status(bench.now).tracers == ()
    assert bench.machine.deadline_ns() is None
    assert bench.give(LinkReceived(b"p", TracerHeartbeat(1, 1))) == [peer.say(RecorderHeartbeat(BOOT, 0))]


def test_machine_flush_without_tracers_is_answered_at_once() -> None:
    assert Bench().ask(FlushRequest(3)) == [SendReply(b"c", FlushReply(3))]


def test_machine_flush_names_who_does_not_answer() -> None:
    bench = Bench()
    one, two = Peer(bench), Peer(bench, b"q")
    one.open(1)
    two.open(1)
    assert bench.ask(FlushRequest(3)) == [one.say(Advance(2)), two.say(Advance(2))]
    assert one.end(0, 0, 0)[-1] == one.say(Ack(BOOT, 2))
    bench.now += 2 * S - 1
    bench.give(LinkReceived(b"q", TracerHeartbeat(1, 1)))
    said = bench.tick(1)
    assert said[-1] == SendReply(b"c", FlushReply(3, ("svc[42]",)))


def test_machine_flush_does_not_wait_for_a_tracer_that_a_malformed_frame_stops() -> None:
    bench = Bench()
    peer = Peer(bench, end_marks=False)
    peer.open(1)
    bench.ask(FlushRequest(3))
    said = bench.give(FrameReceived(peer.batch(BatchType.FLUSH) + b"fz"))
    assert said[-1] == SendReply(b"c", FlushReply(3))


def test_machine_double_flush_needs_the_second_opening() -> None:
    bench = Bench()
    peer = Peer(bench, end_marks=False)
    peer.open(1)
    assert bench.ask(FlushRequest(3)) == [peer.say(Advance(2))]
    assert peer.open(2) == [peer.say(Advance(3))]
    assert peer.open(3) == [SendReply(b"c", FlushReply(3))]


def test_machine_flush_while_an_advance_is_under_way_waits_for_the_next() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    assert bench.ask(FlushRequest(1)) == [peer.say(Advance(2))]
    bench.now += 1
    assert bench.ask(FlushRequest(2)) == []
    assert bench.ask(FlushRequest(3)) == []
    assert peer.end(0, 0, 0) == [peer.say(Ack(BOOT, 2)), SendReply(b"c", FlushReply(1))]
    assert peer.open(2) == [peer.say(Advance(3))]
    assert peer.end(0, 0, 0) == [peer.say(Ack(BOOT, 4)), SendReply(b"c", FlushReply(2)), SendReply(b"c", FlushReply(3))]


def test_machine_flush_waits_for_a_tracer_whose_generation_was_sealed_for_want_of_memory() -> None:
    bench = Bench(dataclasses.replace(CONFIG, max_bytes=0, max_generation_bytes=1 << 10))
    peer = Peer(bench)
    peer.open(1)
    peer.records(0, 1, 4 << 10)
    assert bench.machine.telling.view(bench.now, 0).streams[0].ledger.evicted == 1
    assert bench.ask(FlushRequest(3)) == [peer.say(Advance(2))]
    assert peer.records(1, 1) == []
    assert peer.end(2, 0, 2)[-1] == SendReply(b"c", FlushReply(3))


def test_machine_flush_waits_for_a_tracer_that_goes_on_after_a_silence() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    bench.tick(5 * S)
    assert bench.give(LinkReceived(b"p", TracerHeartbeat(1, 1))) == [peer.say(Advance(2))]
    assert bench.ask(FlushRequest(3)) == []
    assert peer.records(0, 1) == []
    assert peer.end(1, 0, 1)[-1] == SendReply(b"c", FlushReply(3))
    ledger = bench.machine.telling.view(bench.now, 0).streams[0].ledger
    assert (ledger.held, ledger.late) == (1, 0)


def test_machine_snapshot_takes_only_what_reaches_into_the_last_seconds() -> None:
    bench = Bench()
    peer = Peer(bench)
    for generation in (1, 2, 3):
        peer.open(generation)
        bench.now += S
        peer.end(0, 0, 0)
        bench.tick(0)
    peer.open(4)
    bench.ask(SnapshotRequest(1, reason="slow", last_ns=S))
    (written,) = [i for i in peer.end(0, 0, 0) if isinstance(i, WriteSnapshot)]
    assert (written.reason, written.missing) == ("slow", ())
    assert [g.generation for g in written.view.streams[0].sealed] == [2, 3, 4]


def test_machine_view_does_not_change_afterwards() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    peer.end(0, 0, 0)
    view = bench.machine.telling.view(bench.now, 0)
    bench.tick(S)
    peer.open(2)
    peer.end(0, 0, 0)
    peer.send(BatchType.STRINGS, b"\xa1a", first_index=1, count=1)
    assert (len(view.streams[0].sealed), view.streams[0].strings) == (1, ())


@pytest.mark.parametrize("request_", [StopRequest(1), FlushRequest(1), SnapshotRequest(1)])
def test_machine_request_while_off_is_a_state_error(request_: StopRequest | FlushRequest | SnapshotRequest) -> None:
    bench = Bench()
    assert bench.ask(StopRequest(0)) == [SendReply(b"c", OkReply(0))]
    (said,) = bench.ask(request_)
    assert isinstance(said, SendReply) and isinstance(said.message, ErrorReply)
    assert (said.message.id, said.message.code) == (1, "state")


def test_machine_off_discards_and_start_begins_anew() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    peer.records(0, 2)
    bench.ask(StopRequest(0))
    peer.records(2, 2)
    peer.send(BatchType.STRINGS, b"\xa1a", first_index=1, count=1)
    assert bench.ask(StartRequest(1)) == [peer.say(Advance(2)), SendReply(b"c", OkReply(1))]
    peer.records(4, 1)
    peer.end(3, 0, 5)
    peer.open(2)
    peer.records(5, 1)
    peer.end(1, 5, 6)
    stream = bench.machine.telling.view(bench.now, 0).streams[0]
    assert [(g.generation, g.records) for g in stream.sealed] == [(2, 1)]
    ledger = stream.ledger
    assert (ledger.recorded, ledger.held, ledger.evicted, ledger.late, ledger.missing) == (3, 1, 2, 0, 0)
    assert len(stream.strings) == 1


def test_machine_stop_returns_the_first_error() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.give(FrameReceived(peer.batch(BatchType.FLUSH) + b"tail"))
    (said,) = bench.ask(StopRequest(4))
    assert isinstance(said, SendReply) and isinstance(said.message, ErrorReply)
    assert said.message.message.startswith("svc[42]: batch header: wanted 96 bytes")


def test_machine_garbage_is_counted_and_answered() -> None:
    bench = Bench()
    assert bench.give(LinkGarbage(b"x", "no map")) == [SendLink(b"x", Reject("no map"))]
    assert bench.give(FrameReceived(b"")) == []
    (said,) = bench.give(RequestGarbage(b"c", "no map"))
    assert isinstance(said, SendReply) and isinstance(said.message, ErrorReply)
    assert bench.machine.status(bench.now).rejected_frames == 2


def test_machine_many_tracers_are_bounded_and_their_status_fits_a_message() -> None:
    bench = Bench()
    for n in range(MAX_TRACERS):
        bench.give(LinkReceived(b"%d" % n, Hello(n.to_bytes(16, "big"), 1, 1, 1, 42, "s" * 256, 0, host="h" * 256)))
    (said,) = bench.give(LinkReceived(b"p", Hello(b"u" * 16, 1, 1, 1, 42, "svc", 0)))
    assert isinstance(said, SendLink) and isinstance(said.message, Reject)
    (reply,) = bench.ask(StatusRequest(9))
    assert isinstance(reply, SendReply) and isinstance(reply.message, StatusReply)
    assert decode_message(encode_message(reply.message)) == reply.message
    assert reply.message.status.errors[0].endswith("more tracers than a reply can hold")


def test_machine_tracers_that_only_say_hello_do_not_keep_others_out() -> None:
    bench = Bench()
    honest = Peer(bench)
    bench.give(FrameReceived(honest.batch(BatchType.OPEN, b"opening", generation=1)))
    for n in range(MAX_TRACERS - 1):
        bench.give(LinkReceived(b"%d" % n, Hello(n.to_bytes(16, "big"), 1, 1, 1, 42, "svc", 0, lock=True)))
    late = Hello(b"u" * 16, 1, 1, 1, 42, "svc", 0)
    (reason,) = rejected(bench.give(LinkReceived(b"q", late)))
    assert reason == f"hello: wanted at most {MAX_TRACERS} tracers, got one more"
    bench.now += S
    assert rejected(bench.give(LinkReceived(b"q", late))) == []
    tracers = bench.machine.status(bench.now).tracers
    assert [(t.uuid, t.state) for t in tracers] == [(honest.hello.uuid, "live"), (late.uuid, "live")]


def test_machine_lock_that_is_none_does_not_keep_a_silent_tracer() -> None:
    bench = Bench()
    peers = [Peer(bench, name) for name in (b"p", b"q")]
    bench.give(Unwatched(peers[0].hello.uuid))
    bench.give(Unwatched(b"?" * 16))
    bench.tick(65 * S)
    bench.tick(S)
    assert [(t.uuid, t.state) for t in bench.machine.status(bench.now).tracers] == [(peers[1].hello.uuid, "silent")]


def test_machine_generation_without_its_opening_is_never_whole() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.generation, peer.tseq = 1, 1
    peer.records(0, 2)
    peer.end(1, 0, 2)
    bench.give(TracerDied(b"p" * 16))
    bench.tick(100 * MS)
    assert [(g.seal, g.complete) for g in bench.sealed()] == [(Seal.DEATH, False)]


def test_machine_what_a_stopped_tracer_had_under_way_is_missing_of_its_next_incarnation() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.open(1)
    peer.records(0, 5)
    lost = peer.batch(BatchType.RECORDS, b"r" * 8, writer=1, first_index=5, count=4)
    bench.give(FrameReceived(lost + b"fz"))
    assert bench.machine.status(bench.now).tracers[0].state == "stopped"
    bench.tick(10 * S)
    hello = dataclasses.replace(peer.hello, incarnation=2, generation=1)
    (welcome,) = (i for i in bench.give(LinkReceived(b"p", hello)) if isinstance(i, SendLink))
    assert isinstance(welcome.message, Welcome)
    peer.hello, peer.nonce = hello, welcome.message.nonce
    peer.open(2)
    peer.records(9, 3)
    peer.end(1, 9, 12)
    again, _ = bench.machine.status(bench.now, writers=True).tracers
    assert (again.recorded, again.missing, again.held, again.other_writers) == (7, 4, 3, 0)
    assert again.writers == (WriterLedger(7, held=3, missing=4, writer=1),)


@pytest.mark.parametrize(
    ("knows", "wanted"),
    [
        (True, WriterLedger(7, held=3, overwritten=4, writer=1)),
        (False, WriterLedger(9, held=3, overwritten=6, writer=1)),
    ],
    ids=["same recorder", "another"],
)
def test_machine_what_a_stopped_tracer_gave_up_is_counted_once_by_whoever_it_joins(
    knows: bool, wanted: WriterLedger
) -> None:
    """It does not know that two of the records that it gives up had come."""
    bench = Bench()
    peer = Peer(bench) if knows else Peer(bench, generation=1)
    if knows:
        peer.open(1)
        peer.records(0, 5)
        bench.give(FrameReceived(peer.batch(BatchType.RECORDS, b"r" * 8, writer=1, first_index=5, count=4) + b"fz"))
        bench.tick(10 * S)
        peer.hello = dataclasses.replace(peer.hello, incarnation=2, generation=1)
        (welcome,) = (i for i in bench.give(LinkReceived(b"p", peer.hello)) if isinstance(i, SendLink))
        assert isinstance(welcome.message, Welcome)
        peer.nonce = welcome.message.nonce
    peer.open(2)
    peer.records(9, 3)
    peer.end(1, 3, 12, (3, 9))
    again = bench.machine.telling.view(bench.now, 0).streams[-1]
    assert again.writers == (wanted,)
    assert again.sealed[0].lost == wanted.overwritten
    [row] = decode_end_mark(again.sealed[0].end_mark).writers
    assert (row.first_index, row.overwritten) == (9 - wanted.overwritten, ((9 - wanted.overwritten, 9),))


def test_machine_batch_that_goes_without_its_records_tells_that_they_were_made() -> None:
    """Its end mark had come to an earlier recorder, which is gone."""
    bench = Bench()
    peer = Peer(bench, generation=1)
    peer.open(1)
    peer.send(BatchType.RECORDS, writer=1, first_index=5)
    peer.open(2)
    peer.records(9, 3)
    peer.end(1, 9, 12)
    assert bench.machine.telling.view(bench.now, 0).streams[0].writers == (
        WriterLedger(7, held=3, missing=4, writer=1),
    )


def test_machine_generation_of_which_an_earlier_recorder_had_a_part_is_not_complete() -> None:
    bench = Bench()
    peer = Peer(bench, generation=1)
    # to a new recorder the strings come first, with a new tseq
    peer.send(BatchType.STRINGS, b"\xa1a", tseq=10, first_index=1, count=1)
    peer.open(1)
    peer.records(0, 1)
    # the next, and the end mark, had come to the one before
    peer.tseq += 2
    peer.open(2)
    [generation] = bench.sealed()
    assert (generation.seal, generation.complete) == (Seal.LATER_GENERATION, False)


def test_machine_status_has_the_writers_that_are_asked_for_as_far_as_a_message_holds_them() -> None:
    bench = Bench(dataclasses.replace(CONFIG, max_bytes=64 << 20, max_generation_bytes=16 << 20))
    peers = [Peer(bench, bytes([n])) for n in range(1, 21)]
    for peer in peers:
        peer.open(1)
        bench.give(
            FrameReceived(
                b"".join(
                    peer.batch(BatchType.RECORDS, b"r" * 2000, writer=writer, first_index=0, count=writer)
                    for writer in range(1, 901)
                )
            )
        )
        peer.end(900, 0, 1)
    assert all(each.writers == () for each in bench.machine.status(bench.now).tracers)
    status = bench.machine.status(bench.now, writers=True)
    assert len(encode_message(StatusReply(1, status))) < 1 << 20
    shown = [len(each.writers) for each in status.tracers]
    assert min(shown) > 300
    assert [n + each.other_writers for n, each in zip(shown, status.tracers, strict=True)] == [900] * 20
    # those with the most records
    assert status.tracers[0].writers[-1].writer == 900
