"""A snapshot as a Perfetto trace, which opens in its timeline (ui.perfetto.dev) and answers SQL in its trace processor.

Every process is a packet sequence of its own: its names are interned, and its times are differences to the packet before, on an incremental clock that the
sequence's first packet ties to the recorder's monotonic and wall clocks. Tracks: one for each process, thread and asyncio task; a further one where spans and
operations of a track do not nest; one for each gauge; one of the calls that were only counted; and below its thread, or process, one for each cause of loss. What goes from process to process is a flow between two instants.

Field numbers are those of Perfetto's protos (perfetto/trace/trace_packet.proto and what it includes).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from frzmq.export.lanes import Bar, lanes
from frzmq.export.protobuf import data, double, integer, text, varint
from frzmq.export.text import level_name, lost_text
from frzmq.reader.deaths import touched
from frzmq.reader.model import (
    Attributes,
    Call,
    Event,
    ExceptionEvent,
    Flow,
    Gap,
    Gauge,
    Log,
    Operation,
    Process,
    QuietCalls,
    Thread,
)
from frzmq.reader.snapshot import Snapshot
from frzmq.wire.codec import Scalar

_REALTIME: Final = 1
_MONOTONIC: Final = 3
_INCREMENTAL: Final = 64
"""The first of the ids that a sequence may define for itself."""
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4
_MAX_PID: Final = 1 << 22
_CLEARED: Final = 1
_NEEDED: Final = 2
_MAX_NAME_CHARS: Final = 200
_UNITS: Final = {"ns": 1, "count": 2, "total": 2, "bytes": 3}
"""Of a gauge, by the last word of its name; another word is shown as it is."""
_UNIT_NAMES: Final = frozenset({"s", "ms", "us", "percent", "ratio", "celsius", "hz", "watts"})
_fixed64: Final = Struct("<Q").pack


@dataclass(frozen=True, slots=True)
class _Packet:
    """One event of a sequence."""

    time_ns: int
    track: int
    type: int
    name: str = ""
    category: str = ""
    arguments: tuple[tuple[str, Scalar], ...] = ()
    fields: bytes = b""
    """More of its TrackEvent."""
    plain_name: bool = False
    """Seldom the same: not interned."""


def write_perfetto(snapshot: Snapshot, write: Callable[[bytes], object]) -> int:
    """Gives it to ``write`` piece by piece and returns its size in bytes."""
    written = 0
    tracks = _Tracks(snapshot)
    events = _events(snapshot, tracks)
    for process in snapshot.processes:
        sequence = _Sequence(process.number + 1)
        for packet in sequence.packets(snapshot, tracks.of[process.number], events[process.number]):
            framed = data(1, packet)
            write(framed)
            written += len(framed)
    return written


# --- tracks


class _Tracks:
    """Their uuids, which count from 1, and their descriptors by process."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.of: list[list[bytes]] = [[] for _ in snapshot.processes]
        self._last = 0
        self._counters: dict[tuple[int, str], int] = {}
        self._further: dict[tuple[int, str], int] = {}
        pids = _pids(snapshot.processes)
        self.process = [
            self._add(p.number, 0, p.name, data(3, _process(p, pids[p.number]))) for p in snapshot.processes
        ]
        self.thread = [
            self._add(t.process, self.process[t.process], "", data(4, _thread(t, pids[t.process])))
            for t in snapshot.threads
        ]
        self.track = [
            self.thread[t.thread]
            if t.task == 0
            else self._add(t.process, self.process[t.process], t.label or f"task {t.task}")
            for t in snapshot.tracks
        ]
        self._names = [t.label for t in snapshot.tracks]
        self._processes = [t.process for t in snapshot.tracks]
        self._threads: dict[tuple[int, int | None], int] = {(t.process, t.writer): t.number for t in snapshot.threads}

    def _add(self, process: int, parent: int, name: str, more: bytes = b"") -> int:
        self._last += 1
        fields = integer(1, self._last) + (integer(5, parent) if parent else b"") + more
        # the name of a process or thread is in its own descriptor
        self.of[process].append(data(60, fields + (text(2, name) if name and not more else b"")))
        return self._last

    def lane(self, track: int, number: int) -> int:
        """A further one beside ``track``, of what does not nest with it; 0: itself."""
        if number == 0:
            return self.track[track]
        process = self._processes[track]
        return self._add(process, self.process[process], f"{self._names[track] or 'thread'} ({number + 1})")

    def counter(self, gauge: Gauge) -> int:
        key = (gauge.process, gauge.name)
        if key not in self._counters:
            self._last += 1
            self._counters[key] = self._last
            word = gauge.name.replace(".", "_").rpartition("_")[2].lower()
            unit = integer(3, _UNITS[word]) if word in _UNITS else text(6, word) if word in _UNIT_NAMES else b""
            fields = (
                integer(1, self._last) + integer(5, self.process[gauge.process]) + text(2, gauge.name) + data(8, unit)
            )
            self.of[gauge.process].append(data(60, fields))
        return self._counters[key]

    def lost(self, gap: Gap) -> int:
        """Of what a thread lost, or a process, for this cause: gaps of several may overlap, those of one do not."""
        thread = self._threads.get((gap.process, gap.writer))
        parent = self.process[gap.process] if thread is None else self.thread[thread]
        return self._named(gap.process, parent, f"lost: {gap.cause}")

    def quiet(self, process: int) -> int:
        """Of the calls that were counted, not recorded."""
        return self._named(process, self.process[process], "quiet calls")

    def _named(self, process: int, parent: int, name: str) -> int:
        key = (parent, name)
        if key not in self._further:
            self._further[key] = self._add(process, parent, name)
        return self._further[key]


