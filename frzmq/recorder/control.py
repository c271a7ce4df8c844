"""The control side of the recorder's machine: start and stop, flushes, snapshots.

A flush has a target for each live tracer: the generation that must be sealed, and left. A tracer has at most one Advance under way. What was recorded
before a flush that finds one under way may be in the generation that it names: that generation becomes the target, and the next Advance, which all such
flushes share, follows when it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from frzmq.config import RecorderConfig
from frzmq.errors import ControlCode
from frzmq.recorder.events import (
    FindLines,
    LinesFound,
    ReadTail,
    SendLink,
    SendReply,
    ShareSnapshot,
    SnapshotClient,
    SnapshotFinished,
    State,
    Store,
    TailRead,
    WriteSnapshot,
)
from frzmq.recorder.incidents import Incident, Incidents
from frzmq.recorder.tail import Tail
from frzmq.recorder.tracers import Tracer
from frzmq.wire.messages import (
    MAX_MISSING,
    Cancel,
    Credit,
    ErrorReply,
    FlushReply,
    FlushRequest,
    Lines,
    LinesWanted,
    OkReply,
    Reply,
    Reported,
    Request,
    SnapshotRequest,
    StartRequest,
    StatusReply,
    StatusRequest,
    StopRequest,
)

if TYPE_CHECKING:
    from frzmq.recorder.machine import RecorderMachine

LINES_NS = 60 * 10**9
"""Log lines are looked for in the last so much."""
MAX_FLUSHES = 256
RECOVERY_NS = 2_000_000_000
"""For so long a snapshot, or a dead tracer's stream, waits for what a buffer file holds."""
MAX_CLIENTS = 64
MAX_TIMEOUT_NS = 3600 * 10**9


@dataclass(slots=True)
class _Target:
    generation: int
    again: bool
    """When it is sealed, the next generation must be sealed as well: the double flush."""


@dataclass(slots=True)
class _Flush:
    deadline_ns: int
    asked_by: tuple[bytes, int] | None
    """Peer and id of a FlushRequest; None: a snapshot, or lines."""
    targets: dict[int, _Target]
    """By tracer: what is waited for."""
    for_lines: bool = False


@dataclass(slots=True)
class _Snapshot:
    number: int
    reason: str
    last_ns: int
    clients: list[SnapshotClient]
    incident: Incident | None = None
    """That asks for it to be stored."""
    writing: bool = False
    asked: frozenset[int] = frozenset()
    """By number: the tracers that were told to flush."""
    stuck: dict[int, Tail | None] = field(default_factory=dict)
    """By number: who did not answer the flush, with what was read of its buffer."""
    unread: set[bytes] = field(default_factory=set)
    """Those whose buffers are being read, by uuid."""
    read_until_ns: int | None = None
    """No longer than this."""


