"""What the tracer's machine is told (events, in the past tense) and what it asks for (instructions, in the imperative).

Duties of the loop around `TracerMachine`:

1. Give each event once, with the monotonic time; carry the instructions out in their order.
2. A *question* is the last instruction of its list, and is answered by the next event: `SendFrame` by `FrameSent` or `FrameRefused`, `Collect` by `Collected`,
   `CutTo` by `GenerationCut`, `ReadSlices` by `SlicesRead`, `ReadStrings` by `StringsRead`.
3. Take slices (or the cut, or open items) *before* the strings, so that the strings of one answer hold all that its records use.
4. Give `Ticked` when `TracerMachine.deadline_ns` has come; while ``wants_room``, also as soon as the data socket can take a frame.
5. ``carry``: what was recorded so far has not been part of any generation; it goes into the one that is opened. Its open items are those
   of the moment before the first record that is carried, of each writer: `Cut.moments`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from frzmq.tracer.slices import Slice
from frzmq.wire.batch import Opening, WriterEnd
from frzmq.wire.messages import ToTracer

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
    nonce: int = 0
    """Of the last welcome; 0: there was none."""


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
