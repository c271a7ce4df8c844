"""What the recorder tells of itself: its errors, its status, and the ring as it is. A part of the recorder's machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from frzmq.config import RecorderConfig
from frzmq.recorder.events import Answer, RingView, State
from frzmq.recorder.tail import Tail
from frzmq.recorder.tracers import ROW_BYTES, Tracer, status_bytes, whole_horizon_ns
from frzmq.wire.messages import Status, TracerStatus

if TYPE_CHECKING:
    from frzmq.recorder.machine import RecorderMachine

MAX_ERRORS = 64
MAX_STATUS_BYTES = 900 << 10


@dataclass(slots=True)
class Telling:
    machine: RecorderMachine
    config: RecorderConfig
    pid: int
    version: str
    started_ns: int
    records: int = 0
    frame_bytes: int = 0
    rejected_frames: int = 0
    _errors: list[str] = field(default_factory=list)
    _first_error: str = ""
    _rate_marks: list[tuple[int, int, int]] = field(default_factory=list)
    """Of the last two moments from which rates are counted: when, and the records and bytes until then."""

    def __post_init__(self) -> None:
        self._rate_marks = [(self.started_ns, 0, 0)] * 2

    def mark_rates(self, now_ns: int) -> None:
        self._rate_marks = [self._rate_marks[1], (now_ns, self.records, self.frame_bytes)]

    def note_error(self, text: str) -> None:
        self._first_error = self._first_error or text
        self.note(text)

    def note(self, text: str) -> None:
        """What is no fault of the recording."""
        if text not in self._errors:
            self._errors = [*self._errors, text][-MAX_ERRORS:]

    def take_first_error(self) -> str:
        """Since this was asked before, or ""."""
        error, self._first_error = self._first_error, ""
        return error

    def status(self, now_ns: int, *, writers: bool) -> Status:
        """``writers``: with the ledgers of the tracers' writers, as far as a reply can hold them."""
        ring, control = self.machine.ring, self.machine.control
        tracers: list[TracerStatus] = []
        told: list[Tracer] = []
        errors = [error[:256] for error in self._errors]
        room_bytes = MAX_STATUS_BYTES - 1024 * len(errors)
        for tracer in sorted(self.machine.known.by_number.values(), key=lambda t: t.state is not State.LIVE):
            status = tracer.status(ring.kept(tracer.number), ring.stream_bytes(tracer.number))
            room_bytes -= status_bytes(status)
            if room_bytes < 0:
                errors = [
                    f"status: {self.machine.tracers - len(tracers)} more tracers than a reply can hold",
                    *errors[1 - MAX_ERRORS :],
                ]
                break
            tracers.append(status)
            told.append(tracer)
        if writers and room_bytes > 0:
            most = room_bytes // max(len(told), 1) // ROW_BYTES
            tracers = [tracer.with_writers(status, most) for tracer, status in zip(told, tracers, strict=True)]
        since_ns, records, size_bytes = self._rate_marks[0]
        passed_ns = max(now_ns - since_ns, 10**9)
        return Status(
            state="on" if self.machine.on else "off",
            version=self.version,
            pid=self.pid,
            boot_id=self.machine.boot_id,
            now_ns=now_ns,
            started_ns=self.started_ns,
            min_age_ns=self.config.min_age_ns,
            max_bytes=self.config.max_bytes,
            held_bytes=ring.size_bytes,
            horizon_ns=self._horizon_ns(),
            records_per_s=(self.records - records) * 10**9 // passed_ns,
            bytes_per_s=(self.frame_bytes - size_bytes) * 10**9 // passed_ns,
            rejected_frames=self.rejected_frames,
            more=self.machine.tracers - len(tracers),
            snapshots=control.snapshots,
            flushes=control.flushes,
            reports=control.incidents.reports,
            suppressed=control.incidents.suppressed,
            stored=control.stored,
            stored_last=control.stored_last,
            tracers=tuple(tracers),
            errors=tuple(errors),
        )

    def _horizon_ns(self) -> int:
        known, ring = self.machine.known, self.machine.ring
        return whole_horizon_ns((tracer, ring.kept(tracer.number)) for tracer in known.by_number.values())

    def view(
        self,
        now_ns: int,
        last_ns: int,
        stuck: Mapping[int, Tail | None] = MappingProxyType({}),
        asked: frozenset[int] = frozenset(),
    ) -> RingView:
        """The ring as it is. ``last_ns``: only what reaches into the last so many ns; 0: all. By number ``asked``: tracers that were told to flush, and
        ``stuck``: those that do not answer, with what was read of their buffers."""
        from_ns = now_ns - last_ns if last_ns else 0
        parts = []
        for tracer in self.machine.known.by_number.values():
            kept = self.machine.ring.kept(tracer.number)
            parts.append((tracer, tuple(k for k in kept if k.end_ns >= from_ns)))
        streams = tuple(
            tracer.view_stuck(kept, stuck[tracer.number], now_ns)
            if tracer.number in stuck
            else tracer.view(
                kept,
                Answer.FLUSHED if tracer.number in asked and tracer.state in (State.LIVE, State.GONE) else Answer.NONE,
            )
            for tracer, kept in parts
        )
        horizon_ns = max(whole_horizon_ns(parts), from_ns if any(s.sealed for s in streams) else 0)
        return RingView(streams, self.config.min_age_ns, self.config.max_bytes, horizon_ns)
