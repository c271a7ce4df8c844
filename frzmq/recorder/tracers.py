"""What the recorder knows of one tracer, and how it tells: status and views."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from frzmq.recorder.events import Answer, Seal, SealedGeneration, State, StreamView
from frzmq.recorder.ring import Kept
from frzmq.recorder.stream import Stream
from frzmq.recorder.tail import Tail
from frzmq.wire.ledger import WriterLedger
from frzmq.wire.messages import MAX_WRITERS, Hello, TracerHeartbeat, TracerStatus

MAX_ERROR_CHARS = 1024
ROW_BYTES = 9 * len(fields(WriterLedger)) + 1
"""Of a writer's ledger in a message, at most."""


@dataclass(slots=True)
class Tracer:
    """One incarnation of a tracer. Times are the recorder's clock in ns."""

    number: int
    hello: Hello
    peer: bytes
    nonce: int
    stream: Stream
    joined_ns: int
    heard_ns: int
    advanced_ns: int
    """When it was last told to open a generation."""
    hello_offset_ns: int
    """Recorder's clock minus its own, as far as the hello tells."""
    state: State = State.LIVE
    error: str = ""
    rejoin_at_ns: int = 0
    """While stopped: from when on it may come back."""
    key: str = ""
    """The name of the key that it proved itself with: no other speaks for it."""
    died_ns: int | None = None
    """Its lock is free; what is under way may still come."""
    ended_how: str = ""
    says_end: bool = False
    """Its buffer does: it ended in order, though nobody heard of it."""
    recover_until_ns: int | None = None
    """Its buffer file is being read; no longer than this is waited for that."""
    heartbeat: TracerHeartbeat = field(default_factory=lambda: TracerHeartbeat(0, 0))
    watched: bool = False
    has_nonce: bool = False
    """It has shown it: the welcome was not lost."""
    unacknowledged_bytes: int = 0
    ack_now: bool = False
    shared_advance_ns: int | None = None
    """When the last Advance went out: all that was recorded before is below the generation that it names."""

    @property
    def name(self) -> str:
        return f"{self.hello.service[:200]}[{self.hello.pid}]"

    def is_proven_by(self, hello: Hello) -> bool:
        """Whether it can be the same that says hello on another connection. Until it has shown its nonce it may have that with which it came."""
        return hello.nonce == self.nonce or (not self.has_nonce and hello.nonce == self.hello.nonce)

    @property
    def dying(self) -> bool:
        return self.died_ns is not None and self.state in (State.LIVE, State.SILENT)

    @property
    def stands(self) -> bool:
        """It may go on: live, or silent while its lock is held. Then its newest generation is kept, and the tracer remembered."""
        return self.state is State.LIVE or (self.state is State.SILENT and self.hello.lock and self.died_ns is None)

    @property
    def offset_ns(self) -> int:
        """Recorder's clock minus the tracer's. On one machine they are one clock, unless a time namespace is between them: what was measured within the
        round trip is noise there."""
        measured_ns, rtt_ns = self.heartbeat.offset_ns, self.heartbeat.rtt_ns
        if not rtt_ns or (self.hello_offset_ns == 0 and abs(measured_ns) <= rtt_ns):
            return self.hello_offset_ns
        return measured_ns

    def kept(self, generation: SealedGeneration, now_ns: int) -> Kept:
        """With its times on the recorder's clock: a tracer cannot have recorded in the future."""
        begin_ns = min(generation.first_ns + self.offset_ns, now_ns)
        return Kept(generation, begin_ns, max(begin_ns, min(generation.last_ns + self.offset_ns, now_ns)))

    def horizon_ns(self, kept: tuple[Kept, ...]) -> int:
        """From when on the stream is complete: the begin of the oldest generation that has, like all after it, lost nothing; when the newest is not complete
        itself, its end, or that of what came of it when it was sealed. 0: nothing is held."""
        horizon = 0
        for k in reversed(kept):
            if not k.generation.complete or k.generation.lost:
                late_ns = min(self.stream.late_ns + self.offset_ns, self.heard_ns)
                return horizon or max(k.end_ns, late_ns, 1)
            horizon = max(k.begin_ns, 1)
        return horizon

    def view_stuck(self, kept: tuple[Kept, ...], tail: Tail | None, now_ns: int) -> StreamView:
        """With what is open, as incomplete, and what its buffer held. The stream itself stays as it is: a tracer that goes on sends all of that."""
        stream = copy.deepcopy(self.stream)
        if tail is not None:
            stream.recover(tail, self.hello, self.nonce)
        sealed = tuple(self.kept(generation, now_ns) for generation in stream.close(Seal.STUCK))
        answer = Answer.MISSING if tail is None else Answer.READ
        return dataclasses.replace(self, stream=stream).view(kept + sealed, answer)

    def view(self, kept: tuple[Kept, ...], answer: Answer = Answer.NONE) -> StreamView:
        stored_through, gaps = self.stream.stored()
        writers, other_writers = self.stream.writers()
        return StreamView(
            hello=self.hello,
            joined_ns=self.joined_ns,
            state=self.state,
            error=self.error,
            strings=tuple(self.stream.strings),
            sealed=tuple(k.generation for k in kept),
            ledger=self.stream.ledger(),
            offset_ns=self.offset_ns,
            rtt_ns=self.heartbeat.rtt_ns,
            horizon_ns=self.horizon_ns(kept),
            answer=answer,
            stored_through=stored_through,
            gaps=gaps,
            writers=writers,
            other_writers=other_writers,
        )

    def status(self, kept: tuple[Kept, ...], held_bytes: int) -> TracerStatus:
        ledger = self.stream.ledger()
        return TracerStatus(
            uuid=self.hello.uuid,
            service=self.hello.service,
            pid=self.hello.pid,
            state=self.state.value,
            generation=self.stream.opened,
            records=self.stream.records,
            recorded=ledger.recorded,
            open=ledger.open,
            held=ledger.held,
            held_bytes=held_bytes,
            generations=len(kept),
            dropped=ledger.dropped,
            overwritten=ledger.overwritten,
            late=ledger.late,
            duplicate=ledger.duplicate,
            rejected=ledger.rejected,
            evicted=ledger.evicted,
            missing=ledger.missing,
            torn=ledger.torn,
            horizon_ns=self.horizon_ns(kept),
            agent_cpu_ns=self.heartbeat.agent_cpu_ns,
            agent_errors=self.heartbeat.errors,
            joined_ns=self.joined_ns,
            host=self.hello.host,
            program=self.hello.program,
            buffer_kind=self.hello.buffer_kind,
            buffer_bytes=self.hello.buffer_bytes,
            error=self.error,
            trigger_errors=self.heartbeat.trigger_errors,
            trigger_problem=self.heartbeat.trigger_problem,
        )

    def with_writers(self, status: TracerStatus, most: int) -> TracerStatus:
        """With the ledgers of at the most so many writers."""
        rows, others = bounded_rows(self.stream.writers(), most)
        return dataclasses.replace(status, writers=rows, other_writers=others)


