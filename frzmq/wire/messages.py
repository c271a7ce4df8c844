"""The messages of the link and of the control socket: msgpack maps with a ``type``, as frozen dataclasses.

Unknown keys are ignored, so that a newer peer may say more; a missing key without a default, a wrong type or a value out of
bounds is a WireError. Times are ns; a flag named ``*_ns`` of 0 means "not set".
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, TypeAlias, cast

from frzmq.errors import WireError
from frzmq.wire.codec import pack, shown, unpack
from frzmq.wire.fields import (
    data_field,
    fixed_bytes,
    flag,
    from_map,
    many,
    names,
    nested,
    nested_check,
    ranges,
    row_check,
    signed,
    text,
    to_map,
    unsigned,
)
from frzmq.wire.ledger import Ledger, WriterLedger

MAX_CHUNK_BYTES: Final = 256 << 10
MAX_GAPS: Final = 1024
MAX_LINES: Final = 200
MAX_MISSING: Final = 1024
"""Tracers that a reply names as missing; a snapshot's header names all."""
MAX_WRITERS: Final = 4096
MAX_GENERATION: Final = 1 << 62
"""No honest peer gets there: neither side follows the other to it."""


# --- link, tracer to recorder


@dataclass(frozen=True, slots=True)
class Hello:
    """A tracer introduces itself; answered by Welcome or Reject."""

    uuid: bytes = fixed_bytes(16)
    incarnation: int = unsigned(32)
    wire_oldest: int = unsigned(8)
    wire_newest: int = unsigned(8)
    pid: int = unsigned(32)
    service: str = text()
    generation: int = unsigned()
    """The last generation that this tracer opened, 0 for none: Welcome continues above it."""
    end_marks: bool = flag(True)
    """False: it sends none, so that a flush must advance twice to prove a generation complete."""
    parent_pid: int = unsigned(32, 0)
    host: str = text(256, "")
    machine: str = text(64, "")
    """Names the running kernel (its boot id): tracers of one machine share a monotonic clock."""
    program: str = text(256, "")
    python: str = text(64, "")
    buffer_kind: str = text(64, "")
    buffer_bytes: int = unsigned(64, 0)
    shared: bool = flag(False)
    """Its buffer is a file of the runtime directory, named by its uuid."""
    lock: bool = flag(False)
    """It holds a record lock on the file UUID.lock of the runtime directory for as long as it lives."""
    monotonic_ns: int = unsigned(64, 0)
    boottime_ns: int = unsigned(64, 0)
    wall_ns: int = unsigned(64, 0)
    nonce: int = unsigned(64, 0)
    """Of the last Welcome: proves on another connection that it is the same tracer."""


@dataclass(frozen=True, slots=True)
class TracerHeartbeat:
    generation: int = unsigned()
    tseq: int = unsigned()
    """The last that was sent."""
    recorded: int = unsigned(64, 0)
    dropped: int = unsigned(64, 0)
    overwritten: int = unsigned(64, 0)
    agent_cpu_ns: int = unsigned(64, 0)
    errors: int = unsigned(64, 0)
    offset_ns: int = signed(0)
    """Recorder clock minus tracer clock, of the sample with the least round trip; meaningless while rtt_ns is 0."""
    rtt_ns: int = unsigned(64, 0)
    sampled_ns: int = unsigned(64, 0)
    trigger_errors: int = unsigned(64, 0)
    trigger_problem: str = text(256, "")
    """Why a trigger of this process does not work, the last time."""


@dataclass(frozen=True, slots=True)
class Ping:
    sent_ns: int = unsigned()


@dataclass(frozen=True, slots=True)
class Report:
    """A trigger's condition was met: the recorder makes a snapshot of all processes, unless the trigger is in its cooldown."""

    id: int = unsigned()
    trigger: str = text(1024)
    """As in frzmq/triggers.py: equal texts are one trigger."""
    detail: str = text(256, "")
    """What met it."""
    trace: str = text(32, "")
    """In hex; "": none."""


@dataclass(frozen=True, slots=True)
class LinesWanted:
    """An operation failed: which suppressed log lines are there of its trace, of all processes?"""

    id: int = unsigned()
    trace: str = text(32)
    """In hex."""


# --- link, recorder to tracer


@dataclass(frozen=True, slots=True)
class Welcome:
    boot_id: bytes = fixed_bytes(16)
    """Names this run of the recorder: when it changed, what was not acknowledged must be sent again, and the whole string table."""
    nonce: int = unsigned()
    """Proves a batch: the tracer puts it into every header."""
    generation: int = unsigned()
    """The generation to open now."""
    version: int = unsigned(8)
    heartbeat_ns: int = unsigned()
    silence_ns: int = unsigned()
    """A tracer not heard of for so long is taken for gone."""
    triggers: str = text(65536, "")
    """That the recorder asks each process to look out for, with ``;`` between them."""


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str = text(1024)