def _pids(processes: Sequence[Process]) -> list[int]:
    """Perfetto takes equal pids for one process: where another host has it already, one that no kernel gives."""
    host_of: dict[int, str] = {}
    return [p.pid if host_of.setdefault(p.pid, p.host) == p.host else _MAX_PID + 1 + p.number for p in processes]


def _process(process: Process, pid: int) -> bytes:
    return integer(1, pid) + text(6, process.name) + (text(2, process.program) if process.program else b"")


def _thread(thread: Thread, pid: int) -> bytes:
    return integer(1, pid) + integer(2, thread.native_id or thread.writer) + text(5, thread.name or "thread")


# --- events


def _events(snapshot: Snapshot, tracks: _Tracks) -> list[Iterator[_Packet]]:
    """Of each process, in the order of time."""
    runs: list[list[Iterable[_Packet]]] = [[] for _ in snapshot.processes]
    died = touched(snapshot)
    for lane in lanes(snapshot):
        uuid = tracks.lane(lane.track, lane.number)
        runs[snapshot.tracks[lane.track].process].append(
            [_edge(at, bar, begins, uuid, died) for at, bar, begins in lane.edges()]
        )
    instants: list[list[_Packet]] = [[] for _ in snapshot.processes]
    for event in snapshot.events:
        instants[event.process].append(_event(event, tracks.track[event.track]))
    for log in snapshot.logs:
        instants[log.process].append(_log(log, tracks.track[log.track]))
    for error in snapshot.exceptions:
        instants[error.process].append(_exception(error, tracks.track[error.track]))
    for gauge in snapshot.gauges:
        instants[gauge.process].append(
            _Packet(gauge.time_ns, tracks.counter(gauge), _COUNTER, fields=double(44, gauge.value))
        )
    for quiet in filter(_stands_for_time, snapshot.quiet_calls):
        instants[quiet.process].append(_quiet(quiet, tracks.quiet(quiet.process)))
    gaps: dict[int, list[Gap]] = {}
    for gap in snapshot.gaps:
        gaps.setdefault(tracks.lost(gap), []).append(gap)
    for track, of_track in gaps.items():
        instants[of_track[0].process] += _gaps(of_track, track)
    for process, packet in _flows(snapshot.flows, tracks):
        instants[process].append(packet)
    for of_process, mine in zip(runs, instants, strict=True):
        of_process.append(sorted(mine, key=_time))
    return [heapq.merge(*of_process, key=_time) for of_process in runs]


