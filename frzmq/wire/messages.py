"""The messages of the link and of the control socket: msgpack maps with a ``type``, as frozen dataclasses.

Unknown keys are ignored, so that a newer peer may say more; a missing key without a default, a wrong type or a value out of
bounds is a WireError. Times are ns; a flag named ``*_ns`` of 0 means "not set".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from frzmq.errors import WireError
from frzmq.wire.codec import Value, pack, unpack

MAX_CHUNK_BYTES: Final = 256 << 10
MAX_GAPS: Final = 1024
_REQUIRED: Final = dataclasses.MISSING


@dataclass(frozen=True, slots=True)
class _Check:
    wanted: str
    decode: Callable[[Any], Any]
    """The checked value; raises ValueError."""
    encode: Callable[[Any], Value]


def _plain(wanted: str, ok: Callable[[Any], bool]) -> _Check:
    def decode(value: Any) -> Any:
        if not ok(value):
            raise ValueError
        return value

    return _Check(wanted, decode, lambda value: cast(Value, value))


def _field(check: _Check, default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"check": check})


def _unsigned(bits: int = 64, default: Any = _REQUIRED) -> Any:
    return _field(
        _plain(f"an unsigned integer of {bits} bits", lambda v: type(v) is int and 0 <= v < 1 << bits), default
    )


def _signed(default: Any = _REQUIRED) -> Any:
    return _field(_plain("an integer of 64 bits", lambda v: type(v) is int and -(1 << 63) <= v < 1 << 63), default)


def _text(most: int = 256, default: Any = _REQUIRED) -> Any:
    return _field(
        _plain(f"a string of at most {most} characters", lambda v: type(v) is str and len(v) <= most), default
    )


def _bytes(size: int, default: Any = _REQUIRED) -> Any:
    return _field(_plain(f"{size} bytes", lambda v: type(v) is bytes and len(v) == size), default)


def _data(most: int) -> Any:
    return _field(_plain(f"at most {most} bytes", lambda v: type(v) is bytes and len(v) <= most), _REQUIRED)


def _flag(default: Any = _REQUIRED) -> Any:
    return _field(_plain("true or false", lambda v: type(v) is bool), default)


def _nested(cls: type) -> Any:
    return _field(_nested_check(cls), _REQUIRED)


def _nested_check(cls: type) -> _Check:
    return _Check(f"a map ({cls.__name__})", lambda value: _from_map(cls, value), lambda value: _to_map(value))  # noqa: PLW0108


def _many(check: _Check, most: int, default: Any = ()) -> Any:
    def decode(value: Any) -> Any:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError
        return tuple(map(check.decode, value))

    many = _Check(f"a list of at most {most}: {check.wanted}", decode, lambda values: [check.encode(v) for v in values])
    return _field(many, default)


def _names(most: int = 1024) -> Any:
    return _many(_plain("a string", lambda v: type(v) is str and len(v) <= 256), most)


def _is_range(value: Any) -> Any:
    match value:
        case [int(start), int(end)] if 0 <= start < end < 1 << 64:
            return (start, end)
        case _:
            raise ValueError


def _ranges() -> Any:
    return _many(_Check("a range [from, to)", _is_range, list), MAX_GAPS)


# --- link, tracer to recorder


@dataclass(frozen=True, slots=True)
class Hello:
    """A tracer introduces itself; answered by Welcome or Reject."""

    uuid: bytes = _bytes(16)
    incarnation: int = _unsigned(32)
    wire_oldest: int = _unsigned(8)
    wire_newest: int = _unsigned(8)
    pid: int = _unsigned(32)
    service: str = _text()
    generation: int = _unsigned()
    """The last generation that this tracer opened, 0 for none: Welcome continues above it."""
    end_marks: bool = _flag(True)
    """False: it sends none, so that a flush must advance twice to prove a generation complete."""
    parent_pid: int = _unsigned(32, 0)
    host: str = _text(256, "")
    machine: str = _text(64, "")
    """Names the running kernel (its boot id): tracers of one machine share a monotonic clock."""
    program: str = _text(256, "")
    python: str = _text(64, "")
    buffer_kind: str = _text(64, "")
    buffer_bytes: int = _unsigned(64, 0)
    shared: bool = _flag(False)
    """Its buffer is a file of the runtime directory, named by its uuid."""
    lock: bool = _flag(False)
    """It holds a record lock on the file UUID.lock of the runtime directory for as long as it lives."""
    monotonic_ns: int = _unsigned(64, 0)
    boottime_ns: int = _unsigned(64, 0)
    wall_ns: int = _unsigned(64, 0)


@dataclass(frozen=True, slots=True)
class TracerHeartbeat:
    generation: int = _unsigned()
    tseq: int = _unsigned()
    """The last that was sent."""
    recorded: int = _unsigned(64, 0)
    dropped: int = _unsigned(64, 0)
    overwritten: int = _unsigned(64, 0)
    agent_cpu_ns: int = _unsigned(64, 0)
    errors: int = _unsigned(64, 0)
    offset_ns: int = _signed(0)
    """Recorder clock minus tracer clock, of the sample with the least round trip; meaningless while rtt_ns is 0."""
    rtt_ns: int = _unsigned(64, 0)
    sampled_ns: int = _unsigned(64, 0)


@dataclass(frozen=True, slots=True)
class Ping:
    sent_ns: int = _unsigned()


# --- link, recorder to tracer


@dataclass(frozen=True, slots=True)
class Welcome:
    boot_id: bytes = _bytes(16)
    """Names this run of the recorder: when it changed, what was not acknowledged must be sent again, and the whole string table."""
    nonce: int = _unsigned()
    """Proves a batch: the tracer puts it into every header."""
    generation: int = _unsigned()
    """The generation to open now."""
    version: int = _unsigned(8)
    heartbeat_ns: int = _unsigned()
    silence_ns: int = _unsigned()
    """A tracer not heard of for so long is taken for gone."""


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str = _text(1024)


@dataclass(frozen=True, slots=True)
class Advance:
    generation: int = _unsigned()


@dataclass(frozen=True, slots=True)
class RecorderHeartbeat:
    boot_id: bytes = _bytes(16)
    generation: int = _unsigned()
    """The generation that the receiver should be in: a lost Advance heals itself."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Every frame up to and with tseq ``stored_through`` is in the ring or was counted, but for the gaps."""

    boot_id: bytes = _bytes(16)
    stored_through: int = _unsigned()
    gaps: tuple[tuple[int, int], ...] = _ranges()


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop recording. ``rejoin_ns``: come back with a new incarnation after so long; 0: do not, until the program starts again."""

    reason: str = _text(1024)
    rejoin_ns: int = _unsigned(64, 0)


@dataclass(frozen=True, slots=True)
class Pong:
    sent_ns: int = _unsigned()
    """As in the Ping."""
    recorder_ns: int = _unsigned()


# --- control, client to recorder


@dataclass(frozen=True, slots=True)
class StatusRequest:
    id: int = _unsigned()


@dataclass(frozen=True, slots=True)
class StartRequest:
    id: int = _unsigned()


@dataclass(frozen=True, slots=True)
class StopRequest:
    id: int = _unsigned()


@dataclass(frozen=True, slots=True)
class FlushRequest:
    id: int = _unsigned()
    timeout_ns: int = _unsigned(64, 0)
    """0: the recorder's own."""
    double: bool = _flag(False)
    """Advance twice also for the tracers that send end marks."""


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    id: int = _unsigned()
    reason: str = _text(1024, "")
    last_ns: int = _unsigned(64, 0)
    """Only generations that reach into the last so many ns; 0: all."""
    share: bool = _flag(False)
    """While another snapshot is being made: take its result, instead of the error snapshot_active."""
    credit: int = _unsigned(16, 4)
    """How many chunks may be sent before more Credit."""
    timeout_ns: int = _unsigned(64, 0)
    """Of the flush before it."""