@dataclass(frozen=True, slots=True)
class Advance:
    generation: int = unsigned()


@dataclass(frozen=True, slots=True)
class RecorderHeartbeat:
    boot_id: bytes = fixed_bytes(16)
    generation: int = unsigned()
    """The generation that the receiver should be in: a lost Advance heals itself."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Every frame up to and with tseq ``stored_through`` is in the ring or was counted, but for the gaps."""

    boot_id: bytes = fixed_bytes(16)
    stored_through: int = unsigned()
    gaps: tuple[tuple[int, int], ...] = ranges(MAX_GAPS)


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop recording. ``rejoin_ns``: come back with a new incarnation after so long; 0: do not, until the program starts again."""

    reason: str = text(1024)
    rejoin_ns: int = unsigned(64, 0)


@dataclass(frozen=True, slots=True)
class Pong:
    sent_ns: int = unsigned()
    """As in the Ping."""
    recorder_ns: int = unsigned()


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of a report that began a snapshot."""

    id: int = unsigned()
    path: str = text(4096, "")
    """Of the snapshot, on the recorder's host; "": there is none."""
    reason: str = text(1024, "")
    error: str = text(1024, "")
    """Why there is none."""


@dataclass(frozen=True, slots=True)
class LogLine:
    wall_ns: int = unsigned()
    process: str = text(512)
    level: int = unsigned(32)
    logger: str = text(256)
    message: str = text(1024)


@dataclass(frozen=True, slots=True)
class Lines:
    id: int = unsigned()
    trace: str = text(32)
    lines: tuple[LogLine, ...] = many(nested_check(LogLine), MAX_LINES)
    more: int = unsigned(32, 0)
    """Earlier ones, left out."""
    error: str = text(1024, "")


# --- control, client to recorder


@dataclass(frozen=True, slots=True)
class StatusRequest:
    id: int = unsigned()
    writers: bool = flag(False)
    """With the ledger of each writer."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    id: int = unsigned()


@dataclass(frozen=True, slots=True)
class StopRequest:
    id: int = unsigned()


@dataclass(frozen=True, slots=True)
class FlushRequest:
    id: int = unsigned()
    timeout_ns: int = unsigned(64, 0)
    """0: the recorder's own."""
    double: bool = flag(False)
    """Advance twice also for the tracers that send end marks."""


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    id: int = unsigned()
    reason: str = text(1024, "")
    last_ns: int = unsigned(64, 0)
    """Only generations that reach into the last so many ns; 0: all."""
    share: bool = flag(False)
    """While another snapshot is being made: take its result, instead of the error snapshot_active."""
    credit: int = unsigned(16, 4)
    """How many chunks may be sent before more Credit."""
    timeout_ns: int = unsigned(64, 0)
    """Of the flush before it."""


@dataclass(frozen=True, slots=True)
class Credit:
    """So many more chunks of the snapshot with this id may be sent."""

    id: int = unsigned()
    chunks: int = unsigned(16)


@dataclass(frozen=True, slots=True)
class Cancel:
    """No more of the snapshot with this id, please."""

    id: int = unsigned()


# --- control, recorder to client


@dataclass(frozen=True, slots=True)
class TracerStatus:
    """One stream as the recorder sees it. Counts are records unless the name says otherwise."""

    uuid: bytes = fixed_bytes(16)
    service: str = text()
    pid: int = unsigned(32)
    state: str = text(32)
    """live, stopped, gone, dead or silent."""
    generation: int = unsigned()
    records: int = unsigned(64, 0)
    """Received."""
    recorded: int = unsigned(64, 0)
    """As far as is known; see `frzmq.wire.ledger`."""
    open: int = unsigned(64, 0)
    held: int = unsigned(64, 0)
    held_bytes: int = unsigned(64, 0)
    generations: int = unsigned(32, 0)
    """Sealed and held."""
    dropped: int = unsigned(64, 0)
    overwritten: int = unsigned(64, 0)
    late: int = unsigned(64, 0)
    duplicate: int = unsigned(64, 0)
    rejected: int = unsigned(64, 0)
    evicted: int = unsigned(64, 0)
    missing: int = unsigned(64, 0)
    torn: int = unsigned(64, 0)
    horizon_ns: int = unsigned(64, 0)
    """From when on this stream is complete, recorder's monotonic clock; 0: nothing held."""
    agent_cpu_ns: int = unsigned(64, 0)
    agent_errors: int = unsigned(64, 0)
    joined_ns: int = unsigned(64, 0)
    host: str = text(256, "")
    program: str = text(256, "")
    buffer_kind: str = text(64, "")
    buffer_bytes: int = unsigned(64, 0)
    error: str = text(1024, "")
    """Why it was stopped."""
    trigger_errors: int = unsigned(64, 0)
    trigger_problem: str = text(256, "")
    writers: tuple[WriterLedger, ...] = many(row_check(WriterLedger), MAX_WRITERS)
    """If they were asked for; the sums of the rows are those of the stream, but for ``other_writers``."""
    other_writers: int = unsigned(64, 0)
    """So many are not told apart, or had no room in the reply."""

    @property
    def ledger(self) -> Ledger:
        return Ledger(*(getattr(self, field.name) for field in fields(Ledger)))