def _time(packet: _Packet) -> int:
    return packet.time_ns


def _edge(at_ns: int, bar: Bar, begins: bool, track: int, died: Mapping[int, str]) -> _Packet:
    item = bar.item
    if not begins:
        arguments: tuple[tuple[str, Scalar], ...] = (("error", item.error),) if item.error else ()
        return _Packet(at_ns, track, _END, arguments=arguments if item.end_held else (("end", "lost"),))
    notes: list[tuple[str, Scalar]] = [*item.attributes.items()]
    if isinstance(item, Operation):
        notes += [
            (name, value)
            for name, value in (
                ("op", item.op),
                ("trace", item.trace),
                ("continues", item.remote_parent),
                ("died meanwhile", died.get(item.number, "")),
            )
            if value
        ]
    if item.begin_ns is None:
        notes.append(("begin", "lost"))
    if isinstance(item, Call):
        notes += [(name, True) for name in ("resumed", "suspended") if getattr(item, name)]
    return _Packet(at_ns, track, _BEGIN, item.name or bar.kind, bar.kind, tuple(notes))


def _stands_for_time(quiet: QuietCalls) -> bool:
    return quiet.end_ns > quiet.begin_ns


def _quiet(quiet: QuietCalls, track: int) -> _Packet:
    """Where it is told, which is at the end of the time that it stands for."""
    more = " and more" if quiet.at_least else ""
    notes: tuple[tuple[str, Scalar], ...] = (
        ("count", quiet.count),
        ("over_ns", quiet.end_ns - quiet.begin_ns),
        ("file", quiet.code.file),
        ("line", quiet.code.line),
        ("calm", quiet.calm),
    )
    name = f"{quiet.code.name}: {quiet.count}{more} calls not recorded"
    return _Packet(quiet.end_ns, track, _INSTANT, name, "call", notes, plain_name=True)


def _event(event: Event, track: int) -> _Packet:
    return _Packet(event.time_ns, track, _INSTANT, event.name, "event", _arguments(event.attributes))


def _log(log: Log, track: int) -> _Packet:
    about: tuple[tuple[str, Scalar], ...] = (("level", log.level), ("logger", log.logger), ("message", log.message))
    notes = about + _arguments(log.attributes)
    name = f"{level_name(log.level)}: {log.message}"[:_MAX_NAME_CHARS]
    return _Packet(log.time_ns, track, _INSTANT, name, "log", notes, plain_name=True)


def _exception(error: ExceptionEvent, track: int) -> _Packet:
    notes = (
        ("type", error.type),
        ("message", error.message),
        ("where", error.where),
        ("traceback", "\n".join(error.traceback)),
    )
    return _Packet(
        error.time_ns,
        track,
        _INSTANT,
        f"{error.type}: {error.message}"[:_MAX_NAME_CHARS],
        "exception",
        notes,
        plain_name=True,
    )


def _arguments(attributes: Attributes) -> tuple[tuple[str, Scalar], ...]:
    return tuple(attributes.items())


def _gaps(gaps: Sequence[Gap], track: int) -> Iterator[_Packet]:
    """A slice from when to when; an instant where there is no time between what is held before and behind."""
    at_ns = 0
    for gap in sorted(gaps, key=lambda gap: gap.begin_ns):
        notes: list[tuple[str, Scalar]] = [("cause", gap.cause), ("generation", gap.generation)]
        if gap.count is not None:
            notes.append(("count", gap.count))
        if gap.detail:
            notes.append(("detail", gap.detail))
        # generations, and so their gaps, may overlap by moments
        begin_ns = max(at_ns, gap.begin_ns)
        at_ns = max(begin_ns, gap.end_ns)
        kind = _BEGIN if at_ns > begin_ns else _INSTANT
        yield _Packet(begin_ns, track, kind, lost_text(gap), "lost", tuple(notes), plain_name=True)
        if kind == _BEGIN:
            yield _Packet(at_ns, track, _END)