@dataclass(slots=True)
class Control:
    machine: RecorderMachine
    config: RecorderConfig
    flushes: int = 0
    """Finished."""
    snapshots: int = 0
    """Written."""
    stored: int = 0
    stored_last: str = ""
    incidents: Incidents = field(default_factory=Incidents)
    _flushes: list[_Flush] = field(default_factory=list)
    _snapshot: _Snapshot | None = None
    _queued: list[tuple[bytes, SnapshotRequest]] = field(default_factory=list)
    """Requests that came while the recorder made one of its own accord."""
    _snapshot_number: int = 0
    _lines: tuple[bytes, LinesWanted] | None = None
    """Peer and question, until its answer is there."""
    _stopping: tuple[bytes, int] | None = None
    """Peer and id of a StopRequest that waits for the snapshot."""

    def deadline_ns(self) -> int | None:
        deadlines = [flush.deadline_ns for flush in self._flushes]
        due_ns = self.incidents.deadline_ns()
        if due_ns is not None and self._snapshot is None:
            deadlines.append(due_ns)
        if self._snapshot is not None and self._snapshot.read_until_ns is not None:
            deadlines.append(self._snapshot.read_until_ns)
        return min(deadlines, default=None)

    @property
    def busy(self) -> bool:
        """A snapshot is being made, or will be."""
        return self._snapshot is not None or self.incidents.pending

    def request(self, peer: bytes, request: Request, now_ns: int) -> None:
        match request:
            case StatusRequest():
                self._reply(peer, StatusReply(request.id, self.machine.status(now_ns, writers=request.writers)))
            case StartRequest():
                self._start(peer, request, now_ns)
            case StopRequest():
                self._stop(peer, request, now_ns)
            case FlushRequest():
                if self._is_on(peer, request.id, "flush"):
                    self._flush(peer, request, now_ns)
            case SnapshotRequest():
                if self._is_on(peer, request.id, "snapshot"):
                    self._begin_snapshot(peer, request, now_ns)
            case Credit() | Cancel():
                self._error(
                    peer,
                    request.id,
                    ControlCode.BAD_REQUEST,
                    "credit, cancel: wanted the id of a running snapshot, got another",
                )
            case _:
                assert_never(request)

    def garbage(self, peer: bytes, reason: str) -> None:
        self._error(peer, 0, ControlCode.BAD_REQUEST, reason)

    def progress(self, now_ns: int, changed: set[int] | None) -> None:
        """Ends the flushes that have what they wait for, or whose time is over. ``changed``: the tracers of which that may be so now; None: any."""
        for flush in list(self._flushes):
            for number in list(flush.targets) if changed is None else changed & flush.targets.keys():
                if self._reached(number, flush.targets[number], now_ns):
                    del flush.targets[number]
            if not flush.targets or now_ns >= flush.deadline_ns:
                self._flushes.remove(flush)
                self._finish_flush(flush, now_ns)
        snapshot = self._snapshot
        if (
            snapshot is not None
            and snapshot.read_until_ns is not None
            and (not snapshot.unread or now_ns >= snapshot.read_until_ns)
        ):
            self._write(snapshot, now_ns)
        if self._snapshot is None and (incident := self.incidents.take_due(now_ns)) is not None:
            self._snapshot_number += 1
            last_ns = incident.last_ns(now_ns)
            self._snapshot = _Snapshot(self._snapshot_number, incident.reason(), last_ns, [], incident)
            self._snapshot.asked = self._begin_flush(None, 0, False, now_ns)
            # where nobody is live there is nothing to wait for
            self.progress(now_ns, set())

    def snapshot_finished(self, event: SnapshotFinished, now_ns: int) -> None:
        if self._snapshot is None or self._snapshot.number != event.snapshot:
            return
        incident, self._snapshot = self._snapshot.incident, None
        if incident is not None:
            self._tell(incident, event)
        if event.error:
            self.machine.note_error(f"snapshot {event.snapshot}: {event.error}")
        else:
            self.snapshots += 1
        queued, self._queued = self._queued, []
        for peer, request in queued:
            self.request(peer, request, now_ns)
        if self._stopping is not None and self._snapshot is None:
            peer, id_ = self._stopping
            if self.incidents.pending:
                self.incidents.hurry(now_ns)
                return
            self._stopping = None
            self._switch_off(peer, id_, now_ns)

    # --- lines

    def lines_wanted(self, peer: bytes, wanted: LinesWanted, now_ns: int) -> None:
        if self._lines is not None:
            busy = "lines: wanted one question at a time, got one more"
            self.machine.emit(SendLink(peer, Lines(wanted.id, wanted.trace, (), 0, busy)))
            return
        self._lines = (peer, wanted)
        self._begin_flush(None, 0, False, now_ns, for_lines=True)

    def lines_found(self, found: LinesFound) -> None:
        if self._lines is not None:
            (peer, wanted), self._lines = self._lines, None
            answer = Lines(wanted.id, wanted.trace, found.lines, found.more, found.error[:1024])
            self.machine.emit(SendLink(peer, answer))

    # --- start and stop

    def _start(self, peer: bytes, request: StartRequest, now_ns: int) -> None:
        if self.machine.on:
            self._error(peer, request.id, ControlCode.STATE, "start: wanted a recorder that is off, got one that is on")
            return
        self.machine.switch_on(now_ns)
        self._reply(peer, OkReply(request.id))

    def _stop(self, peer: bytes, request: StopRequest, now_ns: int) -> None:
        if not self._is_on(peer, request.id, "stop"):
            return
        if self.busy:
            # what is reported, and waits for its moment, comes before the end
            self.incidents.hurry(now_ns)
            self._stopping = (peer, request.id)
        else:
            self._switch_off(peer, request.id, now_ns)

    def _switch_off(self, peer: bytes, id_: int, now_ns: int) -> None:
        for flush in self._flushes:
            if flush.asked_by is not None:
                self._error(*flush.asked_by, ControlCode.STATE, "flush: the recorder was stopped before it ended")
        if any(flush.for_lines for flush in self._flushes):
            self.lines_found(LinesFound(error="lines: the recorder was stopped"))
        self._flushes = []
        self.incidents.clear()
        error = self.machine.switch_off(now_ns)
        if error:
            self._error(peer, id_, ControlCode.RECORDING, error)
        else:
            self._reply(peer, OkReply(id_))

    def _is_on(self, peer: bytes, id_: int, what: str) -> bool:
        if self.machine.on and self._stopping is None:
            return True
        got = "one that is off" if not self.machine.on else "one that is stopping"
        self._error(peer, id_, ControlCode.STATE, f"{what}: wanted a recorder that is on, got {got}")
        return False

    # --- flush

    def _flush(self, peer: bytes, request: FlushRequest, now_ns: int) -> None:
        if len(self._flushes) >= MAX_FLUSHES:
            self._error(
                peer, request.id, ControlCode.BUSY, f"flush: wanted at most {MAX_FLUSHES} at once, got one more"
            )
        else:
            self._begin_flush((peer, request.id), request.timeout_ns, request.double, now_ns)

    def _begin_flush(
        self,
        asked_by: tuple[bytes, int] | None,
        timeout_ns: int,
        double: bool,
        now_ns: int,
        *,
        for_lines: bool = False,
    ) -> frozenset[int]:
        """The tracers that are told, by number."""
        targets: dict[int, _Target] = {}
        for tracer in self.machine.live():
            stream = tracer.stream
            self.machine.advance(tracer, now_ns)
            before = stream.asked - 1 if tracer.shared_advance_ns == now_ns else stream.asked
            targets[tracer.number] = _Target(before, double or not tracer.hello.end_marks)
        timeout_ns = min(timeout_ns or self.config.flush_timeout_ns, MAX_TIMEOUT_NS)
        self._flushes.append(_Flush(now_ns + timeout_ns, asked_by, targets, for_lines))
        return frozenset(targets)

    def _reached(self, number: int, target: _Target, now_ns: int) -> bool:
        tracer = self.machine.tracer(number)
        if tracer is None or tracer.state is not State.LIVE:
            # all that came of it is sealed
            return True
        if tracer.stream.settled_below > target.generation:
            if not target.again:
                return True
            target.generation, target.again = target.generation + 1, False
            return self._reached(number, target, now_ns)
        if tracer.stream.asked <= target.generation:
            self.machine.advance(tracer, now_ns)
        return False

    def _finish_flush(self, flush: _Flush, now_ns: int) -> None:
        tracers = [self.machine.tracer(number) for number in flush.targets]
        missing = tuple(tracer.name for tracer in tracers if tracer is not None)[:MAX_MISSING]
        if flush.asked_by is not None:
            self.flushes += 1
            self._reply(flush.asked_by[0], FlushReply(flush.asked_by[1], missing))
        elif flush.for_lines:
            if self._lines is not None:
                unanswered = [*flush.targets, *(tracer.number for tracer in self.machine.silent())]
                view = self.machine.telling.view(now_ns, LINES_NS, dict.fromkeys(unanswered))
                self.machine.emit(FindLines(self._lines[1].trace, view))
        elif self._snapshot is not None:
            self._read_stuck(self._snapshot, [t for t in tracers if t is not None] + self.machine.silent(), now_ns)

    def _read_stuck(self, snapshot: _Snapshot, tracers: list[Tracer], now_ns: int) -> None:
        """Who is stopped, or held in a call that gives nobody else the interpreter, does not answer: its buffer does."""
        snapshot.stuck = {tracer.number: None for tracer in tracers}
        for tracer in tracers:
            if tracer.hello.shared and not tracer.dying:
                snapshot.unread.add(tracer.hello.uuid)
                self.machine.emit(ReadTail(tracer.hello.uuid, tracer.stream.stored_records(), alive=True))
        if snapshot.unread:
            snapshot.read_until_ns = now_ns + RECOVERY_NS
        else:
            self._write(snapshot, now_ns)

    def tail_read(self, number: int, event: TailRead) -> None:
        """Of a tracer that lives."""
        snapshot = self._snapshot
        if snapshot is not None and event.uuid in snapshot.unread:
            snapshot.unread.discard(event.uuid)
            snapshot.stuck[number] = event.tail

    def _write(self, snapshot: _Snapshot, now_ns: int) -> None:
        snapshot.read_until_ns = None
        snapshot.writing = True
        self.machine.retain(now_ns)
        view = self.machine.telling.view(now_ns, snapshot.last_ns, snapshot.stuck, snapshot.asked)
        store = Store(snapshot.incident.service, snapshot.incident.on) if snapshot.incident is not None else None
        clients = tuple(snapshot.clients)
        silent = [self.machine.tracer(number) for number, tail in snapshot.stuck.items() if tail is None]
        missing = tuple(tracer.name for tracer in silent if tracer is not None)
        self.machine.emit(WriteSnapshot(snapshot.number, clients, view, snapshot.reason, missing, store))

    # --- snapshot

    def _begin_snapshot(self, peer: bytes, request: SnapshotRequest, now_ns: int) -> None:
        client = SnapshotClient(peer, request.id, request.credit)
        active = self._snapshot
        if active is None:
            self._snapshot_number += 1
            self._snapshot = _Snapshot(self._snapshot_number, request.reason, request.last_ns, [client])
            self._snapshot.asked = self._begin_flush(None, request.timeout_ns, False, now_ns)
        elif active.incident is not None and not request.share and len(self._queued) < MAX_CLIENTS:
            # nobody knew of it
            self._queued.append((peer, request))
        elif not request.share or len(active.clients) >= MAX_CLIENTS:
            self._error(
                peer, request.id, ControlCode.SNAPSHOT_ACTIVE, "snapshot: wanted no other to be made, got one that is"
            )
        else:
            active.clients.append(client)
            if active.writing:
                self.machine.emit(ShareSnapshot(active.number, client))

    def _tell(self, incident: Incident, event: SnapshotFinished) -> None:
        error = event.error or event.store_error
        if error:
            self.machine.note_error(f"snapshot of a trigger: {error}")
        else:
            self.stored += 1
            self.stored_last = event.path
        if incident.tell is None:
            return
        peer, id_ = incident.tell
        self.machine.emit(SendLink(peer, Reported(id_, event.path, incident.reason(), error[:1024])))

    # --- replies

    def _reply(self, peer: bytes, message: Reply) -> None:
        self.machine.emit(SendReply(peer, message))

    def _error(self, peer: bytes, id_: int, code: ControlCode, message: str) -> None:
        self._reply(peer, ErrorReply(id_, code.value, message[:1024]))
