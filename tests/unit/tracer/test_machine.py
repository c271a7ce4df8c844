"""`TracerMachine`, one situation at a time; the model test has their combinations."""

from __future__ import annotations

import pytest

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
    ReadSlices,
    ReadStrings,
    Release,
    ResumeRecording,
    SendFrame,
    SendHello,
    SendPing,
    SlicesRead,
    Started,
    State,
    StopRecording,
    StringsRead,
    Ticked,
)
from frzmq.tracer.machine import FIRST_HELLO_NS, MAX_HELLO_NS, TracerMachine
from frzmq.tracer.slices import Slice
from frzmq.wire.batch import Batch, BatchType, Opening, WriterEnd, decode_end_mark, split_frame
from frzmq.wire.codec import pack
from frzmq.wire.kinds import KINDS
from frzmq.wire.messages import Ack, Advance, RecorderHeartbeat, Stop, Welcome

MS = 1_000_000
UUID, BOOT = b"u" * 16, b"b" * 16
STRINGS = (1, 1, pack("name"))
OPENING = Opening(1, 1, 1, KINDS)


class Bench:
    """A machine with a loop that answers: ``published`` is what the buffer has, ``reused`` chunks whose bytes are gone."""

    def __init__(self) -> None:
        self.machine = TracerMachine(UUID)
        self.now = 10**9
        self.published: list[Slice] = []
        self.reused: set[int] = set()
        self.next_index = 0
        self.cut_index = 0
        self.frames: list[bytes] = []
        self.refuses = False

    def give(self, event: Event) -> list[Instruction]:
        """All that is asked for, questions included."""
        all_: list[Instruction] = []
        answer: Event | None = event
        while answer is not None:
            instructions = self.machine.handle(answer, self.now)
            all_ += instructions
            answer = self.answer(instructions[-1]) if instructions else None
        return all_

    def answer(self, asked: Instruction) -> Event | None:
        match asked:
            case SendFrame(data):
                if self.refuses:
                    return FrameRefused()
                self.frames.append(data)
                return FrameSent()
            case Collect():
                return Collected(self.take())
            case CutTo():
                rows = (WriterEnd(1, self.cut_index, self.next_index),) if self.cut_index != self.next_index else ()
                self.cut_index = self.next_index
                return GenerationCut(self.now, self.take(), rows, OPENING, STRINGS if asked.carry else None)
            case ReadSlices(slices):
                return SlicesRead(tuple(None if s.chunk in self.reused else b"r" * s.size for s in slices))
            case ReadStrings():
                return StringsRead(STRINGS)
            case _:
                return None

    def take(self) -> tuple[Slice, ...]:
        taken, self.published = tuple(self.published), []
        return taken

    def record(self, chunk: int = 0, *, final: bool = False) -> None:
        piece = Slice(chunk, chunk + 1, 128, 4, 1, self.next_index, 2, self.now - 2, self.now, b"body", final)
        self.published.append(piece)
        self.next_index += 2

    def tick(self, ms: int = 100) -> list[Instruction]:
        self.now += ms * MS
        return self.give(Ticked())

    def join(self, generation: int = 1, boot_id: bytes = BOOT, nonce: int = 7) -> list[Instruction]:
        return self.give(LinkReceived(Welcome(boot_id, nonce, generation, 1, 1000 * MS, 5000 * MS)))

    def ack(self, through: int, *gaps: tuple[int, int], boot_id: bytes = BOOT) -> list[Instruction]:
        return self.give(LinkReceived(Ack(boot_id, through, gaps)))

    def sent(self) -> list[Batch]:
        """What was sent since the last time."""
        frames, self.frames = self.frames, []
        return [batch for frame in frames for batch in split_frame(frame)]

    def kinds(self) -> list[tuple[BatchType, int, int]]:
        """``(type, generation, tseq)`` of what was sent since the last time."""
        return [(b.header.type, b.header.generation, b.header.tseq) for b in self.sent()]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def joined() -> Bench:
    """In generation 1: strings (tseq 1) and the opening (2) are sent."""
    bench = Bench()
    bench.give(Started())
    bench.join()
    bench.give(Ticked())
    assert bench.kinds() == [(BatchType.STRINGS, 0, 1), (BatchType.OPEN, 1, 2)]
    return bench


