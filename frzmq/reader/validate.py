"""Does a snapshot hold what it says? The one check of `frzmq validate` and of every kind of test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from frzmq.reader.certificate import certificate
from frzmq.reader.decode import DecodedGeneration, RecordDecoder, Strings, decode_generation
from frzmq.reader.snapshot import Snapshot
from frzmq.snapfile.format import GenerationInfo, StreamHeader
from frzmq.wire.batch import Batch, WriterEnd
from frzmq.wire.kinds import KINDS
from frzmq.wire.ledger import writers_disagree

MAX_FINDINGS = 1000
_RECOVERED = ("death", "silence", "stuck")
"""Seals of generations in which batches may be that were made of a buffer."""


class Level(Enum):
    ERROR = "error"
    """The snapshot contradicts itself, or cannot be read: a bug of somebody, or damage."""
    WARNING = "warning"
    """Something is lost, and it is said."""


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    code: str
    """What kind of thing: file, generation, batch, record, index, string, ledger, order, span or flow."""
    message: str
    process: int | None = None

    def __str__(self) -> str:
        return f"{self.level.value}: {self.code}: {self.message}"


def validate(snapshot: Snapshot) -> list[Finding]:
    """Everything that is wrong with it, the first MAX_FINDINGS; an empty list for a whole snapshot that lost nothing."""
    findings = []
    for finding in _findings(snapshot):
        findings.append(finding)
        if len(findings) == MAX_FINDINGS:
            break
    return findings


def _findings(snapshot: Snapshot) -> Iterator[Finding]:
    for number, stream in enumerate(snapshot.header.streams):
        yield from _Stream(snapshot, number, stream).findings()
    yield from _order(snapshot)
    if snapshot.unmatched_ends:
        yield _error("span", f"{snapshot.unmatched_ends} ends without a begin, and nothing that is known to be lost")
    yield from _flows(snapshot)
    for gap in snapshot.gaps:
        if gap.cause != "damaged":
            count = "an unknown number of" if gap.count is None else str(gap.count)
            who = snapshot.processes[gap.process].name
            yield Finding(
                Level.WARNING,
                "generation",
                f"{who} generation {gap.generation}: {count} records {gap.cause}",
                gap.process,
            )
    for problem in snapshot.problems:
        yield _error("file", problem)
    names = set(certificate(snapshot.header).missing) ^ set(snapshot.header.missing)
    if names and any(stream.answer for stream in snapshot.header.streams):
        yield _error("file", f"its streams and its header do not agree on who is missing: {', '.join(sorted(names))}")
    for name in snapshot.header.missing:
        yield Finding(Level.WARNING, "file", f"the last moments of {name} are not in it: it did not answer in time")


def _error(code: str, message: str, process: int | None = None) -> Finding:
    return Finding(Level.ERROR, code, message, process)


class _Stream:
    """One stream's sections against its header, and against each other."""

    def __init__(self, snapshot: Snapshot, number: int, header: StreamHeader) -> None:
        self._file = snapshot.file
        self._number = number
        self._header = header
        self._name = f"{header.service}[{header.pid}]"
        self._strings = Strings()
        self._last_ns: dict[int, int] = {}
        self._next_index: dict[int, int] = {}
        self._unknown_tseqs = 0
        self._found: dict[int, Counter[str]] = {}
        """By writer, records by where the generations and their end marks say that they are."""

    def findings(self) -> Iterator[Finding]:
        for section in self._file.strings(self._number):
            self._strings.add(self._file.body(section).data)
        sections = self._file.generations(self._number)
        for before, after in pairwise(sections):
            if before.info is not None and after.info is not None and before.info.generation >= after.info.generation:
                yield self._error("generation", f"generation {after.info.generation} is in it twice")
        whole = True
        held = 0
        for section in sections:
            body = self._file.body(section)
            whole = whole and not body.problem
            if section.info is not None and not body.problem:
                held += section.info.records
                decoded = decode_generation(
                    body.data, section.info.end_mark, sealed_by_mark=section.info.seal == "end mark"
                )
                yield from self._generation(section.info, decoded)
        if self._strings.unknown:
            yield self._error("string", f"{self._strings.unknown} references to strings that are not in its table")
        if held > self._header.ledger.held:
            yield self._error(
                "ledger", f"its ledger says {self._header.ledger.held} records held, the generations have {held}"
            )
        yield from self._ledger()
        if self._unknown_tseqs:
            yield self._error("batch", f"{self._unknown_tseqs} batches are in it which, its header says, never came")

    def _ledger(self) -> Iterator[Finding]:
        """Does it add up, as a whole and by writer, and have what the generations have? It may have more: of what was evicted, or is not in this snapshot."""
        header = self._header
        if not header.ledger.balanced:
            yield self._error("ledger", header.ledger.equation)
        if problem := writers_disagree(header.ledger, header.writers, header.other_writers):
            yield self._error("ledger", problem)
        rows = {row.writer: row for row in header.writers}
        for writer, found in sorted(self._found.items()) if rows else ():
            row = rows.get(writer)
            if row is None and found.total() and not header.other_writers:
                yield self._error("ledger", f"writer {writer} is in the generations, and has no ledger")
            elif row is not None:
                # what was missing when its generation was sealed may have come late
                most = {"held": row.held, "overwritten": row.overwritten, "missing": row.missing + row.late}
                for name, count in most.items():
                    if found[name] > count:
                        yield self._error(
                            "ledger",
                            f"writer {writer}: its ledger says {count} records {name}, the generations have {found[name]}",
                        )

    def _came(self, tseq: int) -> bool:
        header = self._header
        # an older file does not say
        return not header.stored_through or (
            tseq <= header.stored_through and not any(start <= tseq < end for start, end in header.gaps)
        )

    def _error(self, code: str, message: str) -> Finding:
        return _error(code, f"{self._name}: {message}", self._number)

    def _generation(self, info: GenerationInfo, decoded: DecodedGeneration) -> Iterator[Finding]:
        where = f"generation {info.generation}"
        for problem in decoded.problems:
            yield self._error("batch", f"{where}: {problem}")
        if decoded.opening is None and info.complete:
            yield self._error("generation", f"{where}: complete, it says, but it does not open")
        batches = [batch for of_writer in decoded.writers.values() for batch in of_writer]
        for batch in batches:
            header = batch.header
            if header.uuid != self._header.uuid or header.generation != info.generation:
                yield self._error("batch", f"{where}: {batch.where()} does not belong here")
            self._unknown_tseqs += info.seal not in _RECOVERED and not self._came(header.tseq)
        records = sum(batch.header.count for batch in batches)
        if (records, len(batches)) != (info.records, info.batches):
            yield self._error(
                "generation",
                f"{where}: {info.records} records in {info.batches} batches, it says, but there are {records} in {len(batches)}",
            )
        rows = {row.writer: row for row in decoded.rows or ()}
        for writer in decoded.writers.keys() | rows.keys():
            of_writer = decoded.writers.get(writer, [])
            yield from self._indices(where, info, writer, of_writer, rows.get(writer))
            yield from self._records(where, decoded, of_writer)
        for spec in decoded.kinds.values():
            known = KINDS.get(spec.kind)
            if known is not None and known.name != spec.name:
                yield self._error(
                    "record", f"{where}: kind {spec.kind} is {spec.name!r} here, and {known.name!r} elsewhere"
                )

    def _indices(
        self, where: str, info: GenerationInfo, writer: int, batches: list[Batch], row: WriterEnd | None
    ) -> Iterator[Finding]:
        held = 0
        at = self._next_index.get(writer, 0)
        for batch in batches:
            first, end = batch.header.first_index, batch.header.first_index + batch.header.count
            if first < at:
                yield self._error("index", f"{where}: writer {writer}: wanted index {at} or above, got {first}")
            if row is not None and (first < row.first_index or end > row.next_index):
                yield self._error(
                    "index",
                    f"{where}: writer {writer}: records {first}..{end} are outside of {row.first_index}..{row.next_index}, of its end mark",
                )
            held += batch.header.count
            at = max(at, end)
        if row is not None:
            at = max(at, row.next_index)
            overwritten = sum(end - start for start, end in row.overwritten)
            if info.complete and not info.lost and held + overwritten != row.next_index - row.first_index:
                yield self._error(
                    "index",
                    f"{where}: writer {writer}: wanted {row.next_index - row.first_index} records, got {held} and {overwritten} overwritten",
                )
        self._next_index[writer] = at
        self._count(writer, held, info, batches, row)

    def _count(self, writer: int, held: int, info: GenerationInfo, batches: list[Batch], row: WriterEnd | None) -> None:
        found = self._found.setdefault(writer, Counter())
        found["held"] += held
        if row is not None:
            lost = row.next_index - row.first_index - held
            # all that was sent is here: what it lacks the tracer had lost
            overwritten = lost if info.complete else _not_in(row.overwritten, batches)
            found["overwritten"] += overwritten
            found["missing"] += lost - overwritten

    def _records(self, where: str, decoded: DecodedGeneration, batches: list[Batch]) -> Iterator[Finding]:
        problems: list[Finding] = []

        def problem(batch: Batch, index: int, reason: str) -> None:
            problems.append(self._error("record", f"{where}: writer {batch.header.writer} record {index}: {reason}"))

        decoder = RecordDecoder(self._strings)
        for batch in batches:
            header = batch.header
            if header.base_ns < self._last_ns.get(header.writer, 0):
                problem(batch, header.first_index, "time: it begins before the batch before it ends")
            last_ns = header.base_ns
            count = 0
            for raw in decoder.records([batch], decoded.kinds, problem):
                last_ns = raw.time_ns
                count += 1
            # one that was sent without its records keeps their times
            if 0 < count == header.count and last_ns != header.last_ns:
                problem(batch, header.first_index, f"time: wanted the last at {header.last_ns}, got {last_ns}")
            self._last_ns[header.writer] = max(last_ns, self._last_ns.get(header.writer, 0))
        yield from problems


