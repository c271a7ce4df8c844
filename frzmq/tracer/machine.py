"""The tracer's side of the protocol as a state machine: it has every decision; the agent moves bytes. It does no IO and reads no clock.

::

             sockets made          welcome                  stop
    idle ──────────────> greeting ─────────> recording ─────────> stopped
     ^                    ^    ^              │    │                 │
     │  sockets closed    │    └──────────────┘    │ end, all of it  │ the back-off is over: next incarnation
     └──── (any but closed)    silence, or         v acknowledged    │
                          │    another recorder  closed              │
                          └──────────────────────────────────────────┘

Duties of the loop around `TracerMachine`:

1. Give each event once, with the monotonic time; carry the instructions out in their order.
2. A *question* is the last instruction of its list, and is answered by the next event: `SendFrame` by `FrameSent` or `FrameRefused`, `Collect` by `Collected`,
   `CutTo` by `GenerationCut`, `ReadSlices` by `SlicesRead`, `ReadStrings` by `StringsRead`.
3. Take slices (or the cut, or open items) *before* the strings, so that the strings of one answer hold all that its records use.
4. Give `Ticked` when `TracerMachine.deadline_ns` has come; while ``wants_room``, also as soon as the data socket can take a frame.
5. ``carry``: what was recorded so far has not been part of any generation; it goes into the one that is opened. Its open items are those
   of the moment before the first record that is carried.

What it keeps: of each batch that is not acknowledged its header, and of a batch of records no body: the buffer holds that until the chunk is released. So
memory is bounded by the window and by what one cut takes.

A batch gets its ``tseq`` once and keeps it when it is sent again. A batch of records whose chunk was reused in the meantime is sent again without
records, so that no gap stays. To a recorder that has started anew goes the string table, with a new ``tseq``, then all that is not acknowledged.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias, assert_never

from frzmq.errors import StateError
from frzmq.tracer.slices import Slice
from frzmq.wire.batch import (
    COALESCE_BYTES,
    HEADER_SIZE,
    MAX_BODY_BYTES,
    BatchType,
    EndMark,
    Header,
    Opening,
    WriterEnd,
    encode_batch,
    encode_end_mark,
    encode_opening,
)
from frzmq.wire.chunk import LARGE_CHUNK_BYTES
from frzmq.wire.messages import Ack, Advance, Pong, RecorderHeartbeat, Reject, Stop, ToTracer, Welcome
from frzmq.wire.version import OLDEST_WIRE_VERSION, WIRE_VERSION

MS: Final = 1_000_000
SHIP_NS: Final = 50 * MS
"""After something was shipped, until the buffer is looked at again."""
IDLE_SHIP_NS: Final = 100 * MS
"""The same, when there was nothing."""
WINDOW_BYTES: Final = 4 << 20
"""Sent and not acknowledged: beyond it no more is taken from the buffer but by a cut."""
ENTRY_BYTES: Final = 512
"""What a batch that waits for its acknowledgement is charged beside its body."""
FIRST_HELLO_NS: Final = 20 * MS
MAX_HELLO_NS: Final = 2_000 * MS
ENDING_HELLO_NS: Final = 50 * MS
PING_NS: Final = 5_000 * MS
FIRST_PINGS: Final = 4
"""So many go with the first heartbeats, one each."""
MAX_SAMPLES: Final = 12
"""Clock samples that are looked at: the last minute's."""
MIN_HEARTBEAT_NS: Final = 10 * MS
MIN_SILENCE_NS: Final = 100 * MS
MAX_FLUSHES: Final = 16
"""Flush marks under way; later ones wait, and share the next."""

Strings: TypeAlias = tuple[int, int, bytes]
"""First id, count, a run of msgpack str."""


class State(Enum):
    IDLE = "idle"
    GREETING = "greeting"
    RECORDING = "recording"
    STOPPED = "stopped"
    CLOSED = "closed"


# --- events


@dataclass(frozen=True, slots=True)
class Started:
    """The sockets are there."""


@dataclass(frozen=True, slots=True)
class Parked:
    """The sockets are gone; what they had taken may be lost."""


@dataclass(frozen=True, slots=True)
class LinkReceived:
    message: ToTracer


@dataclass(frozen=True, slots=True)
class Collected:
    slices: tuple[Slice, ...]
    strings: Strings | None = None
    dropped: int = 0
    """Records that the buffer dropped so far."""


@dataclass(frozen=True, slots=True)
class GenerationCut:
    """``at_ns``: when; ``slices`` and ``writers``: the end of the generation before; ``opening``: of the new one."""

    at_ns: int
    slices: tuple[Slice, ...]
    writers: tuple[WriterEnd, ...]
    opening: Opening
    strings: Strings | None = None
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class SlicesRead:
    """In the order of the question; None: its chunk was reused."""

    bodies: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class StringsRead:
    """The whole table; None: it is empty."""

    strings: Strings | None


@dataclass(frozen=True, slots=True)
class FrameSent:
    pass


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """The recorder is not there, or reads too slowly."""


@dataclass(frozen=True, slots=True)
class FlushAsked:
    """``token``: greater than each before."""

    token: int


@dataclass(frozen=True, slots=True)
class EndAsked:
    """The program ends, or stops to record: ship everything, say goodbye."""


@dataclass(frozen=True, slots=True)
class Ticked:
    pass


Event: TypeAlias = (
    Started
    | Parked
    | LinkReceived
    | Collected
    | GenerationCut
    | SlicesRead
    | StringsRead
    | FrameSent
    | FrameRefused
    | FlushAsked
    | EndAsked
    | Ticked
)

# --- instructions


@dataclass(frozen=True, slots=True)
class SendHello:
    incarnation: int
    generation: int


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """As `TracerHeartbeat`; the agent adds the counts."""

    generation: int
    tseq: int
    offset_ns: int = 0
    rtt_ns: int = 0
    sampled_ns: int = 0


@dataclass(frozen=True, slots=True)
class SendPing:
    sent_ns: int


@dataclass(frozen=True, slots=True)
class SendFrame:
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Collect:
    """What was published since the last time, up to about ``max_bytes``."""

    max_bytes: int


@dataclass(frozen=True, slots=True)
class CutTo:
    generation: int
    carry: bool = False


@dataclass(frozen=True, slots=True)
class ReadSlices:
    """The bodies again, of slices without."""

    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class ReadStrings:
    """The whole table, from its start."""


@dataclass(frozen=True, slots=True)
class Release:
    chunk: int
    serial: int


@dataclass(frozen=True, slots=True)
class CompleteFlush:
    """This token and all below it."""

    token: int
    ok: bool


@dataclass(frozen=True, slots=True)
class StopRecording:
    reason: str


@dataclass(frozen=True, slots=True)
class ResumeRecording:
    """After `StopRecording`."""


@dataclass(frozen=True, slots=True)
class Close:
    """There is nothing left to do."""


Question: TypeAlias = SendFrame | Collect | CutTo | ReadSlices | ReadStrings
Instruction: TypeAlias = (
    SendHello | SendHeartbeat | SendPing | Release | CompleteFlush | StopRecording | ResumeRecording | Close | Question
)