def test_machine_greeting_backs_off(bench: Bench) -> None:
    assert bench.give(Started()) == [SendHello(1, 0)]
    waits: list[int] = []
    for _ in range(10):
        deadline_ns = bench.machine.deadline_ns()
        assert deadline_ns is not None
        waits.append(deadline_ns - bench.now)
        bench.now = deadline_ns
        assert bench.give(Ticked()) == [SendHello(1, 0)]
    assert waits == [min(FIRST_HELLO_NS << n, MAX_HELLO_NS) for n in range(10)]


def test_machine_first_generation_carries_what_was_recorded_before(bench: Bench) -> None:
    bench.give(Started())
    bench.record()
    assert bench.join()[0] == SendPing(bench.now)
    opened, records = bench.sent()[1:]
    assert (opened.header.type, records.header.type) == (BatchType.OPEN, BatchType.RECORDS)
    assert (records.header.generation, records.header.nonce, records.body) == (1, 7, b"body")
    bench.record()
    bench.give(LinkReceived(Advance(2)))
    *_, end, opened = bench.sent()
    assert (end.header.type, end.header.count, opened.header.generation) == (BatchType.END, 2, 2)
    assert decode_end_mark(end.body).writers == (WriterEnd(1, 0, 4),)


@pytest.mark.parametrize("generation", [0, 1])
def test_machine_advance_to_no_greater_generation_does_nothing(joined: Bench, generation: int) -> None:
    assert joined.give(LinkReceived(Advance(generation))) == []


def test_machine_level_heals_a_lost_advance(joined: Bench) -> None:
    joined.give(LinkReceived(RecorderHeartbeat(BOOT, 5)))
    assert joined.kinds() == [(BatchType.END, 1, 3), (BatchType.OPEN, 5, 4)]


def test_machine_final_slice_acknowledged_releases_the_chunk(joined: Bench) -> None:
    joined.record(chunk=4)
    joined.record(chunk=4, final=True)
    joined.tick()
    assert joined.ack(3) == []
    assert joined.ack(4) == [Release(4, 5)]


def test_machine_gap_is_sent_again_with_its_tseq(joined: Bench) -> None:
    joined.record(chunk=4, final=True)
    joined.tick()
    joined.record(chunk=5, final=True)
    joined.tick()
    first = joined.sent()[0]
    assert joined.ack(4, (3, 4))[0] == Release(5, 6)
    (again,) = joined.sent()
    assert (again.header, again.body) == (first.header, b"rrrr")
    # not yet proven to be lost once more
    assert joined.ack(4, (3, 4)) == []
    assert joined.ack(4) == [Release(4, 5)]


def test_machine_last_batches_that_are_lost_are_asked_for_at_the_second_heartbeat(joined: Bench) -> None:
    joined.ack(2)
    joined.give(LinkReceived(Advance(2)))
    assert joined.kinds() == [(BatchType.END, 1, 3), (BatchType.OPEN, 2, 4)]
    joined.tick(1000)
    assert joined.kinds() == []
    joined.tick(1000)
    assert joined.kinds() == [(BatchType.FLUSH, 2, 5)]
    joined.ack(5, (3, 5))
    assert joined.kinds() == [(BatchType.END, 1, 3), (BatchType.OPEN, 2, 4)]
    joined.ack(5)
    for _ in range(3):
        joined.tick(1000)
    assert joined.kinds() == []


def test_machine_gap_that_was_overwritten_is_filled_and_told(joined: Bench) -> None:
    joined.record(chunk=4)
    joined.record(chunk=5)
    joined.tick()
    joined.reused.add(4)
    joined.sent()
    joined.ack(4, (3, 4))
    (again,) = joined.sent()
    assert (again.header.tseq, again.header.count, again.body) == (3, 0, b"")
    assert again.header.last_ns == again.header.base_ns
    assert joined.machine.lost_records == 2
    joined.give(LinkReceived(Advance(2)))
    end = joined.sent()[0]
    assert end.header.count == 2
    assert decode_end_mark(end.body).writers == (WriterEnd(1, 0, 4, 0, ((0, 2),)),)


