"""Single cases, one behaviour each; whole histories are in tests/model."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from support.recorder_bench import BOOT, CONFIG, MS, RECORD, Bench, Peer, S

from frzmq.recorder.ends import DEATH_GRACE_NS
from frzmq.recorder.events import (
    ForgetTracer,
    FrameReceived,
    Instruction,
    LinkGarbage,
    LinkReceived,
    ReadTail,
    RequestGarbage,
    Seal,
    SealedGeneration,
    SendLink,
    SendReply,
    State,
    TailRead,
    TracerDied,
    WatchTracer,
)
from frzmq.recorder.joining import MAX_TRACERS
from frzmq.recorder.machine import ACK_DELAY_NS, ACK_SOON_BYTES, ACK_SOON_NS
from frzmq.recorder.tail import Run, Tail
from frzmq.wire.batch import BatchType, EndMark, WriterEnd, encode_end_mark
from frzmq.wire.chunk import FileHeader, layout_for
from frzmq.wire.ledger import Ledger, WriterLedger
from frzmq.wire.messages import (
    MAX_GAPS,
    Ack,
    Advance,
    ErrorReply,
    Hello,
    RecorderHeartbeat,
    Reject,
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


def test_machine_acknowledges_at_a_tick_that_comes_the_sooner_the_more_there_is() -> None:
    bench = Bench(dataclasses.replace(CONFIG, max_bytes=64 << 20, max_generation_bytes=16 << 20))
    peer = Peer(bench)
    peer.open(1)
    began = bench.now
    assert peer.records(0, 1, ACK_SOON_BYTES // 2) == []
    assert bench.machine.deadline_ns() == began + ACK_DELAY_NS
    assert peer.records(1, 1, ACK_SOON_BYTES // 2) == []
    assert bench.machine.deadline_ns() == began + ACK_SOON_NS
    assert bench.tick(ACK_SOON_NS) == [peer.say(Ack(BOOT, 3))]
    assert peer.records(2, 1) == []
    assert bench.tick(ACK_DELAY_NS) == [peer.say(Ack(BOOT, 4))]


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


def test_machine_generation_without_its_opening_is_never_whole() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.generation, peer.tseq = 1, 1
    peer.records(0, 2)
    peer.end(1, 0, 2)
    bench.give(TracerDied(b"p" * 16))
    bench.tick(100 * MS)
    assert [(g.seal, g.complete) for g in bench.sealed()] == [(Seal.DEATH, False)]


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
