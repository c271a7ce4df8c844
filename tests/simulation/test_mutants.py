"""Does the simulation see? Faults seeded into the code under test, each of which it finds within the histories of the default run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.simulated.scenario import Scenario
from support.simulated.world import SimulationError

from frzmq.recorder.control import Control
from frzmq.recorder.ends import Ends
from frzmq.recorder.ledger import Book
from frzmq.recorder.machine import RecorderMachine
from frzmq.recorder.ranges import Ranges
from frzmq.recorder.ring import Ring
from frzmq.recorder.stream import Stream
from frzmq.recorder.tracers import Tracer
from frzmq.tracer.generations import GenerationBook
from frzmq.tracer.machine import TracerMachine
from frzmq.tracer.outbox import Outbox
from frzmq.wire.batch import Header
from frzmq.wire.messages import Ack, FlushReply, Welcome

GATE = 300
"""So many histories has the default run."""
Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Callable[[Patch], None]] = {}


def mutant(seed: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTANTS[seed.__name__] = seed
    return seed


# --- the recorder


@mutant
def an_acknowledgement_runs_one_ahead(patch: Patch) -> None:
    stored = Stream.stored

    def ahead(self: Stream) -> tuple[int, tuple[tuple[int, int], ...]]:
        through, gaps = stored(self)
        return through + 1, gaps

    patch.setattr(Stream, "stored", ahead)


@mutant
def gaps_are_not_told(patch: Patch) -> None:
    stored = Stream.stored
    patch.setattr(Stream, "stored", lambda self: (stored(self)[0], ()))


@mutant
def later_strings_are_lost(patch: Patch) -> None:
    take = Stream._take_strings
    patch.setattr(
        Stream, "_take_strings", lambda self, header, data: None if header.first_index > 3 else take(self, header, data)
    )


@mutant
def a_late_batch_counts_as_held(patch: Patch) -> None:
    late = Book.late

    def held(self: Book, header: Header) -> int:
        count = late(self, header)
        for counts in (self._of(header.writer), self._total):
            counts.late -= count
            counts.held += count
        return count

    patch.setattr(Book, "late", held)


@mutant
def what_is_evicted_is_not_counted(patch: Patch) -> None:
    evict = Book.evict

    def gone(self: Book, counted: bytes) -> None:
        evict(self, counted)
        for counts in (*self._counts.values(), self._total):
            counts.recorded -= counts.evicted
            counts.evicted = 0

    patch.setattr(Book, "evict", gone)


@mutant
def every_sealed_generation_is_complete(patch: Patch) -> None:
    seal = Stream._seal
    patch.setattr(Stream, "_seal", lambda self, how, *, complete: seal(self, how, complete=True))


@mutant
def nothing_is_missing(patch: Patch) -> None:
    settle = Book.settle

    def settled(self: Book, *args: Any, **more: Any) -> tuple[int, bytes]:
        lost = settle(self, *args, **more)
        for counts in (*self._counts.values(), self._total):
            counts.recorded -= counts.missing
            counts.missing = 0
        return lost

    patch.setattr(Book, "settle", settled)


@mutant
def a_sealed_generation_is_left(patch: Patch) -> None:
    patch.setattr(
        Stream,
        "settled_below",
        property(lambda self: self._open[0].number if self._open else self._sealed_through + 1),
    )


@mutant
def a_tail_is_read_whatever_is_stored(patch: Patch) -> None:
    patch.setattr(Stream, "stored_records", lambda _self: dict[int, Ranges]())


@mutant
def a_flush_forgets_one_tracer(patch: Patch) -> None:
    begin = Control._begin_flush

    def forgetful(self: Control, *args: Any, **more: Any) -> frozenset[int]:
        told = begin(self, *args, **more)
        if len(self._flushes[-1].targets) > 1:
            self._flushes[-1].targets.popitem()
        return told

    patch.setattr(Control, "_begin_flush", forgetful)


@mutant
def a_flush_names_nobody(patch: Patch) -> None:
    reply = Control._reply

    def silent(self: Control, peer: bytes, message: Any) -> None:
        reply(self, peer, FlushReply(message.id) if isinstance(message, FlushReply) else message)

    patch.setattr(Control, "_reply", silent)


@mutant
def a_flush_has_no_deadline(patch: Patch) -> None:
    begin = Control._begin_flush

    def patient(self: Control, *args: Any, **more: Any) -> frozenset[int]:
        told = begin(self, *args, **more)
        self._flushes[-1].deadline_ns += 3600 * 10**9
        return told

    patch.setattr(Control, "_begin_flush", patient)


@mutant
def a_malformed_frame_stops_another(patch: Patch) -> None:
    stop = Ends.stop

    def wrong(self: Ends, tracer: Tracer, error: str, now_ns: int) -> None:
        others = [other for other in self.machine.live() if other is not tracer]
        stop(self, others[0] if others else tracer, error, now_ns)

    patch.setattr(Ends, "stop", wrong)


@mutant
def nothing_is_evicted_for_size(patch: Patch) -> None:
    patch.setattr(Ring, "evict_by_size", lambda _self: [])
    patch.setattr(RecorderMachine, "_shrink", lambda _self, _now_ns: None)


@mutant
def silence_is_not_noticed(patch: Patch) -> None:
    heard = RecorderMachine._tick

    def deaf(self: RecorderMachine, now_ns: int) -> None:
        for tracer in self.live():
            tracer.heard_ns = now_ns
        heard(self, now_ns)

    patch.setattr(RecorderMachine, "_tick", deaf)


# --- the tracer


@mutant
def nothing_is_sent_again_to_a_new_recorder(patch: Patch) -> None:
    patch.setattr(Outbox, "start_over", Outbox.clear)


@mutant
def strings_are_not_sent_again_to_a_new_recorder(patch: Patch) -> None:
    welcome = TracerMachine._welcome

    def welcomed(self: TracerMachine, message: Welcome, now_ns: int) -> None:
        welcome(self, message, now_ns)
        self._strings_wanted = False

    patch.setattr(TracerMachine, "_welcome", welcomed)


@mutant
def what_a_gap_names_is_forgotten(patch: Patch) -> None:
    acknowledge = Outbox.acknowledge
    patch.setattr(Outbox, "acknowledge", lambda self, ack: acknowledge(self, Ack(ack.boot_id, ack.stored_through)))


@mutant
def an_end_mark_forgets_a_writer(patch: Patch) -> None:
    end = GenerationBook.end
    patch.setattr(GenerationBook, "end", lambda self, rows: end(self, rows[:2]))


SEEN = {
    "gaps_are_not_told": 3,
    "a_late_batch_counts_as_held": 4,
    "what_is_evicted_is_not_counted": 1,
    "every_sealed_generation_is_complete": 9,
    "nothing_is_missing": 16,
    "a_sealed_generation_is_left": 198,
    "a_tail_is_read_whatever_is_stored": 28,
    "a_flush_forgets_one_tracer": 6,
    "a_flush_names_nobody": 121,
    "a_flush_has_no_deadline": 26,
    "a_malformed_frame_stops_another": 12,
    "silence_is_not_noticed": 34,
    "nothing_is_sent_again_to_a_new_recorder": 3,
    "strings_are_not_sent_again_to_a_new_recorder": 3,
    "what_a_gap_names_is_forgotten": 36,
}
"""A seed that shows it: tried first."""


@pytest.mark.timeout(300)  # when the simulation has changed, each may need them all
@pytest.mark.parametrize("name", MUTANTS)
def test_simulation_sees(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    MUTANTS[name](monkeypatch)
    first = SEEN.get(name, 0)
    for seed in (first, *(seed for seed in range(GATE) if seed != first)):
        try:
            Scenario(seed, tmp_path).run()
        except SimulationError:
            return
    pytest.fail(f"{GATE} histories, and it is not seen")