@dataclass(frozen=True, slots=True)
class Status:
    """The recorder, now. Times are its monotonic clock."""

    state: str = text(32)
    """on or off."""
    version: str = text(64)
    pid: int = unsigned(32)
    boot_id: bytes = fixed_bytes(16)
    now_ns: int = unsigned()
    started_ns: int = unsigned()
    min_age_ns: int = unsigned()
    max_bytes: int = unsigned()
    held_bytes: int = unsigned(64, 0)
    horizon_ns: int = unsigned(64, 0)
    """From when on every held stream is complete; 0: nothing held."""
    records_per_s: int = unsigned(64, 0)
    bytes_per_s: int = unsigned(64, 0)
    rejected_frames: int = unsigned(64, 0)
    snapshots: int = unsigned(64, 0)
    flushes: int = unsigned(64, 0)
    reports: int = unsigned(64, 0)
    """Of triggers."""
    suppressed: int = unsigned(64, 0)
    """Reports that are in no snapshot: their triggers were in their cooldown, or over their number an hour."""
    stored: int = unsigned(64, 0)
    """Snapshots that triggers left in the directory."""
    stored_last: str = text(4096, "")
    """The path of the last."""
    more: int = unsigned(32, 0)
    """Tracers that a reply has no room for."""
    tracers: tuple[TracerStatus, ...] = many(nested_check(TracerStatus), 4096)
    errors: tuple[str, ...] = names(64)


@dataclass(frozen=True, slots=True)
class OkReply:
    id: int = unsigned()


@dataclass(frozen=True, slots=True)
class StatusReply:
    id: int = unsigned()
    status: Status = nested(Status)  # noqa: RUF009  # a field, as the others


@dataclass(frozen=True, slots=True)
class FlushReply:
    id: int = unsigned()
    missing: tuple[str, ...] = names(MAX_MISSING)
    """Tracers (``service[pid]``) that were live and did not answer in time."""


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    id: int = unsigned()
    offset: int = unsigned()
    data: bytes = data_field(MAX_CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    id: int = unsigned()
    size_bytes: int = unsigned()
    missing: tuple[str, ...] = names(MAX_MISSING)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    id: int = unsigned()
    code: str = text(64)
    """A ControlCode's value."""
    message: str = text(1024)


ToRecorder: TypeAlias = Hello | TracerHeartbeat | Ping | Report | LinesWanted
ToTracer: TypeAlias = Welcome | Reject | Advance | RecorderHeartbeat | Ack | Stop | Pong | Reported | Lines
Request: TypeAlias = StatusRequest | StartRequest | StopRequest | FlushRequest | SnapshotRequest | Credit | Cancel
Reply: TypeAlias = OkReply | StatusReply | FlushReply | SnapshotChunk | SnapshotEnd | ErrorReply
Message: TypeAlias = ToRecorder | ToTracer | Request | Reply

MESSAGE_TYPES: Final[dict[str, type]] = {
    # tracer to recorder
    "hello": Hello,
    "heartbeat": TracerHeartbeat,
    "ping": Ping,
    "report": Report,
    "lines?": LinesWanted,
    # recorder to tracer
    "welcome": Welcome,
    "reject": Reject,
    "advance": Advance,
    "level": RecorderHeartbeat,
    "ack": Ack,
    "stop": Stop,
    "pong": Pong,
    "reported": Reported,
    "lines": Lines,
    # client to recorder
    "status?": StatusRequest,
    "start?": StartRequest,
    "stop?": StopRequest,
    "flush?": FlushRequest,
    "snapshot?": SnapshotRequest,
    "credit": Credit,
    "cancel": Cancel,
    # recorder to client
    "ok": OkReply,
    "status": StatusReply,
    "flushed": FlushReply,
    "chunk": SnapshotChunk,
    "snapshot": SnapshotEnd,
    "error": ErrorReply,
}
"""Every type of message, by its name on the wire."""
_TYPE_OF: Final = {cls: name for name, cls in MESSAGE_TYPES.items()}


def encode_message(message: Message) -> bytes:
    return pack({"type": _TYPE_OF[type(message)], **to_map(message)})


def decode_message(data: bytes) -> Message:
    """The message in ``data``. Raises WireError."""
    value = unpack(data)
    if not isinstance(value, dict):
        raise WireError(f"message: wanted a map, got {type(value).__name__}")
    name = value.get("type")
    cls = MESSAGE_TYPES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise WireError(f"message: wanted a known type, got {shown(name)}")
    return cast(Message, from_map(cls, value, str(name)))
