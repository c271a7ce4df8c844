"""What the recorder's machine is told (inputs, in the past tense) and what it asks for (instructions, in the imperative).

Duties of the loop around `RecorderMachine`:

1. Give each input once, in the order of its arrival, with the monotonic time; carry the instructions out in their order.
2. Give a `Tick` when `RecorderMachine.deadline_ns` has come.
3. Answer `Credit` and `Cancel` itself: the machine knows snapshots, not their chunks.
4. After `WriteSnapshot` spool the view and stream it to each client: chunks, then ``SnapshotEnd(id, size_bytes, missing)``, or an
   `ErrorReply`; the same for each `ShareSnapshot` that names the snapshot. When the last client is served, or gone, or the
   snapshot failed: one `SnapshotFinished`.
5. After `FindLines` look for the lines, aside, and give one `LinesFound`.
6. After `WatchTracer` look at the record lock of ``UUID.lock`` until `ForgetTracer`; once it is free: `TracerDied`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from frzmq.recorder.ranges import Ranges
from frzmq.recorder.tail import Tail
from frzmq.wire.ledger import Ledger, WriterLedger
from frzmq.wire.messages import Hello, LogLine, Reply, Request, ToRecorder, ToTracer

# --- what the ring holds


class Seal(Enum):
    """What sealed a generation."""

    END_MARK = "end mark"
    LATER_GENERATION = "later generation"
    GOODBYE = "goodbye"
    DEATH = "death"
    SILENCE = "silence"
    """It was waited for until all of it was too old."""
    STUCK = "stuck"
    """For one snapshot: its tracer did not answer, and may go on."""
    STOP = "stop"
    REPLACED = "replaced"
    """A newer incarnation of the tracer said hello."""
    OVERFLOW = "overflow"
    """Alone it would have passed the cap."""


class State(Enum):
    """Of a stream."""

    LIVE = "live"
    STOPPED = "stopped"
    """By the recorder, after an error."""
    GONE = "gone"
    """It said goodbye, or a newer incarnation took its place."""
    DEAD = "dead"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class SealedGeneration:
    generation: int
    complete: bool
    """All that the tracer sent of it is here."""
    seal: Seal
    first_ns: int
    """When it was opened, tracer's clock."""
    last_ns: int
    """The time of its last record, tracer's clock."""
    records: int
    batches: int
    """Of records."""
    frames: tuple[bytes, ...] = field(repr=False)
    """The OPEN batch and the RECORDS batches, in the order of tseq, header and body as received: whole batches, one or several
    back to back in each block."""
    end_mark: bytes = field(default=b"", repr=False)
    """The body of its END batch, b"" when there was none (or an empty one)."""
    lost: int = 0
    """Records known to be missing or overwritten in it."""
    counted: bytes = field(default=b"", repr=False)
    """How many records of each writer, as `frzmq.recorder.ledger.Book` packs it."""

    @property
    def frame_bytes(self) -> int:
        return sum(map(len, self.frames))


class Answer(Enum):
    """What a tracer did about the flush before a snapshot."""

    NONE = ""
    """It was not asked: it had ended, or was stopped."""
    FLUSHED = "flushed"
    READ = "read"
    """It was silent: what it had committed was read from its buffer."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class StreamView:
    """One stream, frozen: references only."""

    hello: Hello
    joined_ns: int
    """Recorder's clock."""
    state: State
    error: str
    """Why it was stopped, or ""."""
    strings: tuple[bytes, ...] = field(repr=False)
    """STRINGS batches, header and body as received."""
    sealed: tuple[SealedGeneration, ...]
    """Oldest first."""
    ledger: Ledger
    offset_ns: int
    """Recorder's clock minus tracer's."""
    rtt_ns: int
    """Round trip of the sample that gave the offset; 0: none was taken."""
    horizon_ns: int
    """From when on the stream is complete, recorder's clock; 0: nothing held."""
    answer: Answer
    stored_through: int
    """The last tseq that came."""
    gaps: tuple[tuple[int, int], ...]
    """Those before it that did not, as ranges [from, to)."""
    writers: tuple[WriterLedger, ...] = field(default=(), repr=False)
    other_writers: int = 0
    """Of which there is no row."""


