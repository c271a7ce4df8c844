"""What a snapshot says, in the words of those who look at it.

All times are ns on the recorder's monotonic clock, aligned; `Snapshot.wall_ns` turns one into wall time. A time is None where it is not known: a begin
that is not held, an end that has not come. Things name each other by number: the index in the snapshot's tuple of their kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from frzmq.wire.codec import Scalar, Value
from frzmq.wire.ledger import Ledger, WriterLedger

Attributes = Mapping[str, Scalar]


class Record(NamedTuple):
    """One record as it was made: what iterating over a snapshot yields, in the order of time."""

    time_ns: int
    process: int
    writer: int
    writer_index: int
    """The writer's index of it."""
    name: str
    """Of its kind: span_begin, log, ..."""
    fields: dict[str, Value]
    """By the names of the kind table; strings resolved."""
    track: int
    """The asyncio task, or 0 for the thread itself."""
    op: int
    """Id of the operation around it, or 0."""
    generation: int


@dataclass(frozen=True, slots=True)
class Clock:
    """How one process's clock was brought to the recorder's."""

    offset_ns: int = 0
    """Added to the tracer's times."""
    error_ns: int | None = 0
    """The true offset is at most so far away; None: nothing is known about it."""
    source: str = "same machine"
    """same machine, link (the tracer measured it), flow edges, hello (one way only) or none."""
    applied: bool = True


@dataclass(frozen=True, slots=True)
class Process:
    number: int
    uuid: str
    """Hex."""
    service: str
    pid: int
    parent_pid: int
    host: str
    program: str
    python: str
    incarnation: int
    state: str
    """live, stopped, gone, dead or silent."""
    error: str
    """Why it was stopped, or ""."""
    begin_ns: int | None
    """When it began to be recorded, if that is held."""
    end_ns: int | None
    """When it said that it ends, if it did."""
    end_reason: str
    first_ns: int | None
    """Of what is held; None: nothing is."""
    last_ns: int | None
    horizon_ns: int
    """From when on it is complete; 0: nothing is held."""
    ledger: Ledger
    clock: Clock
    writers: tuple[WriterLedger, ...] = ()
    """The ledger by writer; an older file does not have it."""
    other_writers: int = 0
    """So many more, of which there is none."""

    @property
    def name(self) -> str:
        return f"{self.service}[{self.pid}]"


@dataclass(frozen=True, slots=True)
class Thread:
    number: int
    process: int
    writer: int
    name: str
    native_id: int
    begin_ns: int | None
    end_ns: int | None


@dataclass(frozen=True, slots=True)
class Track:
    """Where spans nest: a thread by itself, or an asyncio task."""

    number: int
    process: int
    thread: int
    """The thread on which it was seen first."""
    task: int
    """The task's id in its process; 0: the thread itself."""
    label: str


@dataclass(frozen=True, slots=True)
class Operation:
    number: int
    process: int
    thread: int
    """Where it began (or, that not being held, was first seen)."""
    track: int
    name: str
    """"": its begin is lost."""
    op: str
    """Its id, 16 hex digits: the W3C span id."""
    trace: str
    """32 hex digits, "" when its begin is lost."""
    parent: int | None
    """The operation around it, of the same process."""
    remote_parent: str
    """The parent id that it continues, 16 hex digits, or ""."""
    begin_ns: int | None
    end_ns: int | None
    """None: it had not ended."""
    error: str
    """The name of the exception that ended it, or ""."""
    attributes: Attributes = field(default_factory=dict)
    begin_held: bool = True
    """False: known from the open table or its end only, so that its attributes and remote parent are not."""
    end_held: bool = True
    """False: its end is not here. Without an ``end_ns`` it had not ended; with one, it was over by then at the latest."""