def whole_horizon_ns(parts: Iterable[tuple[Tracer, tuple[Kept, ...]]]) -> int:
    """From when on all streams together are complete. One of which nothing is gone yet was complete from its begin: before it there was nothing of it to lose.
    0: nothing is held."""
    limits, begins = [], []
    for tracer, kept in parts:
        if not kept:
            continue
        ledger = tracer.stream.ledger()
        begins.append(max(kept[0].begin_ns, 1))
        if ledger.recorded > ledger.held + ledger.open or not all(k.generation.complete for k in kept):
            limits.append(tracer.horizon_ns(kept))
    return max(limits, default=min(begins, default=0))


def bounded_rows(writers: tuple[tuple[WriterLedger, ...], int], most: int) -> tuple[tuple[WriterLedger, ...], int]:
    """At the most so many rows, those with the most records; and how many others there are."""
    rows, others = writers
    most = min(most, MAX_WRITERS)
    if len(rows) > most:
        chosen = sorted(rows, key=lambda row: row.recorded, reverse=True)[:most]
        others += len(rows) - len(chosen)
        rows = tuple(sorted(chosen, key=lambda row: row.writer))
    return rows, others


def status_bytes(status: TracerStatus) -> int:
    """What it takes in a StatusReply, at most."""
    texts = (
        status.service,
        status.host,
        status.program,
        status.buffer_kind,
        status.error,
        status.trigger_problem,
    )
    return 700 + sum(len(text.encode(errors="replace")) for text in texts)