@dataclass(frozen=True, slots=True)
class RingView:
    streams: tuple[StreamView, ...]
    min_age_ns: int
    max_bytes: int
    horizon_ns: int
    """From when on every held stream is complete, recorder's clock; 0: nothing held."""


# --- inputs


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """On the data socket."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LinkReceived:
    peer: bytes
    """Routing id on the link's ROUTER."""
    message: ToRecorder
    key: str = ""
    """The name of the key that it came with; "": there are no keys."""


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """Nobody may record under this name any more, as those did who did so far."""

    key: str


@dataclass(frozen=True, slots=True)
class LinkGarbage:
    """What came on the link is no message of a tracer."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class TracerDied:
    """Its record lock is free. Frames of it that are under way are still taken for a moment."""

    uuid: bytes
    how: str = "unknown"
    """``SIGKILL``, ``exit status 3``, or unknown."""


@dataclass(frozen=True, slots=True)
class Unwatched:
    """There is no lock of it to look at, whatever it says: its silence has to tell."""

    uuid: bytes


@dataclass(frozen=True, slots=True)
class RequestReceived:
    peer: bytes
    """Routing id on the control ROUTER."""
    message: Request


@dataclass(frozen=True, slots=True)
class RequestGarbage:
    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotFinished:
    snapshot: int
    size_bytes: int
    error: str = ""
    """"": it was written."""
    path: str = ""
    """Where it was stored, when that was asked for."""
    store_error: str = ""
    """Why it was not."""


@dataclass(frozen=True, slots=True)
class TailRead:
    """By `ReadTail`. ``tail`` None: there is none to be had, and ``problem`` says why."""

    uuid: bytes
    tail: Tail | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LinesFound:
    """By `FindLines`."""

    lines: tuple[LogLine, ...] = ()
    more: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    pass


Input: TypeAlias = (
    FrameReceived
    | LinkReceived
    | LinkGarbage
    | KeyRevoked
    | TracerDied
    | Unwatched
    | RequestReceived
    | RequestGarbage
    | SnapshotFinished
    | LinesFound
    | TailRead
    | Tick
)

# --- instructions


@dataclass(frozen=True, slots=True)
class SendLink:
    peer: bytes
    message: ToTracer


@dataclass(frozen=True, slots=True)
class SendReply:
    """On the control socket."""

    peer: bytes
    message: Reply


@dataclass(frozen=True, slots=True)
class SnapshotClient:
    """Who wants a snapshot: the request's peer, its id (chunks carry it) and the chunks that may be sent before more credit."""

    peer: bytes
    id: int
    credit: int


@dataclass(frozen=True, slots=True)
class Store:
    """A snapshot is to be left in the recorder's directory; the two are parts of its name."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class WriteSnapshot:
    snapshot: int
    """Its number in this run of the recorder."""
    clients: tuple[SnapshotClient, ...]
    view: RingView
    reason: str
    missing: tuple[str, ...]
    """Tracers (``service[pid]``) whose last moments are not in it."""
    store: Store | None = None


@dataclass(frozen=True, slots=True)
class FindLines:
    """The suppressed log lines of a trace; one `LinesFound` follows. Never a second one before that."""

    trace: str
    view: RingView


@dataclass(frozen=True, slots=True)
class ShareSnapshot:
    """One more client for a snapshot that is being made: it gets all of it, from the beginning."""

    snapshot: int
    client: SnapshotClient


@dataclass(frozen=True, slots=True)
class WatchTracer:
    uuid: bytes


@dataclass(frozen=True, slots=True)
class ForgetTracer:
    uuid: bytes


@dataclass(frozen=True, slots=True)
class ReadTail:
    """It is dead, or does not answer: its buffer file is to be read; one `TailRead` follows."""

    uuid: bytes
    stored: Mapping[int, Ranges]
    """By writer: the records that are here."""
    alive: bool = False
    """Then the file stays, and may be written while it is read."""


Instruction: TypeAlias = (
    SendLink | SendReply | WriteSnapshot | ShareSnapshot | FindLines | WatchTracer | ForgetTracer | ReadTail
)
