"""`TracerMachine` against an oracle of plain dicts and sets, which works everything out anew at each event and predicts every instruction.

The link, the data socket, the buffer and the recorder are simulated by rules: frames are lost whole, acknowledgements are truthful (and may be
late), chunks are reused under batches that wait, recorders restart.
"""

from __future__ import annotations

from dataclasses import replace
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
from support.tracer_oracle import HEARTBEAT_NS, MS, SILENCE_NS, UUID, WINDOW_BYTES, Oracle, Recorder

from frzmq.tracer import events as ev
from frzmq.tracer.machine import (
    TracerMachine,
)
from frzmq.tracer.outbox import ENTRY_BYTES
from frzmq.tracer.slices import Slice
from frzmq.wire.batch import (
    BatchType,
    Opening,
    WriterEnd,
    decode_end_mark,
    split_frame,
)
from frzmq.wire.kinds import KINDS
from frzmq.wire.messages import Ack, Advance, Pong, RecorderHeartbeat, Reject, Stop, Welcome

RARE = st.integers(0, 5).map(lambda drawn: drawn == 5)
OPENING = Opening(5, 5, 5, KINDS)


class TracerModel(RuleBasedStateMachine):
    @initialize(joined=st.booleans())
    def begin(self, joined: bool) -> None:
        self.now = 10**9
        self.machine = TracerMachine(UUID, window_bytes=WINDOW_BYTES)
        self.oracle = Oracle()
        self.boots = 0
        self.recorder = Recorder(b"-" * 16, 0)
        self.in_flight: list[bytes] = []
        self.token = 0
        # the buffer: what is published and not taken, by chunk use; the next index of each writer, and that at the last cut
        self.published: list[Slice] = []
        self.memory: dict[tuple[int, int], bytes] = {}
        self.serial = 0
        self.next_index = {1: 0, 2: 0}
        self.cut_index = {1: 0, 2: 0}
        self.string_count = self.strings_taken = 0
        self.question: Any = None
        if joined:
            self.give(ev.Started())
            self.welcome_now(anew=True)
            self.settle()

    def give(self, event: Any) -> None:
        expected = self.oracle.predict(event, self.now)
        got = self.machine.handle(event, self.now)
        assert got == expected
        assert self.machine.state.value == self.oracle.state
        self.question = self.oracle.asked
        for instruction in got:
            if isinstance(instruction, ev.Release):
                key = instruction.chunk, instruction.serial
                assert key not in self.oracle.released
                self.oracle.released.add(key)

    # --- answers

    def answerable(self) -> bool:
        return self.question is not None

    def free(self) -> bool:
        return self.question is None

    @precondition(answerable)
    @rule(refuse=st.booleans(), reused=st.booleans())
    def answer(self, refuse: bool, reused: bool) -> None:
        self.answer_question(refuse=refuse, reused=reused)

    def answer_question(self, *, refuse: bool, reused: bool) -> None:
        match self.question:
            case ev.SendFrame(data):
                if refuse:
                    self.give(ev.FrameRefused())
                else:
                    self.in_flight.append(data)
                    self.give(ev.FrameSent())
            case ev.Collect():
                self.give(ev.Collected(self.take(), self.new_strings(), dropped=3))
            case ev.CutTo(generation):
                rows = tuple(
                    WriterEnd(w, self.cut_index[w], self.next_index[w])
                    for w in self.next_index
                    if self.cut_index[w] != self.next_index[w]
                )
                self.cut_index = dict(self.next_index)
                opening = replace(OPENING, wall_ns=generation)
                self.give(ev.GenerationCut(self.now - 5, self.take(), rows, opening, self.new_strings(), dropped=4))
            case ev.ReadSlices(slices):
                if reused:
                    self.memory.pop((slices[0].chunk, slices[0].serial), None)
                self.give(ev.SlicesRead(tuple(self.read(piece) for piece in slices)))
            case ev.ReadStrings():
                self.strings_taken = 0
                self.give(ev.StringsRead(self.new_strings()))

    @precondition(answerable)
    @rule()
    def settle(self) -> None:
        """Answers everything that is asked, as on a good day."""
        while self.question is not None:
            self.answer_question(refuse=False, reused=False)

    @precondition(free)
    @rule(lose=st.integers(0, 5))
    def good_day(self, lose: int) -> None:
        """All arrives but one frame, is acknowledged, and what follows is answered."""
        self.store(lose)
        self.give(ev.LinkReceived(self.recorder.ack()))
        self.settle()
        self.now += 60 * MS
        self.give(ev.Ticked())
        self.settle()

    def take(self) -> tuple[Slice, ...]:
        taken, self.published = tuple(self.published), []
        return taken

    def new_strings(self) -> tuple[int, int, bytes] | None:
        first, self.strings_taken = self.strings_taken, self.string_count
        count = self.string_count - first
        return (first + 1, count, b"\xa1s" * count) if count else None

    def read(self, piece: Slice) -> bytes | None:
        chunk = self.memory.get((piece.chunk, piece.serial))
        return None if chunk is None else chunk[piece.offset : piece.offset + piece.size]

    # --- the program

    @rule(
        writer=st.sampled_from([1, 2]), count=st.integers(1, 5), kib=st.sampled_from([0, 0, 0, 60]), final=st.booleans()
    )
    def record(self, writer: int, count: int, kib: int, final: bool) -> None:
        self.now += MS
        key = writer, self.serial
        memory = self.memory.get(key, b"")
        body = bytes([count]) * (2 * count + (kib << 10))
        first = self.next_index[writer]
        self.published.append(
            Slice(
                writer, self.serial, len(memory), len(body), writer, first, count, self.now - 1, self.now, body, final
            )
        )
        self.memory[key] = memory + body
        self.next_index[writer] = first + count
        if final:
            self.serial += 1

    @rule()
    def seal_without_news(self) -> None:
        self.published.append(Slice(1, self.serial, 0, 0, 1, self.next_index[1], 0, self.now, self.now, b"", True))
        self.serial += 1

    @rule()
    def intern(self) -> None:
        self.string_count += 1

    @precondition(free)
    @rule()
    def flush(self) -> None:
        self.token += 1
        self.give(ev.FlushAsked(self.token))

    # --- the loop

    @precondition(free)
    @rule(ms=st.sampled_from([0, 1, 30, 60, 60, 100, 100, 1000, 1000, 6000]))
    def tick(self, ms: int) -> None:
        self.now += ms * MS
        self.give(ev.Ticked())

    @precondition(free)
    @rule()
    def start(self) -> None:
        self.give(ev.Started())

    @precondition(free)
    @rule(rare=RARE)
    def park(self, rare: bool) -> None:
        if not rare:
            return
        self.in_flight.clear()
        self.give(ev.Parked())

    @precondition(lambda self: self.question is None and self.token > 1)
    @rule(rare=RARE)
    def end(self, rare: bool) -> None:
        if not rare:
            return
        self.give(ev.EndAsked())

    # --- the recorder

    @rule(lose=st.integers(0, 5))
    def arrive(self, lose: int) -> None:
        self.store(lose)

    def store(self, lose: int) -> None:
        frames, self.in_flight = self.in_flight, []
        for at, frame in enumerate(frames):
            if at == lose:
                continue
            for batch in split_frame(frame):
                if batch.header.nonce != self.recorder.nonce or batch.header.incarnation < self.oracle.incarnation:
                    # sent before it was stopped, and on its way since
                    continue
                assert batch.header.incarnation == self.oracle.incarnation
                stored = self.recorder.stored.get(batch.header.tseq)
                assert stored is None or stored == batch or batch.header.count == 0
                self.recorder.stored.setdefault(batch.header.tseq, batch)

    @precondition(free)
    @rule()
    def acknowledge(self) -> None:
        self.give(ev.LinkReceived(self.recorder.ack()))

    @precondition(free)
    @rule()
    def acknowledge_of_another_run(self) -> None:
        self.give(ev.LinkReceived(Ack(b"?" * 16, 1 << 40)))

    @precondition(free)
    @rule(anew=RARE)
    def welcome(self, anew: bool) -> None:
        self.welcome_now(anew=anew)

    def welcome_now(self, *, anew: bool) -> None:
        if anew or not self.boots or self.oracle.session != (self.recorder.boot_id, self.recorder.nonce):
            self.boots += 1
            self.recorder = Recorder(self.boots.to_bytes(16, "big"), 1000 + self.boots)
        generation = self.oracle.generation + 1
        self.give(
            ev.LinkReceived(
                Welcome(self.recorder.boot_id, self.recorder.nonce, generation, 1, HEARTBEAT_NS, SILENCE_NS)
            )
        )

    @precondition(free)
    @rule(step=st.integers(0, 3))
    def advance(self, step: int) -> None:
        self.give(ev.LinkReceived(Advance(self.oracle.generation + step)))

    @precondition(free)
    @rule(step=st.integers(0, 1), unknown=RARE)
    def level(self, step: int, unknown: bool) -> None:
        boot_id = b"x" * 16 if unknown else self.recorder.boot_id
        self.give(ev.LinkReceived(RecorderHeartbeat(boot_id, self.oracle.generation + step)))

    @precondition(free)
    @rule(us=st.integers(0, 900), right=st.booleans())
    def pong(self, us: int, right: bool) -> None:
        self.now += us * 1000
        sent = self.oracle.pinged if right and self.oracle.pinged is not None else 7
        self.give(ev.LinkReceived(Pong(sent, self.now + 12345)))

    @precondition(free)
    @rule()
    def reject(self) -> None:
        self.give(ev.LinkReceived(Reject("no")))

    @precondition(lambda self: self.question is None and self.token > 1)
    @rule(rejoin_ms=st.sampled_from([0, 50, 1000]), rare=RARE)
    def stop(self, rejoin_ms: int, rare: bool) -> None:
        if not rare:
            return
        self.give(ev.LinkReceived(Stop("wrong", rejoin_ms * MS)))

    # --- what always holds

    @invariant()
    def a_flush_that_is_done_is_stored(self) -> None:
        assert self.machine.unacknowledged == len(self.oracle.waiting())
        assert self.machine.unacknowledged_bytes == sum(
            ENTRY_BYTES + self.oracle.size(t) for t in self.oracle.waiting()
        )

    @invariant()
    def what_is_stored_is_in_order(self) -> None:
        generation = 0
        for _, batch in sorted(self.recorder.stored.items()):
            header = batch.header
            if header.type in (BatchType.OPEN, BatchType.RECORDS, BatchType.END):
                assert header.generation >= generation
                generation = header.generation
            if header.type is BatchType.END:
                decode_end_mark(batch.body)


# a failure shrinks for minutes before it is shown
@pytest.mark.timeout(600)
def test_tracer_any_history_is_the_oracles() -> None:
    run_state_machine_as_test(TracerModel)
