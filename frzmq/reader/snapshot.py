"""`open_snapshot`: a snapshot file as a `Snapshot`."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from functools import cached_property
from types import TracebackType
from typing import Self

from frzmq.reader.build import Builder, Built
from frzmq.reader.clocks import Edge, clock_of, tighten
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
from frzmq.reader.order import Entry, StreamReader, entry_time
from frzmq.snapfile.format import SnapshotHeader
from frzmq.snapfile.load import MAX_PROBLEMS, SnapshotFile
from frzmq.wire.ledger import Ledger, total


class Snapshot:
    """What the recorder held, decoded, clocks aligned, merged over processes. A context manager; times are ns.

    Iterating streams its records in the order of time, of all processes, without holding them. The tuples (`spans`, `logs` ...) are made at first use, by
    reading all of it once.
    """

    def __init__(self, file: SnapshotFile, *, align: bool = True) -> None:
        self.file = file
        self._problems: dict[str, None] = dict.fromkeys(file.problems)
        self.header: SnapshotHeader = file.header
        self.clocks: tuple[Clock, ...] = self._aligned(align)

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def size_bytes(self) -> int:
        return self.file.size_bytes

    # --- all records

    def __iter__(self) -> Iterator[Record]:
        return (entry for entry in self.entries() if isinstance(entry, Record))

    def entries(self) -> Iterator[Entry]:
        """The records, and between them where generations open and where something is known to be lost."""
        return heapq.merge(*(reader.entries() for reader in self._readers(self.clocks)), key=entry_time)

    # --- the things that they tell of

    @property
    def processes(self) -> tuple[Process, ...]:
        return self._built.processes

    @property
    def threads(self) -> tuple[Thread, ...]:
        return self._built.threads

    @property
    def tracks(self) -> tuple[Track, ...]:
        return self._built.tracks

    @property
    def operations(self) -> tuple[Operation, ...]:
        return self._built.operations

    @property
    def spans(self) -> tuple[Span, ...]:
        return self._built.spans

    @property
    def calls(self) -> tuple[Call, ...]:
        return self._built.calls

    @property
    def quiet_calls(self) -> tuple[QuietCalls, ...]:
        """What was called too often to be recorded: without it a quiet function would look like an idle one."""
        return self._built.quiet_calls

    @property
    def call_filters(self) -> tuple[CallFilter, ...]:
        """Of the processes whose calls are recorded."""
        return self._built.call_filters

    @property
    def events(self) -> tuple[Event, ...]:
        return self._built.events

    @property
    def logs(self) -> tuple[Log, ...]:
        return self._built.logs

    @property
    def exceptions(self) -> tuple[ExceptionEvent, ...]:
        return self._built.exceptions

    @property
    def gauges(self) -> tuple[Gauge, ...]:
        return self._built.gauges

    @property
    def flows(self) -> tuple[Flow, ...]:
        return self._built.flows

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return self._built.gaps

    @property
    def unmatched_ends(self) -> int:
        """Ends without a begin where nothing is known to be lost."""
        return self._built.unmatched_ends

    @cached_property
    def _built(self) -> Built:
        builder = Builder(self.header, list(self.clocks))
        builder.take(self.entries())
        return builder.built()

    # --- about it

    @property
    def ledger(self) -> Ledger:
        """Of all streams together."""
        return total([stream.ledger for stream in self.header.streams])

    @property
    def horizon_ns(self) -> int:
        """From when on every held stream is complete, as the recorder said; `problems` says whether the file still has all of it."""
        return self.header.horizon_ns

    @property
    def begin_ns(self) -> int:
        """Of the first record; of an empty snapshot when it was made."""
        return min((p.first_ns for p in self.processes if p.first_ns is not None), default=self.end_ns)

    @property
    def end_ns(self) -> int:
        """When it was made, or the last record's time where a clock is ahead."""
        last_ns = max((p.last_ns for p in self.processes if p.last_ns is not None), default=0)
        return max(last_ns, self.header.created_monotonic_ns)

    def took_ns(self, item: Operation | Span | Call) -> int:
        """How long it took, or has taken when the snapshot was made; of one whose begin is lost 0."""
        end_ns = self.end_ns if item.end_ns is None else item.end_ns
        return 0 if item.begin_ns is None else max(0, end_ns - item.begin_ns)

    def wall_ns(self, time_ns: int) -> int:
        """A time as ns since the epoch, by the recorder's wall clock when the snapshot was made."""
        return self.header.created_wall_ns + time_ns - self.header.created_monotonic_ns

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the file is gone, damaged or cannot be read. Of the bodies what was read so far: the tuples read them all."""
        return tuple(self._problems)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- reading

    def _note(self, problem: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems[problem] = None

    def _readers(self, clocks: tuple[Clock, ...]) -> list[StreamReader]:
        return [StreamReader(self.file, n, clock.offset_ns, self._note) for n, clock in enumerate(clocks)]

    def _aligned(self, align: bool) -> tuple[Clock, ...]:
        measured = [clock_of(stream, self.header, align=align) for stream in self.header.streams]
        if not align or all(clock.source == "same machine" for clock in measured):
            return tuple(measured)
        return tuple(tighten(measured, self._edges(tuple(measured))))

    def _edges(self, clocks: tuple[Clock, ...]) -> Iterator[Edge]:
        builder = Builder(self.header, list(clocks))
        for reader in self._readers(clocks):
            builder.take(reader.entries())
        for flow in builder.built().flows:
            yield flow.from_process, flow.to_process, flow.from_ns - flow.to_ns


def open_snapshot(path: str | os.PathLike[str], *, align: bool = True) -> Snapshot:
    """Opens a snapshot file. ``align``: bring every process's times to the recorder's clock; off, they stay as they were recorded.

    A file that is cut short or damaged opens too, and `Snapshot.problems` says what is gone. Raises SnapshotError when it is no snapshot, OSError.
    """
    return Snapshot(SnapshotFile(path), align=align)