def _not_in(ranges: tuple[tuple[int, int], ...], batches: list[Batch]) -> int:
    """How many of the indices in ``ranges`` are not those of records in ``batches``; both ascend."""
    count = sum(end - start for start, end in ranges)
    at = 0
    for start, end in ranges:
        while at < len(batches) and batches[at].header.first_index + batches[at].header.count <= start:
            at += 1
        n = at
        while n < len(batches) and batches[n].header.first_index < end:
            header = batches[n].header
            count -= max(0, min(end, header.first_index + header.count) - max(start, header.first_index))
            n += 1
    return count


def _order(snapshot: Snapshot) -> Iterator[Finding]:
    before_ns = 0
    wrong = 0
    for record in snapshot:
        wrong += record.time_ns < before_ns
        before_ns = max(before_ns, record.time_ns)
    if wrong:
        yield _error("order", f"{wrong} records come after later ones")


def _flows(snapshot: Snapshot) -> Iterator[Finding]:
    for flow in snapshot.flows:
        clocks = snapshot.clocks[flow.from_process], snapshot.clocks[flow.to_process]
        slack_ns = sum(clock.error_ns or 0 for clock in clocks)
        unknown = any(clock.error_ns is None for clock in clocks)
        if flow.to_ns + slack_ns < flow.from_ns and not unknown:
            yield _error("flow", f"trace {flow.trace}: an extract {flow.from_ns - flow.to_ns} ns before its inject")
