"""From records in the order of time to the things that they tell of: processes, threads, tracks, operations, spans, and what happened in them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, assert_never

from frzmq.reader.calls import KINDS as CALL_KINDS
from frzmq.reader.calls import Calls
from frzmq.reader.messages import format_message
from frzmq.reader.model import (
    Call,
    CallFilter,
    Clock,
    Event,
    ExceptionEvent,
    Flow,
    Gap,
    Gauge,
    Log,
    Operation,
    Process,
    QuietCalls,
    Record,
    Span,
    Thread,
    Track,
)
from frzmq.reader.order import Entry, Lost, Opened
from frzmq.snapfile.format import SnapshotHeader, StreamHeader
from frzmq.wire.batch import OpenItem
from frzmq.wire.kinds import Kind

SLACK_NS = 10_000_000
"""A span appears in the tracer's open table a moment after its begin was recorded: one that began so shortly before an opening may not be listed."""


@dataclass(frozen=True, slots=True)
class Built:
    processes: tuple[Process, ...]
    threads: tuple[Thread, ...]
    tracks: tuple[Track, ...]
    operations: tuple[Operation, ...]
    spans: tuple[Span, ...]
    calls: tuple[Call, ...]
    quiet_calls: tuple[QuietCalls, ...]
    call_filters: tuple[CallFilter, ...]
    events: tuple[Event, ...]
    logs: tuple[Log, ...]
    exceptions: tuple[ExceptionEvent, ...]
    gauges: tuple[Gauge, ...]
    flows: tuple[Flow, ...]
    gaps: tuple[Gap, ...]
    unmatched_ends: int
    """Ends without a begin where nothing is known to be lost."""


@dataclass(slots=True)
class _Thread:
    number: int
    process: int
    writer: int
    name: str = ""
    native_id: int = 0
    begin_ns: int | None = None
    end_ns: int | None = None


@dataclass(slots=True)
class _Track:
    number: int
    process: int
    thread: int
    task: int
    label: str = ""
    stack: list[_Span] = field(default_factory=list)
    over: list[_Span] = field(default_factory=list)
    """Not listed as open any more, though no end of theirs came."""


@dataclass(slots=True)
class _Span:
    number: int
    thread: int
    track: _Track
    name: str
    begin_ns: int | None
    operation: int | None
    parent: int | None
    depth: int
    attributes: dict[str, Any] = field(default_factory=dict)
    begin_held: bool = True
    end_ns: int | None = None
    end_held: bool = False
    end_thread: int | None = None
    error: str = ""


@dataclass(slots=True)
class _Operation:
    number: int
    process: int
    thread: int
    track: int
    id: int
    name: str = ""
    trace: bytes = b""
    parent_id: int = 0
    remote: int = 0
    begin_ns: int | None = None
    end_ns: int | None = None
    error: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    begin_held: bool = False
    end_held: bool = False
    over: bool = False


@dataclass(slots=True)
class _End:
    """One end of a flow."""

    time_ns: int
    process: int
    track: int
    operation: int | None


class _Process:
    """What the records of one tracer have told so far."""

    def __init__(self) -> None:
        self.begin_ns: int | None = None
        self.end_ns: int | None = None
        self.end_reason = ""
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.threads: dict[int, _Thread] = {}
        self.tracks: dict[int, _Track] = {}
        """By task id, a thread's own by minus its writer's."""
        self.operations: dict[int, _Operation] = {}
        self.whole = True
        """Nothing is known to be lost so far, and its first records are here."""