@dataclass(frozen=True, slots=True)
class Credit:
    """So many more chunks of the snapshot with this id may be sent."""

    id: int = _unsigned()
    chunks: int = _unsigned(16)


@dataclass(frozen=True, slots=True)
class Cancel:
    """No more of the snapshot with this id, please."""

    id: int = _unsigned()


# --- control, recorder to client


@dataclass(frozen=True, slots=True)
class TracerStatus:
    """One stream as the recorder sees it. Counts are records unless the name says otherwise."""

    uuid: bytes = _bytes(16)
    service: str = _text()
    pid: int = _unsigned(32)
    state: str = _text(32)
    """live, stopped, gone, dead or silent."""
    generation: int = _unsigned()
    records: int = _unsigned(64, 0)
    """Received."""
    held: int = _unsigned(64, 0)
    held_bytes: int = _unsigned(64, 0)
    generations: int = _unsigned(32, 0)
    """Sealed and held."""
    dropped: int = _unsigned(64, 0)
    overwritten: int = _unsigned(64, 0)
    late: int = _unsigned(64, 0)
    duplicate: int = _unsigned(64, 0)
    rejected: int = _unsigned(64, 0)
    evicted: int = _unsigned(64, 0)
    missing: int = _unsigned(64, 0)
    torn: int = _unsigned(64, 0)
    horizon_ns: int = _unsigned(64, 0)
    """From when on this stream is complete, recorder's monotonic clock; 0: nothing held."""
    agent_cpu_ns: int = _unsigned(64, 0)
    agent_errors: int = _unsigned(64, 0)
    joined_ns: int = _unsigned(64, 0)
    host: str = _text(256, "")
    program: str = _text(256, "")
    buffer_kind: str = _text(64, "")
    buffer_bytes: int = _unsigned(64, 0)
    error: str = _text(1024, "")
    """Why it was stopped."""