def test_machine_refused_frame_is_kept_and_sent_on_the_next_tick(joined: Bench) -> None:
    joined.refuses = True
    joined.record()
    joined.tick()
    assert (joined.machine.wants_room, joined.frames) == (True, [])
    joined.refuses = False
    joined.tick(1)
    assert joined.kinds() == [(BatchType.RECORDS, 1, 3)]
    assert not joined.machine.wants_room


def test_machine_flush_completes_when_all_below_is_stored(joined: Bench) -> None:
    joined.record()
    joined.give(FlushAsked(1))
    assert joined.kinds() == [(BatchType.RECORDS, 1, 3), (BatchType.FLUSH, 1, 4)]
    assert joined.ack(2) == []
    assert CompleteFlush(1, ok=True) not in joined.ack(4, (3, 4))
    assert joined.ack(4) == [CompleteFlush(1, ok=True)]


def test_machine_new_boot_id_sends_strings_the_opening_and_the_unacknowledged(joined: Bench) -> None:
    joined.record(chunk=4)
    joined.tick()
    joined.record(chunk=4)
    joined.tick()
    joined.ack(3)
    joined.sent()
    joined.give(LinkReceived(RecorderHeartbeat(b"x" * 16, 1)))
    assert joined.machine.state is State.GREETING
    joined.join(2, b"x" * 16, 8)
    batches = joined.sent()
    assert [(b.header.type, b.header.generation, b.header.tseq) for b in batches] == [
        (BatchType.STRINGS, 1, 5),
        (BatchType.OPEN, 1, 2),
        (BatchType.RECORDS, 1, 4),
        (BatchType.END, 1, 6),
        (BatchType.OPEN, 2, 7),
    ]
    assert {b.header.nonce for b in batches} == {8}


def test_machine_stop_without_rejoin_stays_stopped(joined: Bench) -> None:
    joined.give(FlushAsked(1))
    out = joined.give(LinkReceived(Stop("malformed", 0)))
    assert out == [CompleteFlush(1, ok=False), StopRecording("malformed")]
    assert joined.machine.deadline_ns() is None
    assert joined.give(FlushAsked(2)) == [CompleteFlush(2, ok=False)]
    assert (joined.machine.state, joined.machine.error) == (State.STOPPED, "malformed")


def test_machine_stop_with_rejoin_comes_back_as_the_next_incarnation(joined: Bench) -> None:
    joined.give(LinkReceived(Stop("malformed", 50 * MS)))
    assert joined.tick(49) == []
    assert joined.tick(1) == [SendHello(2, 1, 7)]
    assert ResumeRecording() in joined.join(2, nonce=9)
    assert {(b.header.incarnation, b.header.nonce) for b in joined.sent()} == {(2, 9)}


def test_machine_next_incarnation_says_what_was_under_way_when_the_one_before_was_stopped(joined: Bench) -> None:
    for chunk in range(3):
        joined.record(chunk)
        joined.tick()
    # the first has come, of the second nobody knows, the third is here when the stop comes
    joined.ack(3)
    joined.give(LinkReceived(Stop("malformed", 50 * MS)))
    joined.record(3)
    joined.tick(50)
    joined.join(2, nonce=9)
    joined.sent()
    joined.give(LinkReceived(Advance(3)))
    [mark] = [decode_end_mark(b.body) for b in joined.sent() if b.header.type is BatchType.END]
    assert mark.writers == (WriterEnd(1, 2, 8, 0, ((2, 6),)),)


