"""How tracers end for the recorder's machine: silent, dead, stopped, forgotten."""

from __future__ import annotations

import dataclasses

import pytest
from support.recorder_bench import BOOT, CONFIG, MS, RECORD, Bench, Peer, S

from frzmq.config import RecorderConfig
from frzmq.recorder.ends import DEATH_GRACE_NS
from frzmq.recorder.events import (
    Answer,
    ForgetTracer,
    FrameReceived,
    KeyRevoked,
    LinkReceived,
    ReadTail,
    Seal,
    SendLink,
    SnapshotFinished,
    State,
    TailRead,
    TracerDied,
    Unwatched,
    WriteSnapshot,
)
from frzmq.recorder.incidents import COALESCE_NS
from frzmq.recorder.tail import Run, Tail
from frzmq.wire.batch import BatchType, Header, decode_end_mark, encode_batch
from frzmq.wire.chunk import FileHeader, layout_for
from frzmq.wire.ledger import WriterLedger
from frzmq.wire.messages import (
    Advance,
    Hello,
    RecorderHeartbeat,
    SnapshotRequest,
    Stop,
    TracerHeartbeat,
    Welcome,
)


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


def test_machine_end_that_only_the_buffer_tells_of_is_no_death_that_leaves_a_snapshot() -> None:
    bench = Bench()
    peer = Peer(bench, shared=True)
    peer.open(1)
    bench.give(TracerDied(b"p" * 16))
    bench.tick(DEATH_GRACE_NS)
    header = FileHeader(42, b"p" * 16, 1, layout_for(256 << 10), 1, 1, 1)
    bench.give(TailRead(b"p" * 16, Tail(header, (), (), (), (), says_end=True)))
    assert [(s.state, s.error) for s in bench.machine.telling.view(bench.now, 0).streams] == [
        (State.DEAD, "it ended unheard")
    ]
    assert not bench.machine.busy
    assert [i for i in bench.tick(COALESCE_NS) if isinstance(i, WriteSnapshot)] == []


def test_machine_batches_of_a_silent_tracer_that_were_under_way_at_its_death_are_held() -> None:
    bench = Bench(dataclasses.replace(CONFIG, silence_ns=S))
    peer = Peer(bench)
    peer.open(1)
    peer.records(0, 2)
    under_way = peer.batch(BatchType.RECORDS, RECORD * 3, writer=1, first_index=2, count=3)
    bench.tick(2 * S)
    bench.give(TracerDied(b"p" * 16))
    assert [tracer.state for tracer in bench.machine.status(bench.now).tracers] == ["silent"]
    bench.give(FrameReceived(under_way))
    bench.tick(DEATH_GRACE_NS)
    ledger = bench.machine.telling.view(bench.now, 0).streams[0].ledger
    assert (ledger.recorded, ledger.held, ledger.late, ledger.missing) == (5, 5, 0, 0)


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


def test_machine_lock_that_is_none_does_not_keep_a_silent_tracer() -> None:
    bench = Bench()
    peers = [Peer(bench, name) for name in (b"p", b"q")]
    bench.give(Unwatched(peers[0].hello.uuid))
    bench.give(Unwatched(b"?" * 16))
    bench.tick(65 * S)
    bench.tick(S)
    assert [(t.uuid, t.state) for t in bench.machine.status(bench.now).tracers] == [(peers[1].hello.uuid, "silent")]


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