class Builder:
    """Give it every entry in the order of time, then ask for `built`."""

    def __init__(self, header: SnapshotHeader, clocks: list[Clock]) -> None:
        self._header = header
        self._clocks = clocks
        self._processes = [_Process() for _ in header.streams]
        self._threads: list[_Thread] = []
        self._tracks: list[_Track] = []
        self._operations: list[_Operation] = []
        self._begun: dict[int, _Operation] = {}
        """By id, of all processes."""
        self._spans: list[_Span] = []
        self._events: list[Event] = []
        self._logs: list[Log] = []
        self._exceptions: list[ExceptionEvent] = []
        self._gauges: list[Gauge] = []
        self._gaps: list[Gap] = []
        self._injects: dict[tuple[bytes, int], _End] = {}
        self._extracts: list[tuple[bytes, int, _End]] = []
        self._unmatched_ends = 0
        self._calls = Calls()

    def take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            match entry:
                case Record():
                    self._record(entry)
                case Opened():
                    self._opened(entry)
                case Lost(_, gap):
                    self._gaps.append(gap)
                    self._lost(gap)
                case _:
                    assert_never(entry)

    def _lost(self, gap: Gap) -> None:
        process = self._processes[gap.process]
        process.whole = False
        if gap.cause == "incomplete":
            # what was open when the process died was open to its end
            return
        thread = None if gap.writer is None else self._thread(gap.process, gap.writer).number
        tracks = [t.number for t in process.tracks.values() if thread is None or t.task or t.thread == thread]
        self._calls.lost(gap.process, tracks, gap.begin_ns)

    # --- places

    def _thread(self, process: int, writer: int) -> _Thread:
        threads = self._processes[process].threads
        thread = threads.get(writer)
        if thread is None:
            thread = threads[writer] = _Thread(len(self._threads), process, writer)
            self._threads.append(thread)
        return thread

    def _track(self, process: int, writer: int, task: int) -> _Track:
        tracks = self._processes[process].tracks
        key = task or -writer - 1
        track = tracks.get(key)
        if track is None:
            thread = self._thread(process, writer)
            track = tracks[key] = _Track(len(self._tracks), process, thread.number, task)
            self._tracks.append(track)
        return track

    def _operation(self, process: int, writer: int, track: _Track, id_: int, *, own: bool = False) -> _Operation:
        """The process's own, or (unless ``own``) the one of another process: a forked child goes on inside the operation of its parent."""
        operations = self._processes[process].operations
        found = operations.get(id_) or (None if own else self._begun.get(id_))
        if found is None:
            thread = self._thread(process, writer)
            found = operations[id_] = _Operation(len(self._operations), process, thread.number, track.number, id_)
            self._operations.append(found)
        return found

    # --- records

    def _record(self, record: Record) -> None:
        process = self._processes[record.process]
        if process.first_ns is None:
            process.first_ns = record.time_ns
        process.last_ns = record.time_ns
        thread = self._thread(record.process, record.writer)
        track = self._track(record.process, record.writer, record.track)
        operation = None
        if record.op and record.name != "operation_end":
            operation = self._operation(record.process, record.writer, track, record.op).number
        fields: Any = record.fields
        time_ns = record.time_ns
        if record.name in CALL_KINDS:
            if record.name == "call_open":
                track = self._track(record.process, record.writer, fields["track"])
            begun = self._calls.take(record, record.process, track.number, thread.number, operation)
            self._unmatched_ends += process.whole and not begun
            return
        match record.name:
            case "span_begin":
                span = self._new_span(track, thread, fields["name"], time_ns, operation, track.stack)
                span.attributes = fields["attributes"]
                track.stack.append(span)
            case "span_end":
                self._end_span(process, track, thread, operation, record)
            case "operation_begin":
                self._begin_operation(record, track)
            case "operation_end":
                ended = self._operation(record.process, record.writer, track, fields["op"], own=True)
                ended.end_ns, ended.end_held, ended.over, ended.error = time_ns, True, False, fields["error"]
            case "operation_update":
                updated = self._operation(record.process, record.writer, track, fields["op"], own=True)
                updated.name = fields["name"] or updated.name
                updated.attributes = {**updated.attributes, **fields["attributes"]}
            case "event":
                self._events.append(
                    Event(
                        time_ns,
                        record.process,
                        thread.number,
                        track.number,
                        operation,
                        fields["name"],
                        fields["attributes"],
                    )
                )
            case "gauge":
                if type(fields["value"]) in (int, float):
                    value = float(fields["value"])
                    self._gauges.append(Gauge(time_ns, record.process, thread.number, fields["name"], value))
            case "log":
                self._logs.append(
                    Log(
                        time_ns,
                        record.process,
                        thread.number,
                        track.number,
                        operation,
                        fields["level"],
                        fields["logger"],
                        fields["message"],
                        fields["attributes"],
                    )
                )
            case "log_suppressed":
                message = format_message(fields["template"], fields["args"])
                place = (time_ns, record.process, thread.number, track.number, operation)
                self._logs.append(Log(*place, fields["level"], fields["logger"], message, suppressed=True))
            case "exception":
                self._exceptions.append(
                    ExceptionEvent(
                        time_ns,
                        record.process,
                        thread.number,
                        track.number,
                        operation,
                        fields["type"],
                        fields["message"],
                        fields["where"],
                        tuple(fields["traceback"].splitlines()),
                    )
                )
            case "context":
                track.label = track.label or fields["label"]
            case "thread_begin":
                thread.name, thread.native_id, thread.begin_ns = fields["name"], fields["native_id"], time_ns
            case "thread_end":
                thread.end_ns = time_ns
                self._end_thread(track, time_ns)
            case "process_begin":
                process.begin_ns = time_ns
            case "process_end":
                process.end_ns, process.end_reason = time_ns, fields["reason"]
            case "inject":
                self._injects.setdefault(
                    (fields["trace"], fields["id"]), _End(time_ns, record.process, track.number, operation)
                )
            case "extract":
                self._extracts.append(
                    (fields["trace"], fields["id"], _End(time_ns, record.process, track.number, operation))
                )
            case _:
                # a kind of a newer tracer: it is in the iteration
                pass

    def _new_span(
        self,
        track: _Track,
        thread: _Thread,
        name: str,
        begin_ns: int | None,
        operation: int | None,
        around: list[_Span],
    ) -> _Span:
        """``around``: those on its track that are open around it, innermost last."""
        parent = around[-1].number if around else None
        span = _Span(len(self._spans), thread.number, track, name, begin_ns, operation, parent, len(around))
        self._spans.append(span)
        return span

    def _end_span(
        self, process: _Process, track: _Track, thread: _Thread, operation: int | None, record: Record
    ) -> None:
        fields: Any = record.fields
        span = _innermost(track.stack, fields["name"]) or _innermost(track.over, fields["name"])
        if span is None:
            if process.whole:
                self._unmatched_ends += 1
            span = self._new_span(track, thread, fields["name"], None, operation, track.stack)
            span.begin_held = False
        span.end_ns, span.end_held, span.error, span.end_thread = record.time_ns, True, fields["error"], thread.number

    def _begin_operation(self, record: Record, track: _Track) -> None:
        fields: Any = record.fields
        operation = self._operation(record.process, record.writer, track, fields["op"], own=True)
        self._begun.setdefault(operation.id, operation)
        operation.name, operation.trace, operation.parent_id = fields["name"], fields["trace"], fields["parent"]
        operation.remote, operation.attributes = fields["remote"], fields["attributes"]
        operation.begin_ns, operation.begin_held = record.time_ns, True

    def _end_thread(self, track: _Track, time_ns: int) -> None:
        """What was open on a thread ended with it."""
        self._calls.thread_ended(track.process, track.number, time_ns)
        if track.task == 0:
            while track.stack:
                span = track.stack.pop()
                span.end_ns = time_ns
                track.over.append(span)

    # --- openings

    def _opened(self, opened: Opened) -> None:
        """What was open at this moment, held against what the records said."""
        process = self._processes[opened.process]
        offset_ns = opened.time_ns - opened.opening.monotonic_ns
        for info in opened.opening.writers:
            thread = self._thread(opened.process, info.writer)
            thread.name, thread.native_id = thread.name or info.name, thread.native_id or info.native_id
        listed: set[tuple[int, int]] = set()
        for item in sorted(opened.opening.open, key=lambda item: item.begin_ns):
            listed.add(self._open_item(opened, item, item.begin_ns + offset_ns))
        if opened.opening.open_omitted:
            process.whole = False
            return
        over_ns = opened.time_ns - SLACK_NS
        for track in process.tracks.values():
            for span in [s for s in track.stack if (0, s.number) not in listed and (s.begin_ns or 0) < over_ns]:
                track.stack.remove(span)
                track.over.append(span)
                span.end_ns = opened.time_ns
        for operation in process.operations.values():
            if (
                operation.end_ns is None
                and (1, operation.number) not in listed
                and operation.begin_ns is not None
                and operation.begin_ns < over_ns
            ):
                operation.end_ns, operation.over = opened.time_ns, True

    def _open_item(self, opened: Opened, item: OpenItem, begin_ns: int) -> tuple[int, int]:
        track = self._track(opened.process, item.writer, item.track)
        name = opened.strings.resolve(item.name)
        if item.kind == Kind.OPERATION_BEGIN:
            operation = self._operation(opened.process, item.writer, track, item.op, own=True)
            self._begun.setdefault(operation.id, operation)
            if operation.begin_ns is None:
                operation.name, operation.trace, operation.parent_id = name, item.trace, item.parent
                operation.begin_ns = begin_ns
            if operation.over:
                operation.end_ns, operation.over = None, False
            return (1, operation.number)
        span = next((s for s in (*track.stack, *track.over) if (s.begin_ns, s.name) == (begin_ns, name)), None)
        if span is None:
            number = self._operation(opened.process, item.writer, track, item.op).number if item.op else None
            around = [s for s in track.stack if _begin_of(s) <= begin_ns]
            thread = self._thread(opened.process, item.writer)
            span = self._new_span(track, thread, name, begin_ns, number, around)
            span.begin_held = False
            insort(track.stack, span, key=_begin_of)
        elif span in track.over:
            track.over.remove(span)
            span.end_ns = None
            insort(track.stack, span, key=_begin_of)
        return (0, span.number)

    # --- the result

    def built(self) -> Built:
        return Built(
            processes=tuple(self._built_process(number, stream) for number, stream in enumerate(self._header.streams)),
            threads=tuple(
                Thread(t.number, t.process, t.writer, t.name, t.native_id, t.begin_ns, t.end_ns) for t in self._threads
            ),
            tracks=tuple(Track(t.number, t.process, t.thread, t.task, self._label(t)) for t in self._tracks),
            operations=tuple(map(self._built_operation, self._operations)),
            spans=tuple(map(_built_span, self._spans)),
            calls=self._calls.built(),
            quiet_calls=self._calls.quiet(),
            call_filters=self._calls.filters(),
            events=tuple(self._events),
            logs=tuple(self._logs),
            exceptions=tuple(self._exceptions),
            gauges=tuple(self._gauges),
            flows=tuple(self._built_flows()),
            gaps=tuple(self._gaps),
            unmatched_ends=self._unmatched_ends,
        )

    def _label(self, track: _Track) -> str:
        return track.label or (self._threads[track.thread].name if track.task == 0 else "")

    def _built_process(self, number: int, stream: StreamHeader) -> Process:
        process = self._processes[number]
        return Process(
            number=number,
            uuid=stream.uuid.hex(),
            service=stream.service,
            pid=stream.pid,
            parent_pid=stream.parent_pid,
            host=stream.host,
            program=stream.program,
            python=stream.python,
            incarnation=stream.incarnation,
            state=stream.state,
            error=stream.error,
            begin_ns=process.begin_ns,
            end_ns=process.end_ns,
            end_reason=process.end_reason,
            first_ns=process.first_ns,
            last_ns=process.last_ns,
            horizon_ns=stream.horizon_ns,
            ledger=stream.ledger,
            clock=self._clocks[number],
            writers=stream.writers,
            other_writers=stream.other_writers,
        )

    def _built_operation(self, o: _Operation) -> Operation:
        parent = self._processes[o.process].operations.get(o.parent_id) or self._begun.get(o.parent_id)
        return Operation(
            number=o.number,
            process=o.process,
            thread=o.thread,
            track=o.track,
            name=o.name,
            op=f"{o.id:016x}",
            trace=o.trace.hex(),
            parent=parent.number if parent is not None else None,
            remote_parent=f"{o.remote:016x}" if o.remote else "",
            begin_ns=o.begin_ns,
            end_ns=o.end_ns,
            error=o.error,
            attributes=o.attributes,
            begin_held=o.begin_held,
            end_held=o.end_held,
        )

    def _built_flows(self) -> Iterable[Flow]:
        for trace, id_, to in self._extracts:
            source = self._injects.get((trace, id_))
            if source is not None:
                yield Flow(
                    trace.hex(),
                    f"{id_:016x}",
                    source.time_ns,
                    source.process,
                    source.track,
                    source.operation,
                    to.time_ns,
                    to.process,
                    to.track,
                    to.operation,
                )


def _begin_of(span: _Span) -> int:
    return span.begin_ns or 0


def _innermost(spans: list[_Span], name: str) -> _Span | None:
    """Taken out."""
    for n in range(len(spans) - 1, -1, -1):
        if spans[n].name == name:
            return spans.pop(n)
    return None


def _built_span(span: _Span) -> Span:
    return Span(
        number=span.number,
        process=span.track.process,
        thread=span.thread,
        track=span.track.number,
        name=span.name,
        begin_ns=span.begin_ns,
        end_ns=span.end_ns,
        error=span.error,
        operation=span.operation,
        parent=span.parent,
        depth=span.depth,
        attributes=span.attributes,
        end_thread=span.end_thread,
        begin_held=span.begin_held,
        end_held=span.end_held,
    )
