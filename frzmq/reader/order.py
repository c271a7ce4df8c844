"""One stream's records in the order of time.

The records of one writer are in order as they were written; those of one generation are merged over its writers; and a generation is merged with the one
behind it, because a thread may be stopped between taking a record's time and publishing it. What was read from a buffer may be of long before its
generation: an earlier recorder had acknowledged it, and the thread has rested since. Such writers of the last generation are merged with all of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeAlias

from frzmq.errors import WireError
from frzmq.reader.decode import DecodedGeneration, RecordDecoder, Strings, decode_generation
from frzmq.reader.model import Gap, Record
from frzmq.snapfile.format import GenerationInfo
from frzmq.snapfile.load import Section, SnapshotFile
from frzmq.wire.batch import Batch, Opening, WriterEnd, decode_end_mark

Problem = Callable[[str], None]
FROM_A_BUFFER: Final = frozenset({"death", "stuck"})
"""Seals of generations that may have what was read from a buffer."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A generation begins: what it says of the moment before its first record."""

    time_ns: int
    process: int
    generation: int
    opening: Opening
    strings: Strings


@dataclass(frozen=True, slots=True)
class Lost:
    """A gap, at its begin."""

    time_ns: int
    gap: Gap


Entry: TypeAlias = Record | Opened | Lost


def entry_time(entry: Entry) -> int:
    return entry.time_ns


