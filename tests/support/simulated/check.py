"""One snapshot against all that is known."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from frzmq.reader.model import Record
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate
from frzmq.recorder.events import WriteSnapshot
from frzmq.snapfile.format import GenerationInfo, StreamHeader
from support.simulated.process import Process
from support.simulated.world import World

CUT_NS = 1_000_000
"""A cut takes so long at the most: for that time two generations lie side by side."""
AUTOMATIC = frozenset({"context", "thread_begin", "thread_end", "process_begin"})
Indices = dict[int, set[int]]
"""Records by writer."""


@dataclass(slots=True)
class Seen:
    """What one run of the recorder was given of one incarnation of a process, and what befell that stream."""

    process: Process
    boot_id: bytes
    nonce: int
    incarnation: int
    delivered: set[int] = field(default_factory=set)
    """tseq"""
    received: Indices = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    """By writer: where its first end mark begins."""
    tail: dict[int, int] | None = None
    """By writer: the records that there were when its buffer was read the last time, and"""
    read: Indices = field(default_factory=dict)
    """which the recorder took from there."""
    was_off: bool = False
    """The recorder was, meanwhile."""
    stopped: bool = False
    went: bool = False
    """It was silent once, or ended."""

    def frozen(self) -> Seen:
        received = {writer: set(records) for writer, records in self.received.items()}
        return replace(self, delivered=set(self.delivered), received=received, read=dict(self.read))

    def arrived(self, *, read: bool) -> Indices:
        """By batches, and from its buffer."""
        arrived: Indices = defaultdict(set)
        for part in (self.received, self.read) if read else (self.received,):
            for writer, records in part.items():
                arrived[writer] |= records
        return arrived

    def excused(self) -> Indices:
        """Of no record of these does anybody expect that it is here: an earlier run of the recorder acknowledged it, or an earlier incarnation had sent it,
        or its memory was needed for another."""
        excused: Indices = defaultdict(set)
        for session, sent in self.process.sessions.items():
            if session != (self.boot_id, self.nonce):
                for writer, records in sent.acknowledged.items():
                    excused[writer] |= records
        for writer, first in self.process.first_incarnation[self.incarnation].items():
            excused[writer].update(range(first))
        for writer, truth in self.process.buffer.truth.items():
            excused[writer] |= truth.overwritten
        return excused

    def unaccounted(self, counts: dict[int, int], arrived: Indices) -> list[tuple[int, int]]:
        """Of the first ``counts`` records of each writer those that are nowhere, the first few."""
        excused = self.excused()
        lost = [
            (writer, index)
            for writer, count in counts.items()
            for index in range(count)
            if index not in arrived[writer] and index not in excused[writer]
        ]
        return lost[:8]


@dataclass(slots=True)
class Capture:
    """The truth of the moment in which a snapshot was begun to be written."""

    seen: dict[tuple[bytes, int], Seen]
    """By uuid and incarnation."""
    asked: dict[bytes, dict[int, int]]
    """Records by process and writer when it was asked for; empty: nobody did."""
    counts: dict[bytes, dict[int, int]]
    """Now."""
    written: WriteSnapshot
    all: bool
    """Of the ring, not only what is young."""
    at_rest: bool
    roomy: bool
    """No generation is sealed for want of memory."""
    data: bytes = b""


def check_snapshot(world: World, path: Path, capture: Capture) -> None:
    with open_snapshot(path) as snapshot:
        errors = [str(finding) for finding in validate(snapshot) if finding.level is Level.ERROR]
        world.check(not errors, f"the snapshot contradicts itself: {errors}")
        Checker(world, snapshot, capture).check()


class Checker:
    def __init__(self, world: World, snapshot: Snapshot, capture: Capture) -> None:
        self._world, self._snapshot, self._capture = world, snapshot, capture

    def check(self) -> None:
        by_process: dict[int, list[Record]] = defaultdict(list)
        for record in self._snapshot:
            by_process[record.process].append(record)
        once: set[tuple[bytes, int, int]] = set()
        for number, header in enumerate(self._snapshot.header.streams):
            seen = self._capture.seen[header.uuid, header.incarnation]
            for record in by_process[number]:
                self._truth(seen, number, record)
                key = header.uuid, record.writer, record.writer_index
                self._world.check(key not in once, f"{seen.process.name}: record {key[1:]} is in it twice")
                once.add(key)
            self._stream(number, header, seen, by_process[number])

    def _fail(self, seen: Seen, problem: str) -> None:
        self._world.fail(f"{seen.process.name} incarnation {seen.incarnation}: {problem}")

    def _truth(self, seen: Seen, number: int, record: Record) -> None:
        truth = seen.process.buffer.of(record.writer).records
        if record.writer_index >= len(truth):
            self._fail(seen, f"nobody recorded {record}")
        made = truth[record.writer_index]
        if made is None:
            if record.name not in AUTOMATIC:
                self._fail(seen, f"nobody recorded {record}")
            return
        at_ns = record.time_ns - self._snapshot.clocks[number].offset_ns
        if (record.name, at_ns, *_said(record)) != (made.kind, made.time_ns, made.name, made.number):
            self._fail(seen, f"recorded was {made}, and there is {record}")

    def _stream(self, number: int, header: StreamHeader, seen: Seen, records: list[Record]) -> None:
        ledger = header.ledger
        present: Indices = defaultdict(set)
        for record in records:
            present[record.writer].add(record.writer_index)
        arrived = seen.arrived(read=header.answer == "read" or header.state == "dead")
        came = sum(map(len, arrived.values()))
        placed = ledger.open + ledger.held + ledger.evicted + ledger.late
        if not seen.was_off and placed != came:
            self._fail(seen, f"{came} records came, and {placed} are in its ledger: {ledger}")
        if self._capture.all and ledger.held != len(records):
            self._fail(seen, f"{len(records)} records are in it, and its ledger says {ledger.held}")
        invented = {w: sorted(i - arrived[w])[:4] for w, i in present.items() if i - arrived[w]}
        if invented:
            self._fail(seen, f"records are in it that never came: {invented}")
        sealed = [section.info for section in self._snapshot.file.generations(number)]
        for info in sealed:
            if info is not None:
                self._generation(seen, info, [r for r in records if r.generation == info.generation])
        counts = self._capture.counts[header.uuid]
        if ledger.recorded > sum(counts.values()):
            self._fail(seen, f"{sum(counts.values())} records were made, and its ledger knows of {ledger.recorded}")
        first = seen.process.first_incarnation[seen.incarnation]
        # what was under way as an earlier incarnation was stopped was given up
        gone = {w: t.overwritten | set(range(first.get(w, 0))) for w, t in seen.process.buffer.truth.items()}
        overwritten = sum(len(indices - arrived[w]) for w, indices in gone.items())
        if ledger.overwritten > overwritten:
            self._fail(seen, f"{overwritten} records were overwritten and did not come before: {ledger}")
        if header.state == "dead" and seen.tail is not None and seen.read and ledger.torn != seen.process.torn:
            self._fail(seen, f"{seen.process.torn} records were being written: {ledger}")
        if self._capture.at_rest and header.answer == "flushed" and not seen.was_off:
            self._exact(header, seen, counts, arrived)
            self._none_silent(header, seen, counts)
        if self._capture.all and header.answer == "flushed" and header.horizon_ns:
            self._horizon(header, seen, present)
        promised = self._promised(header, seen)
        if promised is not None:
            lost = seen.unaccounted(promised, arrived)
            if lost:
                self._fail(seen, f"{header.answer or header.state}, but its records {lost} (writer, index) never came")

    def _exact(self, header: StreamHeader, seen: Seen, counts: dict[int, int], arrived: Indices) -> None:
        """The ledger knows of every record from the first on that came, or that an end mark told of."""
        first = {w: min(indices) for w, indices in arrived.items() if indices}
        told = {w: min(seen.first.get(w, count), first.get(w, count)) for w, count in counts.items()}
        least = sum(count - first.get(w, count) for w, count in counts.items())
        most = sum(count - told[w] for w, count in counts.items())
        # the end marks of what was sealed before its time are not looked at
        least = most if self._capture.roomy and not seen.went and seen.incarnation == 1 else least
        if not least <= header.ledger.recorded <= most:
            self._fail(seen, f"there are {least} to {most} records since it came: {header.ledger}")

    def _none_silent(self, header: StreamHeader, seen: Seen, counts: dict[int, int]) -> None:
        """Below where the ledger of a writer begins all was acknowledged before, or came to this recorder by an earlier incarnation."""
        acknowledged: Indices = defaultdict(set)
        for (uuid, incarnation), other in self._capture.seen.items():
            if uuid == header.uuid and incarnation < seen.incarnation:
                for writer, records in other.received.items():
                    acknowledged[writer] |= records
        for session, sent in seen.process.sessions.items():
            if session != (seen.boot_id, seen.nonce):
                for writer, records in sent.acknowledged.items():
                    acknowledged[writer] |= records
        known = {row.writer: row.recorded for row in header.writers}
        for writer, count in counts.items():
            begin = count - known.get(writer, 0)
            silent = [index for index in range(begin) if index not in acknowledged[writer]]
            if silent:
                self._fail(seen, f"of writer {writer} records {silent[:4]} to {silent[-1]} are told of nowhere")

    def _horizon(self, header: StreamHeader, seen: Seen, present: Indices) -> None:
        """What is said to be whole is whole."""
        since_ns = header.horizon_ns - header.offset_ns + CUT_NS
        first = seen.process.first_incarnation[seen.incarnation]
        for writer, count in self._capture.asked.get(header.uuid, {}).items():
            records = seen.process.buffer.of(writer).records
            for index in range(first.get(writer, 0), count):
                made = records[index]
                if made is not None and made.time_ns >= since_ns and index not in present[writer]:
                    self._fail(seen, f"whole since {since_ns}, and {made} (writer {writer}, {index}) is not in it")

    def _promised(self, header: StreamHeader, seen: Seen) -> dict[int, int] | None:
        """By writer: so many records at least have to be accounted for."""
        if seen.was_off or seen.stopped:
            return None
        if header.answer == "flushed":
            return self._capture.asked.get(header.uuid)
        if header.answer == "read" or (header.state == "dead" and seen.tail is not None):
            return seen.tail
        return None

    def _generation(self, seen: Seen, info: GenerationInfo, records: list[Record]) -> None:
        """All of it, or a mark that it is not."""
        key = seen.incarnation, info.generation
        belongs = seen.process.generations.get(key)
        if belongs is None:
            if info.complete:
                self._fail(seen, f"generation {info.generation} goes on, and is complete, it says")
            return
        wanted = {(writer, index) for writer, (first, end) in belongs.items() for index in range(first, end)}
        got = {(record.writer, record.writer_index) for record in records}
        if got - wanted and info.seal not in ("death", "stuck"):
            self._fail(seen, f"generation {info.generation} has {sorted(got - wanted)[:4]} of others")
        untold = len(wanted) - len(got) - info.lost
        # the first of an incarnation also tells of what was under way as the one before was stopped
        if info.complete and (untold > 0 or (untold < 0 and key not in seen.process.carrying)):
            missing = sorted(wanted - got)[:4]
            self._fail(seen, f"generation {info.generation}, complete but for {info.lost}, lacks {missing}")


def _said(record: Record) -> tuple[str, int]:
    fields = record.fields
    match record.name:
        case "event":
            attributes = fields["attributes"]
            assert isinstance(attributes, dict)
            return str(fields["name"]), int(str(attributes["n"]))
        case "operation_begin":
            return str(fields["name"]), int(str(fields["op"]))
        case "operation_end":
            return "", int(str(fields["op"]))
        case _:
            return str(fields["name"]), 0