@dataclass(frozen=True, slots=True)
class Status:
    """The recorder, now. Times are its monotonic clock."""

    state: str = _text(32)
    """on or off."""
    version: str = _text(64)
    pid: int = _unsigned(32)
    boot_id: bytes = _bytes(16)
    now_ns: int = _unsigned()
    started_ns: int = _unsigned()
    min_age_ns: int = _unsigned()
    max_bytes: int = _unsigned()
    held_bytes: int = _unsigned(64, 0)
    horizon_ns: int = _unsigned(64, 0)
    """From when on every held stream is complete; 0: nothing held."""
    records_per_s: int = _unsigned(64, 0)
    bytes_per_s: int = _unsigned(64, 0)
    rejected_frames: int = _unsigned(64, 0)
    snapshots: int = _unsigned(64, 0)
    flushes: int = _unsigned(64, 0)
    tracers: tuple[TracerStatus, ...] = _many(_nested_check(TracerStatus), 4096)
    errors: tuple[str, ...] = _names(64)


@dataclass(frozen=True, slots=True)
class OkReply:
    id: int = _unsigned()


@dataclass(frozen=True, slots=True)
class StatusReply:
    id: int = _unsigned()
    status: Status = _nested(Status)  # noqa: RUF009


@dataclass(frozen=True, slots=True)
class FlushReply:
    id: int = _unsigned()
    missing: tuple[str, ...] = _names()
    """Tracers (``service[pid]``) that were live and did not answer in time."""


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    id: int = _unsigned()
    offset: int = _unsigned()
    data: bytes = _data(MAX_CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    id: int = _unsigned()
    size_bytes: int = _unsigned()
    missing: tuple[str, ...] = _names()


@dataclass(frozen=True, slots=True)
class ErrorReply:
    id: int = _unsigned()
    code: str = _text(64)
    """A ControlCode's value."""
    message: str = _text(1024)


ToRecorder: TypeAlias = Hello | TracerHeartbeat | Ping
ToTracer: TypeAlias = Welcome | Reject | Advance | RecorderHeartbeat | Ack | Stop | Pong
Request: TypeAlias = StatusRequest | StartRequest | StopRequest | FlushRequest | SnapshotRequest | Credit | Cancel
Reply: TypeAlias = OkReply | StatusReply | FlushReply | SnapshotChunk | SnapshotEnd | ErrorReply
Message: TypeAlias = ToRecorder | ToTracer | Request | Reply

_NAMES: Final[dict[str, type]] = {
    # tracer to recorder
    "hello": Hello,
    "heartbeat": TracerHeartbeat,
    "ping": Ping,
    # recorder to tracer
    "welcome": Welcome,
    "reject": Reject,
    "advance": Advance,
    "level": RecorderHeartbeat,
    "ack": Ack,
    "stop": Stop,
    "pong": Pong,
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
_TYPE_OF: Final = {cls: name for name, cls in _NAMES.items()}


def _to_map(message: Any) -> dict[str | int, Value]:
    return {
        field.name: cast(_Check, field.metadata["check"]).encode(getattr(message, field.name))
        for field in dataclasses.fields(message)
    }


def _from_map(cls: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError
    arguments = {}
    for field in dataclasses.fields(cls):
        check = cast(_Check, field.metadata["check"])
        if field.name in value:
            try:
                arguments[field.name] = check.decode(value[field.name])
            except ValueError:
                raise WireError(
                    f"{_TYPE_OF.get(cls, cls.__name__)}.{field.name}: wanted {check.wanted}, got {value[field.name]!r:.60}"
                ) from None
        elif field.default is dataclasses.MISSING:
            raise WireError(f"{_TYPE_OF.get(cls, cls.__name__)}.{field.name}: wanted {check.wanted}, got nothing")
    return cls(**arguments)


def encode_message(message: Message) -> bytes:
    return pack({"type": _TYPE_OF[type(message)], **_to_map(message)})


def decode_message(data: bytes) -> Message:
    """The message in ``data``. Raises WireError."""
    value = unpack(data)
    if not isinstance(value, dict):
        raise WireError(f"message: wanted a map, got {type(value).__name__}")
    name = value.get("type")
    cls = _NAMES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise WireError(f"message: wanted a known type, got {name!r:.40}")
    return cast(Message, _from_map(cls, value))