class StreamReader:
    """The stream ``number`` of ``file``; ``offset_ns`` is added to its times."""

    def __init__(self, file: SnapshotFile, number: int, offset_ns: int, problem: Problem) -> None:
        self._file = file
        self._number = number
        self._offset_ns = offset_ns
        self._problem = problem
        self.sections = file.generations(number)
        self.strings = Strings()
        for section in file.strings(number):
            body = file.body(section)
            for wrong in filter(None, (body.problem, self.strings.add(body.data))):
                problem(wrong)
        self._decoder = RecordDecoder(self.strings)

    def entries(self) -> Iterator[Entry]:
        """Everything, ordered by time, an `Opened` or `Lost` before the records of the same time."""
        return heapq.merge(_overlapping(self._generations()), *self._early(), key=entry_time)

    def _early(self) -> list[Iterator[Entry]]:
        """Of the last generation the writers that reach back beyond the one before it, and what was lost before them."""
        if not self._reaches_back:
            return []
        section = self.sections[-1]
        assert section.info is not None
        decoded = self._decoded(section, self._file.body(section).data)
        early = {writer: batches for writer, batches in decoded.writers.items() if self._is_early(section, batches)}
        gaps = self._gone_before(section.info, early, self._told())
        lost: list[Entry] = sorted((Lost(gap.begin_ns, gap) for gap in gaps), key=entry_time)
        return [iter(lost), *self._writers(section, decoded, early)]

    def _told(self) -> dict[int, int]:
        """By writer the index that comes next, as the end marks before the last generation say."""
        told: dict[int, int] = {}
        for section in self.sections[:-1]:
            # a damaged one is told of where its generation is read
            with suppress(WireError):
                assert section.info is not None
                told |= {row.writer: row.next_index for row in decode_end_mark(section.info.end_mark).writers}
        return told

    @property
    def _reaches_back(self) -> bool:
        """The last generation may, and further than the one before it."""
        last = self.sections[-1].info if len(self.sections) > 2 else None
        return last is not None and last.seal in FROM_A_BUFFER

    def _is_early(self, section: Section, batches: list[Batch]) -> bool:
        before = self.sections[-2].info if section is self.sections[-1] and self._reaches_back else None
        return before is not None and batches[0].header.last_ns < before.first_ns

    def _decoded(self, section: Section, data: bytes) -> DecodedGeneration:
        assert section.info is not None
        return decode_generation(data, section.info.end_mark, sealed_by_mark=section.info.seal == "end mark")

    def _generations(self) -> Iterator[Iterator[Entry]]:
        expected: dict[int, int] = {}
        dropped: dict[int, int] = {}
        before: GenerationInfo | None = None
        for section in self.sections:
            assert section.info is not None
            body = self._file.body(section)
            decoded = self._decoded(section, body.data)
            for wrong in filter(None, (body.problem, *decoded.problems)):
                self._problem(f"{section}: {wrong}" if wrong is not body.problem else wrong)
            marks: list[Entry] = [*self._opened(section.info, decoded)]
            writers = {w: batches for w, batches in decoded.writers.items() if not self._is_early(section, batches)}
            gaps = self._gaps(before, section.info, body.problem, decoded, writers, expected)
            marks += [Lost(gap.begin_ns, gap) for gap in gaps]
            marks += [Lost(gap.begin_ns, gap) for gap in self._dropped(section.info, decoded, dropped)]
            marks.sort(key=entry_time)
            before = section.info
            yield heapq.merge(marks, *self._writers(section, decoded, writers), key=entry_time)

    def _opened(self, info: GenerationInfo, decoded: DecodedGeneration) -> Iterator[Opened]:
        if decoded.opening is not None:
            at_ns = decoded.opening.monotonic_ns + self._offset_ns
            yield Opened(at_ns, self._number, info.generation, decoded.opening, self.strings)

    def _writers(
        self, section: Section, decoded: DecodedGeneration, writers: Mapping[int, list[Batch]]
    ) -> list[Iterator[Record]]:
        assert section.info is not None
        generation, process, offset_ns = section.info.generation, self._number, self._offset_ns

        def records(batches: list[Batch]) -> Iterator[Record]:
            def problem(batch: Batch, index: int, reason: str) -> None:
                self._problem(f"{section}: writer {batch.header.writer} record {index}: {reason}")

            for raw in self._decoder.records(batches, decoded.kinds, problem):
                spec = raw.spec
                fields = dict(zip(_names(spec.fields), raw.args, strict=True))
                yield Record(
                    raw.time_ns + offset_ns,
                    process,
                    raw.writer,
                    raw.writer_index,
                    spec.name,
                    fields,
                    raw.track,
                    raw.op,
                    generation,
                )

        return [records(batches) for batches in writers.values()]

    def _gaps(
        self,
        before: GenerationInfo | None,
        info: GenerationInfo,
        damage: str,
        decoded: DecodedGeneration,
        writers: Mapping[int, list[Batch]],
        expected: dict[int, int],
    ) -> Iterator[Gap]:
        """What is known not to be here, of all but what is before ``writers``; ``expected``: by writer the index that comes next, kept from generation to generation."""
        begin_ns, end_ns = info.first_ns + self._offset_ns, max(info.first_ns, info.last_ns) + self._offset_ns
        number = info.generation
        if before is not None and number != before.generation + 1:
            hole_ns = max(before.first_ns, before.last_ns) + self._offset_ns
            missing = number - before.generation - 1
            yield Gap(
                self._number, None, hole_ns, max(hole_ns, begin_ns), "evicted", None, number, f"{missing} generations"
            )
            # what was lost with them has no range of its own
            expected.clear()
        if damage:
            yield Gap(self._number, None, begin_ns, end_ns, "damaged", info.records, number, damage)
            expected.clear()
            return
        if not info.complete:
            yield Gap(self._number, None, end_ns, end_ns, "incomplete", None, number, f"sealed by {info.seal}")
            yield from self._gone_before(info, writers, expected)
        rows = {row.writer: row for row in decoded.rows or ()}
        for writer in sorted(decoded.writers.keys() | rows.keys()):
            yield from self._writer_gaps(info, decoded.writers.get(writer, []), rows.get(writer), expected, begin_ns)

    def _dropped(self, info: GenerationInfo, decoded: DecodedGeneration, known: dict[int, int]) -> Iterator[Gap]:
        """By how much the writers' own counts went up; ``known``: these, kept from generation to generation."""
        begin_ns, end_ns = info.first_ns + self._offset_ns, max(info.first_ns, info.last_ns) + self._offset_ns
        for row in decoded.rows or ():
            # what a writer that began earlier had dropped before the first generation that is held it dropped nobody knows when
            count = row.dropped - known.get(row.writer, 0 if row.first_index == 0 else row.dropped)
            known[row.writer] = row.dropped
            if count > 0:
                yield Gap(self._number, row.writer, begin_ns, end_ns, "dropped", count, info.generation)

    def _gone_before(
        self, info: GenerationInfo, writers: Mapping[int, list[Batch]], expected: dict[int, int]
    ) -> Iterator[Gap]:
        """A buffer may still hold records that are older than the generation, the rest of which an earlier recorder had."""
        for writer, batches in writers.items():
            first = batches[0].header
            if first.last_ns < info.first_ns and first.first_index != expected.get(writer, 0):
                at_ns = first.base_ns + self._offset_ns
                detail = "what came before is gone with an earlier recorder"
                yield Gap(self._number, writer, at_ns, at_ns, "incomplete", None, info.generation, detail)

    def _writer_gaps(
        self, info: GenerationInfo, batches: list[Batch], row: WriterEnd | None, expected: dict[int, int], begin_ns: int
    ) -> Iterator[Gap]:
        generation = info.generation
        writer = row.writer if row is not None else batches[0].header.writer
        at = row.first_index if row is not None else expected.get(writer)
        since_ns = begin_ns
        overwritten: Iterable[tuple[int, int]] = row.overwritten if row is not None else ()
        if row is not None and info.complete:
            # all that was sent is here: what it lacks the tracer had lost
            overwritten = ((row.first_index, row.next_index),)
        for batch in batches:
            header = batch.header
            # the base of a batch is the time of the record before it
            until_ns = max(since_ns, header.base_ns + self._offset_ns)
            if at is not None and header.first_index > at:
                yield from self._range(generation, writer, at, header.first_index, overwritten, since_ns, until_ns)
            at = header.first_index + header.count
            since_ns = header.last_ns + self._offset_ns
        if row is not None and at is not None and at < row.next_index:
            yield from self._range(generation, writer, at, row.next_index, overwritten, since_ns, since_ns)
            at = row.next_index
        if at is not None:
            expected[writer] = at

    def _range(
        self,
        generation: int,
        writer: int,
        start: int,
        end: int,
        overwritten: Iterable[tuple[int, int]],
        begin_ns: int,
        end_ns: int,
    ) -> Iterator[Gap]:
        """One gap for each cause of ``[start, end)``."""
        counts = {"overwritten": sum(max(0, min(b, end) - max(a, start)) for a, b in overwritten)}
        counts["missing"] = end - start - counts["overwritten"]
        for cause, count in counts.items():
            if count:
                yield Gap(self._number, writer, begin_ns, end_ns, cause, count, generation)


def _overlapping(runs: Iterable[Iterator[Entry]]) -> Iterator[Entry]:
    """Runs that are each in order, of which only neighbours may overlap."""
    current: Iterator[Entry] = iter(())
    for run in runs:
        following = next(run, None)
        for entry in current:
            while following is not None and following.time_ns < entry.time_ns:
                yield following
                following = next(run, None)
            yield entry
        current = run if following is None else chain((following,), run)
    yield from current


_field_names: dict[tuple[str, ...], tuple[str, ...]] = {}


def _names(fields: tuple[str, ...]) -> tuple[str, ...]:
    """``name:s`` and so on without their types."""
    names = _field_names.get(fields)
    if names is None:
        names = tuple(field.partition(":")[0] for field in fields)
        if len(_field_names) < 1024:
            _field_names[fields] = names
    return names