def _flows(flows: Iterable[Flow], tracks: _Tracks) -> Iterator[tuple[int, _Packet]]:
    sources: dict[tuple[str, str], list[tuple[int, Flow]]] = {}
    for number, flow in enumerate(flows, 1):
        sources.setdefault((flow.trace, flow.id), []).append((number, flow))
        fields = varint(48 << 3 | 1) + _fixed64(number)
        yield (
            flow.to_process,
            _Packet(flow.to_ns, tracks.track[flow.to_track], _INSTANT, "extract", "flow", fields=fields),
        )
    for same in sources.values():
        flow = same[0][1]
        fields = b"".join(varint(47 << 3 | 1) + _fixed64(number) for number, _ in same)
        yield (
            flow.from_process,
            _Packet(flow.from_ns, tracks.track[flow.from_track], _INSTANT, "inject", "flow", fields=fields),
        )


# --- packets


@dataclass(slots=True)
class _Sequence:
    """One process's packets: names are written once, times as differences."""

    id: int
    _now_ns: int = 0
    _interned: dict[tuple[int, str], int] = field(default_factory=dict)
    _new: list[bytes] = field(default_factory=list)

    def packets(self, snapshot: Snapshot, descriptors: list[bytes], events: Iterator[_Packet]) -> Iterator[bytes]:
        """Bodies of TracePackets. The first ties the clock, and the descriptors follow it, before what uses them."""
        first = next(events, None)
        self._now_ns = first.time_ns if first is not None else snapshot.begin_ns
        yield self._opening(snapshot)
        for descriptor in descriptors:
            yield self._packet(descriptor, 0)
        if first is not None:
            yield self._event(first)
        for event in events:
            yield self._event(event)

    def _opening(self, snapshot: Snapshot) -> bytes:
        clocks = [
            (_MONOTONIC, self._now_ns, False),
            (_REALTIME, snapshot.wall_ns(self._now_ns), False),
            (_INCREMENTAL, self._now_ns, True),
        ]
        snapshots = b"".join(
            data(1, integer(1, clock) + integer(2, max(0, at)) + (integer(3, 1) if incremental else b""))
            for clock, at, incremental in clocks
        )
        clock_snapshot = data(6, snapshots + integer(2, _MONOTONIC))
        defaults = data(59, integer(58, _INCREMENTAL))
        return integer(10, self.id) + integer(13, _CLEARED) + integer(87, 1) + clock_snapshot + defaults

    def _packet(self, fields: bytes, delta_ns: int) -> bytes:
        return integer(8, delta_ns) + integer(10, self.id) + integer(13, _NEEDED) + fields

    def _event(self, event: _Packet) -> bytes:
        fields = integer(9, event.type) + integer(11, event.track)
        if event.category:
            fields += integer(3, self._intern(1, event.category))
        if event.name:
            fields += text(23, event.name) if event.plain_name else integer(10, self._intern(2, event.name))
        for name, value in event.arguments:
            fields += data(4, integer(1, self._intern(3, name)) + _annotation(value))
        delta_ns = max(0, event.time_ns - self._now_ns)
        self._now_ns += delta_ns
        packet = data(11, fields + event.fields)
        if self._new:
            packet = data(12, b"".join(self._new)) + packet
            self._new.clear()
        return self._packet(packet, delta_ns)

    def _intern(self, table: int, name: str) -> int:
        """``table``: the field of InternedData."""
        iid = self._interned.get((table, name))
        if iid is None:
            iid = self._interned[table, name] = len(self._interned) + 1
            self._new.append(data(table, integer(1, iid) + text(2, name)))
        return iid


def _annotation(value: Scalar) -> bytes:
    """Of a DebugAnnotation the value."""
    if isinstance(value, bool):
        return integer(2, value)
    if isinstance(value, int):
        return integer(3, value) if value >= 1 << 63 else integer(4, value)
    if isinstance(value, float):
        return double(5, value)
    if isinstance(value, bytes):
        return text(6, value.hex())
    return text(6, "None" if value is None else value)
