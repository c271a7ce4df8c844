"""One tracer's stream: its open generations and what seals them, its sequence numbers, its strings. Its records are counted by `frzmq.recorder.ledger`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from frzmq.errors import WireError
from frzmq.recorder.events import Seal, SealedGeneration
from frzmq.recorder.ledger import NOTHING, Book
from frzmq.recorder.ranges import Ranges
from frzmq.recorder.ring import OVERHEAD_BYTES
from frzmq.recorder.tail import Run, Tail
from frzmq.wire.batch import (
    HEADER_SIZE,
    BatchType,
    EndMark,
    Header,
    Opening,
    WriterEnd,
    decode_end_mark,
    encode_batch,
    encode_end_mark,
    encode_opening,
    where,
)
from frzmq.wire.kinds import KINDS
from frzmq.wire.ledger import Ledger, WriterLedger
from frzmq.wire.messages import MAX_GAPS, Hello

MAX_OPEN = 2
"""Open generations of a stream: the newest, and one that waits for frames to be sent again."""
MAX_WRITERS = 4096
"""Writers whose indices are remembered; the one not heard of for longest is forgotten first."""
NEVER = 1 << 64
"""No generation has a number so high."""
JOIN_STRINGS = 64
"""So many batches of strings are joined into one."""

LARGE_BYTES = 16 << 10
"""A batch that stays as it is when its generation is sealed: to copy it would cost more than its object does."""
BLOCK_BYTES = 64 << 10
"""Smaller ones are joined to blocks of about this size: an object for each would cost more than their bytes do."""

_OF_A_GENERATION = frozenset({BatchType.OPEN, BatchType.RECORDS, BatchType.END})


@dataclass(slots=True)
class _Open:
    """A generation that is not sealed."""

    number: int
    first_tseq: int
    last_tseq: int
    opened: bool = False
    """Its OPEN batch is here."""
    first_ns: int = 0
    last_ns: int = 0
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    """``(tseq, batch)``"""
    charged_bytes: int = 0
    growth_bytes: int = 0
    """Without the OPEN batch, whose size is that of what was open when the generation began."""
    batches: int = 0
    records: int = 0
    received: dict[int, Ranges] = field(default_factory=dict)
    """Record indices by writer."""
    gone: dict[int, int] = field(default_factory=dict)
    """By writer: the first index of batches that came without their records."""
    mark: EndMark | None = None
    mark_body: bytes = b""
    mark_batches: int = 0

    @property
    def whole(self) -> bool:
        """Its opening, its end mark, and every batch that the mark counts are here."""
        return self.opened and self.mark is not None and self.batches == self.mark_batches


class Stream:
    """Takes batches that are proven to be its tracer's and seals generations, in their order.

    ``asked``: the generation that the tracer is asked to open. ``young``: the tracer has sent nothing before it said hello, so that its
    sequence numbers begin at 1, and the indices of its writers at 0. ``ends``: as of `Book`.
    """

    def __init__(
        self, *, asked: int, young: bool, max_strings_bytes: int, ends: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        self.asked = asked
        self.opened = 0
        """The newest generation of which something came."""
        self.ended = False
        """It said goodbye, and all before that is sealed."""
        self.open_bytes = 0
        self.strings: list[bytes] = []
        self.strings_bytes = 0
        self.strings_refused = False
        """The table grew past its bound, and what came then was not kept."""
        self.records = 0
        """Received, duplicates not counted."""
        self.late_ns = 0
        """The last time that a batch of a generation that was sealed tells of, by the tracer's clock: up to it something is not in the ring."""
        self._max_strings_bytes = max_strings_bytes
        self._sealed_through = 0
        self._left = 0
        """The tracer records into this generation, or a later one, as its batches show."""
        self._record_from = 0
        self._open: list[_Open] = []
        self._seen = Ranges()
        # below it a gap is none to wait for: sent to an earlier recorder, or given up
        self._gaps_from = 1 if young else 0
        self._last_part_tseq = 0
        """The last that belongs to a generation."""
        self._goodbye_tseq = 0
        self._string_ids = Ranges()
        self._next_index: dict[int, int] = {}
        self._book = Book(young, ends)
        self._ends = ends if not young else {}
        self._dropped = self._duplicate = self._rejected = self._torn = 0

    # --- what came

    def take(self, header: Header, data: bytes) -> list[SealedGeneration]:
        """One batch (``data``: header and body). Returns the generations that are sealed by it.

        Raises WireError when it contradicts itself or what came before: then the stream is to be closed.
        """
        if self._is_duplicate(header):
            return []
        mark = decode_end_mark(data[HEADER_SIZE:]) if header.type is BatchType.END else None
        if header.type not in _OF_A_GENERATION:
            self._note(header)
            self._take_other(header, data)
        elif header.generation < self._record_from or header.generation <= self._sealed_through:
            self._note(header)
            self._count_late(header)
        else:
            self._check_order(header)
            self._check_content(header, mark)
            self._note(header)
            self._take_part(header, mark, data)
        return self._settle()

    def take_late(self, header: Header, data: bytes) -> None:
        """One batch after the stream was closed: counted; only strings are kept."""
        if self._is_duplicate(header):
            return
        self._note(header)
        if header.type is BatchType.STRINGS:
            self._take_strings(header, data)
        else:
            self._count_late(header)
        if header.type in _OF_A_GENERATION:
            # of a tracer that was taken for dead: should it say hello again, the rest of this generation, which lacks a part, is late as well
            self._sealed_through = max(self._sealed_through, header.generation)

    # --- what is done to it

    def advance(self) -> int:
        """The generation that the tracer is to open now."""
        self.asked += 1
        return self.asked

    def rejoin(self, generation: int) -> None:
        """The tracer, whose last generation is ``generation``, said hello again."""
        self._goodbye_tseq = 0
        self.ended = False
        if self.opened >= self.asked or generation >= self.asked:
            self.asked = max(self.asked, generation) + 1

    def close(self, seal: Seal) -> list[SealedGeneration]:
        """Seals what is open. A later generation may come."""
        return [self._seal(seal, complete=self._open[0].whole) for _ in range(len(self._open))]

    def close_oldest(self, seal: Seal) -> list[SealedGeneration]:
        """Seals the oldest open generation, and what has waited for it."""
        if not self._open:
            return []
        return [self._seal(seal, complete=False), *self._settle()]

    def discard_before(self, generation: int) -> None:
        """What comes of earlier generations is not recorded: the recorder is off. Nothing is open."""
        self._record_from = generation
        self._ends = {}
        self._book.interrupt()

    def count_evicted(self, generation: SealedGeneration) -> None:
        self._book.evict(generation.counted)

    def count_rejected(self, header: Header) -> None:
        self._rejected += _records(header)

    def count_dropped(self, dropped: int) -> None:
        """``dropped``: all that the tracer dropped so far, by its own count."""
        self._dropped = max(self._dropped, dropped)

    def recover(self, tail: Tail, hello: Hello, nonce: int) -> None:
        """Takes what a dead tracer's buffer file holds, and what had not come; `close` is to follow."""
        self._torn += tail.torn
        header = Header(BatchType.STRINGS, hello.uuid, hello.incarnation, nonce, self.opened, self._seen.end)
        for start, end in self._string_ids.gaps(1, len(tail.strings) + 1):
            strings = replace(header, first_index=start, count=end - start)
            self._take_strings(strings, encode_batch(strings, b"".join(tail.strings[start - 1 : end - 1])))
        for run in self._lacking(tail.runs):
            if run.generation < self._record_from:
                continue
            generation = max(run.generation, self._sealed_through + 1)
            if self._open and self._open[-1].opened:
                # a newer one's opening has not come: its records read by this one's too
                generation = min(generation, self._open[-1].number)
            if self._find(generation) is None:
                self._open_recovered(generation, run, tail, header)
            records = replace(
                header,
                type=BatchType.RECORDS,
                generation=generation,
                tseq=header.tseq + 1,
                writer=run.writer,
                base_ns=run.base_ns,
                last_ns=run.last_ns,
                first_index=run.first_index,
                count=run.count,
            )
            self._take_part(records, None, encode_batch(records, run.body))

    def _lacking(self, runs: tuple[Run, ...]) -> list[Run]:
        """What of them has not come since the file was asked for."""
        stored = self.stored_records()
        return [
            run.part(start, end)
            for run in runs
            for start, end in stored.get(run.writer, Ranges()).gaps(run.first_index, run.end)
        ]

    def _open_recovered(self, generation: int, first: Run, tail: Tail, header: Header) -> None:
        """With what was open when the tracer died and had begun before ``first``."""
        items = tuple(item for item in tail.open if item.begin_ns < first.base_ns)
        clocks = (tail.header.boottime_ns - tail.header.monotonic_ns, tail.header.wall_ns - tail.header.monotonic_ns)
        at_ns = first.base_ns
        opening = Opening(at_ns, max(0, at_ns + clocks[0]), max(0, at_ns + clocks[1]), KINDS, (), items)
        made = replace(header, type=BatchType.OPEN, generation=generation, base_ns=at_ns, last_ns=at_ns)
        self._take_part(made, None, encode_batch(made, encode_opening(opening)))

    # --- what is known

    def stored_records(self) -> dict[int, Ranges]:
        """By writer: the indices of its records that have a place, or are open."""
        stored: dict[int, Ranges] = {}
        for writer, end in self._book.placed().items():
            stored.setdefault(writer, Ranges()).add(0, end)
        for generation in self._open:
            for writer, received in generation.received.items():
                for start, end in received.ranges():
                    stored.setdefault(writer, Ranges()).add(start, end)
        return stored

    @property
    def charged_bytes(self) -> int:
        return self.open_bytes + self.strings_bytes

    @property
    def advancing(self) -> bool:
        """It has not opened yet what it is asked to open."""
        return self.opened < self.asked

    @property
    def settled_below(self) -> int:
        """The tracer has left every generation below this one, and what came of them is sealed."""
        # one may be sealed although its tracer goes on with it, for want of memory or after a silence
        return self._open[0].number if self._open else min(self._sealed_through + 1, self._left)

    @property
    def growth_bytes(self) -> int:
        """By how much the newest generation has grown since it was opened."""
        return self._open[-1].growth_bytes if self._open else 0

    def stored(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """``(stored_through, gaps)`` of an `Ack`."""
        end = self._seen.end
        return max(end - 1, 0), tuple(self._seen.gaps(1, end))

    def ledger(self) -> Ledger:
        p = self._book.places(sum(generation.records for generation in self._open))
        outside = (self._dropped, self._duplicate, self._rejected, self._torn)
        return Ledger(p.recorded, p.open, p.held, p.evicted, p.overwritten, p.missing, p.late, *outside)

    def writers(self) -> tuple[tuple[WriterLedger, ...], int]:
        """The ledgers of those that are told apart, and how many others there were."""
        opened: dict[int, int] = {}
        for generation in self._open:
            for writer, received in generation.received.items():
                opened[writer] = opened.get(writer, 0) + received.count(0, received.end)
        return self._book.writers(opened), self._book.forgotten

    def ends(self) -> dict[int, int]:
        """By writer, where its indices ended, for the next incarnation of the tracer."""
        return dict(self._book.settled())

    # --- sequence numbers

    def _is_duplicate(self, header: Header) -> bool:
        if header.tseq != 0 and header.tseq not in self._seen:
            return False
        self._duplicate += _records(header)
        return True

    def _note(self, header: Header) -> None:
        if self._gaps_from == 0:
            self._gaps_from = header.tseq
        self._seen.add(header.tseq, header.tseq + 1)
        if header.type in _OF_A_GENERATION:
            self._last_part_tseq = max(self._last_part_tseq, header.tseq)
            self._left = max(self._left, header.generation + (header.type is BatchType.END))
        if len(self._seen) > MAX_GAPS:
            self._gaps_from = max(self._gaps_from, self._seen.join_first())
        self.count_dropped(header.dropped)

    def _has_gap(self, start: int, end: int) -> bool:
        start = max(start, self._gaps_from)
        return self._seen.count(start, end) < end - start

    def _may_lack(self, start: int, end: int) -> bool:
        """Something of ``[start, end)`` did not arrive, or it is not known."""
        return not 0 < self._gaps_from <= start or self._has_gap(start, end)

    # --- one batch

    def _check_order(self, header: Header) -> None:
        """Does a batch of a generation come where it says that it belongs?"""
        generation, tseq = header.generation, header.tseq
        newest = tseq >= self._seen.end
        if generation == 0 or generation > self.asked:
            raise _wrong(header, f"a generation in 1..{self.asked}", str(generation))
        if newest and generation < self.opened:
            raise _wrong(header, f"generation {self.opened} or later, as before", str(generation))
        if self._goodbye_tseq and tseq > self._goodbye_tseq:
            raise _wrong(header, "nothing after a goodbye", header.type.name)
        for other in self._open:
            if (other.number < generation and tseq < other.last_tseq) or (
                other.number > generation and tseq > other.first_tseq
            ):
                raise _wrong(
                    header,
                    f"one generation after the other, and tseq {other.last_tseq} of {other.number}",
                    f"tseq {tseq}",
                )
        here = self._find(generation)
        if here is None:
            if header.type is not BatchType.OPEN and newest and not self._may_lack(self._last_part_tseq + 1, tseq):
                raise _wrong(header, "an OPEN batch first", header.type.name)
            return
        if header.type is BatchType.OPEN:
            if here.opened or tseq > here.first_tseq:
                raise _wrong(header, "one OPEN batch, and that first", f"another after tseq {here.first_tseq}")
        elif here.opened and tseq < here.first_tseq:
            raise _wrong(header, f"nothing before the OPEN batch (tseq {here.first_tseq})", header.type.name)
        if (here.mark is not None and tseq > here.last_tseq) or (
            header.type is BatchType.END and tseq < here.last_tseq
        ):
            raise _wrong(header, "nothing behind the end mark", f"tseq {max(tseq, here.last_tseq)}")
        if header.type is BatchType.END and here.mark is not None:
            raise _wrong(header, "one end mark", "another")

    def _check_content(self, header: Header, mark: EndMark | None) -> None:
        """Does it agree with what came of its generation?"""
        here = self._find(header.generation)
        if mark is not None:
            rows = {row.writer: row for row in mark.writers}
            if len(rows) != len(mark.writers):
                raise _wrong(header, "each writer once", f"{len(mark.writers)} rows of {len(rows)} writers")
            if here is not None:
                if here.batches > header.count:
                    raise _wrong(
                        header, f"at least the {here.batches} batches that came", f"{header.count} in the end mark"
                    )
                for writer, received in here.received.items():
                    for start, end in received.ranges():
                        _check_in_row(header, writer, start, end, rows.get(writer))
        if header.type is not BatchType.RECORDS:
            return
        start, end = header.first_index, header.first_index + header.count
        if header.tseq >= self._seen.end and start < self._next_index.get(header.writer, 0):
            raise _wrong(
                header, f"writer {header.writer} to go on at index {self._next_index[header.writer]}", str(start)
            )
        if here is None:
            return
        if header.writer in here.received and here.received[header.writer].count(start, end):
            raise _wrong(header, f"each record of writer {header.writer} once", f"some of {start}..{end} again")
        if here.mark is not None:
            if here.batches >= here.mark_batches:
                raise _wrong(header, f"the {here.mark_batches} batches of the end mark", "one more")
            row = next((row for row in here.mark.writers if row.writer == header.writer), None)
            _check_in_row(header, header.writer, start, end, row)

    def _find(self, generation: int) -> _Open | None:
        for here in self._open:
            if here.number == generation:
                return here
        return None

    def _take_part(self, header: Header, mark: EndMark | None, data: bytes) -> None:
        here = self._find(header.generation)
        if here is None:
            here = _Open(header.generation, header.tseq, header.tseq)
            self._open.append(here)
            self._open.sort(key=lambda generation: generation.number)
            self.opened = max(self.opened, header.generation)
        here.first_tseq = min(here.first_tseq, header.tseq)
        here.last_tseq = max(here.last_tseq, header.tseq)
        here.last_ns = max(here.last_ns, header.last_ns)
        charged = len(data) + OVERHEAD_BYTES
        here.charged_bytes += charged
        self.open_bytes += charged
        if mark is not None:
            clipped = self._without_what_came_before(mark, here)
            here.mark, here.mark_batches = clipped, header.count
            here.mark_body = data[HEADER_SIZE:] if clipped is mark else encode_end_mark(clipped)
            return
        here.frames.append((header.tseq, data))
        if header.type is BatchType.OPEN:
            here.opened, here.first_ns = True, header.last_ns
            return
        here.growth_bytes += charged
        here.batches += 1
        here.records += header.count
        self.records += header.count
        if not here.opened:
            here.first_ns = min(here.first_ns or header.base_ns, header.base_ns)
        end = header.first_index + header.count
        here.received.setdefault(header.writer, Ranges()).add(header.first_index, end)
        if not header.count:
            here.gone[header.writer] = min(header.first_index, here.gone.get(header.writer, header.first_index))
        _remember(self._next_index, header.writer, max(end, self._next_index.get(header.writer, 0)))

    def _without_what_came_before(self, mark: EndMark, here: _Open) -> EndMark:
        """A tracer that was stopped does not know what had come: its next incarnation's mark may tell of it as lost."""
        rows = []
        for row in mark.writers:
            came = here.received.get(row.writer, NOTHING)
            end = min(self._ends.get(row.writer, 0), came.start if came else row.next_index)
            if end > row.first_index:
                overwritten = tuple((max(a, end), b) for a, b in row.overwritten if b > end)
                row = replace(row, first_index=end, overwritten=overwritten)
            rows.append(row)
        clipped = EndMark(tuple(rows))
        return clipped if clipped != mark else mark

    def _take_other(self, header: Header, data: bytes) -> None:
        if header.type is BatchType.STRINGS:
            self._take_strings(header, data)
        elif header.type is BatchType.GOODBYE:
            self._goodbye_tseq = header.tseq

    def _take_strings(self, header: Header, data: bytes) -> None:
        if self.strings_bytes + len(data) + OVERHEAD_BYTES > self._max_strings_bytes:
            self.strings_refused = True
        elif self._string_ids.add(header.first_index, header.first_index + header.count):
            self.strings.append(data)
            if len(self.strings) > JOIN_STRINGS:
                self.strings = [b"".join(self.strings)]
            self.strings_bytes = sum(map(len, self.strings)) + OVERHEAD_BYTES * len(self.strings)

    # --- sealing

    def _settle(self) -> list[SealedGeneration]:
        """Seals, oldest first, what needs no more waiting. Raises WireError when an end mark counts what was never sent."""
        sealed: list[SealedGeneration] = []
        while self._open:
            oldest = self._open[0]
            later = self._open[1] if len(self._open) > 1 else None
            start = oldest.first_tseq if oldest.opened else self._gaps_from
            if oldest.whole:
                sealed.append(self._seal(Seal.END_MARK, complete=True))
            elif (
                oldest.mark is not None
                and oldest.opened
                and start >= self._gaps_from
                and not self._has_gap(start, oldest.last_tseq)
            ):
                raise WireError(
                    f"end mark of generation {oldest.number}: wanted {oldest.mark_batches} batches before it, got {oldest.batches} and no gap"
                )
            elif later is not None and not self._has_gap(start, later.first_tseq):
                sealed.append(self._seal(Seal.LATER_GENERATION, complete=self._is_proven(oldest)))
            elif len(self._open) > MAX_OPEN:
                sealed.append(self._seal(Seal.LATER_GENERATION, complete=False))
            elif self._goodbye_tseq and not self._has_gap(start, self._goodbye_tseq):
                sealed.append(self._seal(Seal.GOODBYE, complete=self._is_proven(oldest)))
            else:
                break
        self.ended = bool(self._goodbye_tseq) and not self._open
        return sealed

    def _is_proven(self, oldest: _Open) -> bool:
        """Without an end mark: from its opening to what seals it no sequence number is missing, nor could an earlier recorder have had one."""
        return oldest.opened and oldest.mark is None and oldest.first_tseq >= self._gaps_from

    def _seal(self, seal: Seal, *, complete: bool) -> SealedGeneration:
        """The oldest open generation, taken out."""
        oldest = self._open.pop(0)
        self._sealed_through = oldest.number
        self.open_bytes -= oldest.charged_bytes
        lost, counted = self._book.settle(oldest.received, oldest.mark, oldest.gone, whole=oldest.whole)
        oldest.frames.sort(key=lambda frame: frame[0])
        return SealedGeneration(
            generation=oldest.number,
            complete=complete,
            seal=seal,
            first_ns=oldest.first_ns,
            last_ns=oldest.last_ns,
            records=oldest.records,
            batches=oldest.batches,
            frames=_blocks(oldest.frames),
            end_mark=oldest.mark_body,
            lost=lost,
            counted=counted,
        )

    def _count_late(self, header: Header) -> None:
        if header.type in _OF_A_GENERATION:
            self.late_ns = max(self.late_ns, header.last_ns)
        if header.type is BatchType.RECORDS and header.generation >= self._record_from:
            late = self._book.late(header)
            self.records += late
            self._duplicate += header.count - late


def _blocks(frames: list[tuple[int, bytes]]) -> tuple[bytes, ...]:
    """The batches of ``frames``, which is emptied on the way: they are never held twice."""
    frames.reverse()
    blocks: list[bytes] = []
    small: list[bytes] = []
    small_bytes = 0
    while frames:
        _, data = frames.pop()
        if len(data) >= LARGE_BYTES:
            if small:
                blocks.append(b"".join(small))
                small, small_bytes = [], 0
            blocks.append(data)
            continue
        small.append(data)
        small_bytes += len(data)
        if small_bytes >= BLOCK_BYTES:
            blocks.append(b"".join(small))
            small, small_bytes = [], 0
    if small:
        blocks.append(b"".join(small))
    return tuple(blocks)


def _remember(table: dict[int, int], writer: int, value: int) -> None:
    """As the last of a table of at most MAX_WRITERS."""
    table.pop(writer, None)
    table[writer] = value
    if len(table) > MAX_WRITERS:
        del table[next(iter(table))]


def _records(header: Header) -> int:
    return header.count if header.type is BatchType.RECORDS else 0


def _wrong(header: Header, wanted: str, got: str) -> WireError:
    return WireError(f"{where(header)}: wanted {wanted}, got {got}")


def _check_in_row(header: Header, writer: int, start: int, end: int, row: WriterEnd | None) -> None:
    if start < end and (row is None or start < row.first_index or end > row.next_index):
        wanted = f"{row.first_index}..{row.next_index}" if row is not None else "none"
        raise _wrong(header, f"records {wanted} of writer {writer}, as the end mark says", f"{start}..{end}")
