"""The protos of the `perfetto` package read what was written by hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos
from support.snapshots import (
    CREATED_NS,
    WALL_NS,
    At,
    Stream,
    begin,
    context,
    end,
    event,
    open_span,
    operation_begin,
    operation_end,
    snapshot,
)

from frzmq.export.perfetto import write_perfetto
from frzmq.reader.snapshot import Snapshot
from frzmq.wire.batch import HEADER_SIZE, WriterInfo, decode_header, encode_batch
from frzmq.wire.codec import pack
from frzmq.wire.kinds import Kind

T = b"t" * 16
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4


@dataclass
class Decoded:
    """What a reader of the trace sees: times absolute, names resolved."""

    tracks: dict[int, Any] = field(default_factory=dict)
    events: list[tuple[int, int, int, str, dict[str, object]]] = field(default_factory=list)
    """``(time, track, type, name, arguments)``"""
    flows: dict[int, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    values: list[tuple[int, str, float]] = field(default_factory=list)

    def named(self, name: str) -> Any:
        """The descriptor of the track of this name."""
        found = [t for t in self.tracks.values() if name in {t.name, t.process.process_name, t.thread.thread_name}]
        assert len(found) == 1, name
        return found[0]

    def on(self, uuid: int) -> list[tuple[int, int, str]]:
        return [(time_ns, type_, name) for time_ns, track, type_, name, _ in self.events if track == uuid]


def decode(data: bytes) -> Decoded:
    trace = protos.Trace()
    assert trace.ParseFromString(data) == len(data)
    decoded = Decoded()
    clocks: dict[int, int] = {}
    names: dict[tuple[int, str, int], str] = {}
    for packet in trace.packet:
        sequence = packet.trusted_packet_sequence_id
        assert sequence > 0
        if packet.sequence_flags & 1:
            assert sequence not in clocks
            ids = {clock.clock_id: clock for clock in packet.clock_snapshot.clocks}
            assert packet.trace_packet_defaults.timestamp_clock_id == 64
            assert ids[64].is_incremental
            assert ids[1].timestamp - ids[3].timestamp == WALL_NS - CREATED_NS
            clocks[sequence] = ids[64].timestamp
            assert ids[64].timestamp == ids[3].timestamp
            continue
        clocks[sequence] += packet.timestamp
        for table in ("event_names", "debug_annotation_names", "event_categories"):
            for row in getattr(packet.interned_data, table):
                assert names.setdefault((sequence, table, row.iid), row.name) == row.name
        if packet.HasField("track_descriptor"):
            assert packet.track_descriptor.uuid not in decoded.tracks
            decoded.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        elif packet.HasField("track_event"):
            _event(decoded, packet.track_event, clocks[sequence], sequence, names)
    return decoded


def _event(decoded: Decoded, row: Any, time_ns: int, sequence: int, names: dict[tuple[int, str, int], str]) -> None:
    assert row.track_uuid in decoded.tracks
    name = row.name or (names[sequence, "event_names", row.name_iid] if row.name_iid else "")
    arguments = {}
    for note in row.debug_annotations:
        kind = note.WhichOneof("value")
        arguments[names[sequence, "debug_annotation_names", note.name_iid]] = getattr(note, kind)
    if row.type == COUNTER:
        decoded.values.append((time_ns, decoded.tracks[row.track_uuid].name, row.double_counter_value))
        return
    decoded.events.append((time_ns, row.track_uuid, row.type, name, arguments))
    for id_ in row.flow_ids:
        decoded.flows[id_].append(("from", time_ns))
    for id_ in row.terminating_flow_ids:
        decoded.flows[id_].append(("to", time_ns))


def exported(opened: Snapshot) -> Decoded:
    parts: list[bytes] = []
    assert write_perfetto(opened, parts.append) == len(b"".join(parts))
    return decode(b"".join(parts))


def test_perfetto_nested_slices_are_on_their_threads_track_in_order(tmp_path: Path) -> None:
    records = [
        operation_begin(10, "GET /", 5),
        context(11, op=5),
        begin(20, "outer", item="apple", n=3, x=1.5, ok=True, none=None, big=1 << 63, low=-7),
        begin(30, "inner"),
        end(40, "inner", error="KeyError"),
        end(50, "outer"),
        operation_end(60, 5),
    ]
    stream = Stream("web", 41).generation(1, records, writers=(WriterInfo(1, "MainThread", 99),))
    decoded = exported(snapshot(tmp_path, stream))
    process, thread = decoded.named("web[41]"), decoded.named("MainThread")
    assert (process.process.pid, thread.thread.pid, thread.thread.tid, thread.parent_uuid) == (41, 41, 99, process.uuid)
    assert decoded.on(thread.uuid) == [
        (10, BEGIN, "GET /"), (20, BEGIN, "outer"), (30, BEGIN, "inner"), (40, END, ""), (50, END, ""), (60, END, ""),
    ]  # fmt: skip
    arguments = [a for *_, a in decoded.events]
    assert arguments[0] == {"op": f"{5:016x}", "trace": T.hex()}
    assert arguments[1] == {
        "item": "apple", "n": 3, "x": 1.5, "ok": True, "none": "None", "big": 1 << 63, "low": -7,
    }  # fmt: skip
    assert arguments[3] == {"error": "KeyError"}


def test_perfetto_what_has_not_ended_stays_open_and_what_lost_its_begin_says_so(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(10, "first"), end(30, "early")], at_ns=9, open=(open_span(3, "hang"),))
    decoded = exported(snapshot(tmp_path, stream))
    assert [(t, kind, name, a) for t, _, kind, name, a in decoded.events if kind != INSTANT] == [
        (3, BEGIN, "hang", {}),
        (10, BEGIN, "early", {"begin": "lost"}),
        (30, END, "", {}),
    ]


def test_perfetto_spans_that_do_not_nest_go_to_a_track_beside(tmp_path: Path) -> None:
    records = [begin(10, "generator"), begin(20, "caller"), end(30, "generator"), end(40, "caller")]
    stream = Stream().generation(1, records, writers=(WriterInfo(1, "main", 9),))
    decoded = exported(snapshot(tmp_path, stream))
    assert decoded.on(decoded.named("main").uuid) == [(10, BEGIN, "generator"), (30, END, "")]
    assert decoded.on(decoded.named("main (2)").uuid) == [(20, BEGIN, "caller"), (40, END, "")]


def test_perfetto_every_task_has_a_track_of_its_own(tmp_path: Path) -> None:
    records = [context(10, 1, "Task-1"), begin(11, "a"), context(12, 2, "Task-2"), begin(13, "a"), end(14, "a")]
    decoded = exported(snapshot(tmp_path, Stream("web", 41).generation(1, records)))
    assert decoded.on(decoded.named("Task-1").uuid) == [(11, BEGIN, "a")]
    assert decoded.on(decoded.named("Task-2").uuid) == [(13, BEGIN, "a"), (14, END, "")]
    assert decoded.named("Task-2").parent_uuid == decoded.named("web[41]").uuid


def test_perfetto_instants_are_events_logs_and_exceptions(tmp_path: Path) -> None:
    records = [
        event(10, "tick", n=1),
        At(20, Kind.LOG, (30, "app", "careful", {"at": "a.py:1"})),
        At(30, Kind.EXCEPTION, ("KeyError", "'x'", "main", "a.py:1 f")),
    ]
    decoded = exported(snapshot(tmp_path, Stream().generation(1, records)))
    assert [(t, kind, name, a) for t, _, kind, name, a in decoded.events] == [
        (10, INSTANT, "tick", {"n": 1}),
        (20, INSTANT, "warning: careful", {"level": 30, "logger": "app", "message": "careful", "at": "a.py:1"}),
        (
            30,
            INSTANT,
            "KeyError: 'x'",
            {"type": "KeyError", "message": "'x'", "where": "main", "traceback": "a.py:1 f"},
        ),
    ]


def test_perfetto_gauges_are_counters_with_their_units(tmp_path: Path) -> None:
    records = [At(10 * n, Kind.GAUGE, (name, n)) for n, name in enumerate(("heap_bytes", "lag.ms", "depth"), 1)]
    decoded = exported(snapshot(tmp_path, Stream().generation(1, records)))
    assert decoded.values == [(10, "heap_bytes", 1.0), (20, "lag.ms", 2.0), (30, "depth", 3.0)]
    assert decoded.named("heap_bytes").counter.unit == 3
    assert decoded.named("lag.ms").counter.unit_name == "ms"
    assert decoded.named("depth").counter.unit == 0


def test_perfetto_flows_join_processes_by_unique_ids(tmp_path: Path) -> None:
    sends = [context(10, op=5), At(12, Kind.INJECT, (5, T, 77)), At(13, Kind.INJECT, (5, T, 78))]
    web = Stream("web", 1).generation(1, sends)
    receives = [At(20, Kind.EXTRACT, (6, T, 77)), At(25, Kind.EXTRACT, (7, T, 77)), At(30, Kind.EXTRACT, (8, T, 78))]
    db = Stream("db", 2).generation(1, receives)
    decoded = exported(snapshot(tmp_path, web, db))
    assert sorted(map(sorted, decoded.flows.values())) == [
        [("from", 12), ("to", 20)],
        [("from", 12), ("to", 25)],
        [("from", 13), ("to", 30)],
    ]


def test_perfetto_an_operation_whose_trace_was_open_in_a_dead_process_says_so(tmp_path: Path) -> None:
    web = Stream("web", 1).generation(1, [operation_begin(10, "GET /", 5), operation_end(110, 5, error="OSError")])
    db = Stream("db", 2, state="dead").generation(1, [operation_begin(20, "query", 6, remote=5)])
    decoded = exported(snapshot(tmp_path, web, db))
    marks = {name: a.get("died meanwhile") for *_, kind, name, a in decoded.events if kind == BEGIN}
    assert marks == {"GET /": "db[2]", "query": None}


def test_perfetto_losses_are_slices_from_when_to_when_below_what_lost_them(tmp_path: Path) -> None:
    writers = (WriterInfo(1, "MainThread", 99), WriterInfo(2, "worker", 98))
    stream = Stream("web", 41).generation(1, [event(10, "a"), event(20, "b", writer=2)], at_ns=5, writers=writers)
    stream.generation(4, [event(130, "b")], at_ns=100, skip={1: 4}, writers=writers, dropped={2: 6})
    # the base of its batch is the time of the record before it
    first = stream.generations[-1].frames[1]
    header = decode_header(first)
    later = encode_batch(replace(header, base_ns=120), first[HEADER_SIZE:].replace(pack(30), pack(10), 1))
    generation = stream.generations[-1]
    stream.generations[-1] = replace(generation, frames=(generation.frames[0], later))
    stream.generation(5, [event(210, "c")], at_ns=200, complete=False, seal="death", end_mark=b"")
    decoded = exported(snapshot(tmp_path, stream))
    lost = {
        decoded.tracks[uuid].name: (decoded.tracks[uuid].parent_uuid, decoded.on(uuid))
        for uuid in {track for _, track, *_ in decoded.events}
        if decoded.tracks[uuid].name.startswith("lost: ")
    }
    process, main, worker = (decoded.named(name).uuid for name in ("web[41]", "MainThread", "worker"))
    assert lost == {
        "lost: overwritten": (main, [(100, BEGIN, "4 records overwritten"), (120, END, "")]),
        "lost: dropped": (worker, [(100, BEGIN, "6 records dropped"), (130, END, "")]),
        "lost: evicted": (process, [(20, BEGIN, "records evicted"), (100, END, "")]),
        "lost: incomplete": (process, [(210, INSTANT, "records incomplete")]),
    }
    notes = {name: arguments for *_, name, arguments in decoded.events if arguments}
    assert notes["4 records overwritten"] == {"cause": "overwritten", "generation": 4, "count": 4}
    assert notes["records evicted"] == {"cause": "evicted", "generation": 4, "detail": "2 generations"}


def test_perfetto_losses_of_one_cause_do_not_overlap(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(150, "a")], at_ns=5, dropped={1: 3})
    stream.generation(2, [event(160, "b"), event(170, "c")], at_ns=100, dropped={1: 5})
    decoded = exported(snapshot(tmp_path, stream))
    assert decoded.on(decoded.named("lost: dropped").uuid) == [
        (5, BEGIN, "3 records dropped"), (150, END, ""), (150, BEGIN, "2 records dropped"), (170, END, ""),
    ]  # fmt: skip


def test_perfetto_equal_pids_of_two_hosts_are_two_processes(tmp_path: Path) -> None:
    streams = [Stream(name, 7, host=host) for name, host in (("a", "one"), ("b", "two"), ("c", "one"))]
    decoded = exported(snapshot(tmp_path, *(s.generation(1, [event(10, "e")]) for s in streams)))
    pid = {name: decoded.named(f"{name}[7]").process.pid for name in "abc"}
    assert pid["a"] == pid["c"] == 7
    assert pid["b"] > 1 << 22
    threads = [t.thread.pid for t in decoded.tracks.values() if t.HasField("thread")]
    assert threads == [7, pid["b"], 7]


def test_perfetto_of_an_empty_snapshot_is_a_trace(tmp_path: Path) -> None:
    decoded = exported(snapshot(tmp_path, Stream("web", 41)))
    assert decoded.named("web[41]").process.pid == 41
    assert decoded.events == []


def test_perfetto_costs_few_bytes_a_span(tmp_path: Path) -> None:
    records = [record for n in range(1000) for record in (begin(2000 * n, "a"), end(2000 * n + 900, "a"))]
    parts: list[bytes] = []
    assert write_perfetto(snapshot(tmp_path, Stream().generation(1, records)), parts.append) < 1000 * 45


def test_perfetto_calls_are_slices_with_file_and_line_and_quiet_ones_instants(tmp_path: Path) -> None:
    code = "m.f (/srv/m.py:7)"
    records = [
        begin(5, "around"),
        At(10, Kind.CALL_BEGIN, (code,)),
        At(20, Kind.CALL_SUSPEND, (code,)),
        At(30, Kind.CALL_RESUME, (code,)),
        At(40, Kind.CALL_FAIL, (code, "KeyError")),
        end(50, "around"),
        At(60, Kind.CALL_QUIET, (code, 12, 30, "uncounted")),
    ]
    stream = Stream("web", 41).generation(1, records, writers=(WriterInfo(1, "MainThread", 99),))
    parts: list[bytes] = []
    write_perfetto(snapshot(tmp_path, stream), parts.append)
    decoded = decode(b"".join(parts))
    place = {"file": "/srv/m.py", "line": 7}
    assert [(at, type_, name, notes) for at, _, type_, name, notes in decoded.events] == [
        (5, BEGIN, "around", {}),
        (10, BEGIN, "m.f", {**place, "suspended": True}),
        (20, END, "", {}),
        (30, BEGIN, "m.f", {**place, "resumed": True}),
        (40, END, "", {"error": "KeyError"}),
        (50, END, "", {}),
        (60, INSTANT, "m.f: 12 and more calls not recorded", {"count": 12, "over_ns": 30, **place, "calm": False}),
    ]
    assert decoded.on(decoded.named("quiet calls").uuid) == [(60, INSTANT, "m.f: 12 and more calls not recorded")]
