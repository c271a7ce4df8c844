"""What people ask of the recorder's machine: flushes, snapshots, start and stop."""

from __future__ import annotations

import dataclasses

import pytest
from support.recorder_bench import BOOT, CONFIG, Bench, Peer, S

from frzmq.recorder.ends import DEATH_GRACE_NS
from frzmq.recorder.events import (
    FrameReceived,
    LinkReceived,
    SendReply,
    SnapshotFinished,
    TracerDied,
    WriteSnapshot,
)
from frzmq.recorder.incidents import COALESCE_NS
from frzmq.wire.batch import BatchType
from frzmq.wire.messages import (
    MAX_MISSING,
    Ack,
    Advance,
    ErrorReply,
    FlushReply,
    FlushRequest,
    OkReply,
    SnapshotRequest,
    StartRequest,
    StopRequest,
    TracerHeartbeat,
)


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


def test_machine_reply_names_as_many_missing_as_it_can_hold_and_a_snapshot_all() -> None:
    bench = Bench()
    count = MAX_MISSING + 10
    for n in range(count):
        Peer(bench, n.to_bytes(16, "big")).open(1)
    bench.ask(FlushRequest(3))
    [flushed] = [i.message for i in bench.tick(2 * S) if isinstance(i, SendReply) and isinstance(i.message, FlushReply)]
    assert len(flushed.missing) == MAX_MISSING
    bench.ask(SnapshotRequest(4))
    [asked] = [i for _ in range(2) for i in bench.tick(2 * S) if isinstance(i, WriteSnapshot)]
    assert len(asked.missing) == count


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