@dataclass(frozen=True, slots=True)
class Span:
    number: int
    process: int
    thread: int
    track: int
    name: str
    begin_ns: int | None
    """None: only its end is held."""
    end_ns: int | None
    """None: it had not ended."""
    error: str
    operation: int | None
    parent: int | None
    """The span around it on its track."""
    depth: int
    """0: none around it."""
    attributes: Attributes = field(default_factory=dict)
    end_thread: int | None = None
    """Where it ended."""
    begin_held: bool = True
    """False: known from the open table or its end only."""
    end_held: bool = True
    """False: its end is not here. Without an ``end_ns`` it had not ended; with one, it was over by then at the latest."""


class Code(NamedTuple):
    """A function, as calls name it."""

    name: str
    """module.qualname"""
    file: str
    """"": not known, as its line."""
    line: int


class Call(NamedTuple):
    """One call of a function; of a generator or coroutine, one stretch in which it ran without being suspended."""

    number: int
    process: int
    thread: int
    track: int
    code: Code
    begin_ns: int | None
    """None: only its end is held."""
    end_ns: int | None
    """None: it had not ended."""
    error: str
    """The name of the exception that ended it, or ""."""
    operation: int | None
    depth: int
    """How many recorded calls are around it on its track."""
    resumed: bool
    """It went on here, after it had been suspended."""
    suspended: bool
    """It did not return here, but yielded or waited."""
    begin_held: bool
    """False: known from what was open when a generation began, or from its end only."""
    end_held: bool
    """False: its end is not here. Without an ``end_ns`` it had not ended; with one, it was over by then at the latest."""

    @property
    def name(self) -> str:
        return self.code.name

    @property
    def attributes(self) -> Attributes:
        return {"file": self.code.file, "line": self.code.line} if self.code.file else {}


@dataclass(frozen=True, slots=True)
class QuietCalls:
    """Calls of a function that was called too often: they were counted, not recorded."""

    process: int
    code: Code
    begin_ns: int
    end_ns: int
    """As ``begin_ns``: it only says that it is quiet from here on, or as a generation begins."""
    count: int
    at_least: bool
    """There were more, which were not even counted."""
    calm: bool
    """From ``end_ns`` on its calls are recorded again."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls of a process are recorded, as it says in each generation."""

    process: int
    since_ns: int
    """Of what is held."""
    include: str
    """Patterns of modules with commas between them; "": all but the standard library's."""
    exclude: str
    limit: int
    """Calls of one function in a second beyond which it is quiet; 0: there is none."""


@dataclass(frozen=True, slots=True)
class Event:
    time_ns: int
    process: int
    thread: int
    track: int
    operation: int | None
    name: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Log:
    time_ns: int
    process: int
    thread: int
    track: int
    operation: int | None
    level: int
    """As in `logging`: 30 is a warning."""
    logger: str
    message: str
    attributes: Attributes = field(default_factory=dict)
    suppressed: bool = False
    """The program's levels did not let it through; it was recorded for the case that the operation fails."""


@dataclass(frozen=True, slots=True)
class ExceptionEvent:
    time_ns: int
    process: int
    thread: int
    track: int
    operation: int | None
    type: str
    message: str
    where: str
    """main, thread or asyncio."""
    traceback: tuple[str, ...]
    """``file:line function``, innermost last."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """One value of it."""

    time_ns: int
    process: int
    thread: int
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Flow:
    """From an inject to the operation that continues it (or, without one, to its extract)."""

    trace: str
    id: str
    """The parent id that went over, 16 hex digits."""
    from_ns: int
    from_process: int
    from_track: int
    from_operation: int | None
    to_ns: int
    to_process: int
    to_track: int
    to_operation: int | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is known not to be here."""

    process: int
    writer: int | None
    """None: of all of them."""
    begin_ns: int
    end_ns: int
    cause: str
    """overwritten, missing (or late), dropped, incomplete (the generation was sealed by death, silence, ...), damaged (the file), evicted (a hole of generations)."""
    count: int | None
    """Records; None: not known."""
    generation: int
    detail: str = ""