def test_machine_what_a_stopped_writer_had_under_way_is_said_also_when_it_rests(joined: Bench) -> None:
    joined.record()
    joined.give(LinkReceived(Advance(2)))
    joined.give(LinkReceived(Stop("malformed", 50 * MS)))
    for nonce in (9, 10):
        joined.tick(50)
        joined.join(joined.machine.generation + 1, nonce=nonce)
        joined.sent()
        # nor did its own end mark get there
        joined.give(LinkReceived(Stop("malformed", 50 * MS)))
    joined.tick(50)
    joined.join(joined.machine.generation + 1, nonce=11)
    joined.sent()
    joined.give(LinkReceived(Advance(joined.machine.generation + 1)))
    [mark] = [decode_end_mark(b.body) for b in joined.sent() if b.header.type is BatchType.END]
    assert mark.writers == (WriterEnd(1, 0, 2, 0, ((0, 2),)),)


def test_machine_next_incarnation_says_what_was_overwritten_and_not_told_of_before_the_stop(joined: Bench) -> None:
    joined.record(0)
    joined.tick()
    joined.give(LinkReceived(Advance(2)))
    joined.record(1)
    joined.tick()
    joined.give(LinkReceived(Advance(3)))
    # to another recorder the first goes without its records, its end mark is there; the second, acknowledged, is not among it
    joined.reused = {0}
    joined.join(4, boot_id=b"c" * 16, nonce=8)
    records = [b.header.tseq for b in joined.sent() if b.header.type is BatchType.RECORDS]
    through = joined.machine.tseq
    joined.ack(through, (records[0], records[0] + 1), boot_id=b"c" * 16)
    joined.give(LinkReceived(Stop("malformed", 50 * MS)))
    joined.tick(50)
    joined.join(5, nonce=9)
    joined.sent()
    joined.give(LinkReceived(Advance(6)))
    [mark] = [decode_end_mark(b.body) for b in joined.sent() if b.header.type is BatchType.END]
    assert mark.writers == (WriterEnd(1, 0, 2, 0, ((0, 2),)),)


def test_machine_next_incarnation_says_what_an_end_mark_that_did_not_arrive_named(joined: Bench) -> None:
    joined.record(0)
    joined.tick()
    joined.reused = {0}
    joined.join(2, boot_id=b"c" * 16, nonce=8)
    batches = joined.sent()
    [mark] = [b.header.tseq for b in batches if b.header.type is BatchType.END]
    joined.ack(joined.machine.tseq, (mark, mark + 1), boot_id=b"c" * 16)
    joined.give(LinkReceived(Stop("malformed", 50 * MS)))
    joined.tick(50)
    joined.join(5, nonce=9)
    joined.sent()
    joined.give(LinkReceived(Advance(6)))
    [end] = [decode_end_mark(b.body) for b in joined.sent() if b.header.type is BatchType.END]
    assert end.writers == (WriterEnd(1, 0, 2, 0, ((0, 2),)),)


def test_machine_silence_greets_again_and_the_same_welcome_goes_on(joined: Bench) -> None:
    assert joined.tick(5000) == [SendHello(1, 1, 7)]
    joined.record()
    assert joined.tick(10) == []
    joined.join(1)
    assert joined.kinds() == [(BatchType.RECORDS, 1, 3)]


def test_machine_end_says_goodbye_and_closes_when_all_is_acknowledged(joined: Bench) -> None:
    joined.record()
    joined.give(EndAsked())
    assert joined.kinds() == [(BatchType.RECORDS, 1, 3), (BatchType.END, 1, 4), (BatchType.GOODBYE, 1, 5)]
    assert joined.ack(4) == []
    assert joined.ack(5) == [Close()]
    assert joined.machine.state is State.CLOSED


def test_machine_wrong_answer_is_an_error(bench: Bench) -> None:
    with pytest.raises(StateError, match="nothing was asked"):
        bench.machine.handle(FrameSent(), bench.now)
    bench.machine.handle(Started(), bench.now)
    bench.machine.handle(LinkReceived(Welcome(BOOT, 7, 1, 1, 1000 * MS, 5000 * MS)), bench.now)
    with pytest.raises(StateError, match="wanted GenerationCut, got Ticked"):
        bench.machine.handle(Ticked(), bench.now)
