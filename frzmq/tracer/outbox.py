"""The batches of a tracer that are not acknowledged: sent, to be sent, and to be sent again. Pure: it decides, and moves nothing.

Of each it keeps the header, and of a batch of records no body once it was sent: the buffer holds that until the chunk is released. So memory is bounded by
the window and by what one cut takes. A batch keeps its ``tseq`` when it is sent again; one whose chunk was reused in the meantime goes without records, so that no
gap stays.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from frzmq.tracer.events import ReadSlices, SendFrame
from frzmq.tracer.slices import Slice
from frzmq.wire.batch import COALESCE_BYTES, HEADER_SIZE, BatchType, Header, decode_end_mark, encode_batch
from frzmq.wire.messages import Ack

ENTRY_BYTES: Final = 512
"""What a batch that waits for its acknowledgement is charged beside its body."""

ChunkUse: TypeAlias = tuple[int, int]
"""Chunk and serial."""


@dataclass(slots=True)
class _Entry:
    """A batch that is not acknowledged."""

    header: Header
    body: bytes | None
    """None: it was sent; `slice` says where the buffer has it."""
    slice: Slice | None = None
    sent: bool = False
    gone: int = 0
    """Records that it had when it was put in, and that were overwritten."""
    proof: int = 0
    """Once sent: when a batch with this tseq or a later one is there, and this is not, it is lost."""

    @property
    def charge(self) -> int:
        return ENTRY_BYTES + (self.slice.size if self.slice is not None else len(self.body or b""))


@dataclass(slots=True)
class _Chunk:
    """One use of a chunk: its slices that are not acknowledged."""

    waiting: int = 0
    final: bool = False


class Outbox:
    def __init__(self) -> None:
        self.resent = 0
        """Batches."""
        self.lost_records = 0
        """Overwritten after they were sent, and before they were acknowledged."""
        self.unacknowledged_bytes = 0
        """As charged."""
        self.sent_through = 0
        """The last tseq that was sent."""
        self._unacked: dict[int, _Entry] = {}
        self._openings: dict[int, _Entry] = {}
        """Of generations that may have to be sent again, acknowledged or not."""
        self._waiting: deque[_Entry] = deque()
        """To be sent, for the first time or again."""
        self._frame: tuple[bytes, list[_Entry]] | None = None
        self._chunks: dict[ChunkUse, _Chunk] = {}

    def __len__(self) -> int:
        """Batches that are not acknowledged."""
        return len(self._unacked)

    @property
    def first_unacknowledged(self) -> int | None:
        """Its tseq."""
        return next(iter(self._unacked), None)

    @property
    def waits_for(self) -> int | None:
        """The tseq of the oldest, if it was sent and nothing is known of it."""
        entry = next(iter(self._unacked.values()), None)
        return entry.header.tseq if entry is not None and entry.sent else None

    # --- in

    def put(self, header: Header, body: bytes, *, first: bool = False) -> None:
        """A batch to be sent; ``first``: before all that waits."""
        self._put(_Entry(header, body), first=first)

    def put_opening(self, header: Header, body: bytes) -> None:
        """Of a generation: kept for as long as anything of that may have to be sent again."""
        entry = self._openings[header.generation] = _Entry(header, body)
        self._put(entry)

    def put_slice(self, header: Header, taken: Slice) -> None:
        """A batch of records. Its chunk is released when all of it is acknowledged."""
        use = self._chunks.setdefault((taken.chunk, taken.serial), _Chunk())
        use.final |= taken.final
        use.waiting += 1
        self._put(_Entry(header, taken.body, dataclasses.replace(taken, body=b"")))

    def finish_chunk(self, taken: Slice) -> Iterator[ChunkUse]:
        """``taken``: an empty slice, which only says that nothing more comes of its chunk. Yields what may be released."""
        key = taken.chunk, taken.serial
        self._chunks.setdefault(key, _Chunk()).final |= taken.final
        yield from self._released(key)

    def _put(self, entry: _Entry, *, first: bool = False) -> None:
        self._keep(entry)
        if first:
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)

    def _keep(self, entry: _Entry) -> None:
        self._unacked[entry.header.tseq] = entry
        self.unacknowledged_bytes += entry.charge

    # --- out

    def next_frame(self, nonce: int) -> SendFrame | ReadSlices | None:
        """The next batches as one frame, with this nonce; or their bodies first, where they have to be read again. The same until `frame_sent`."""
        if self._frame is not None:
            return SendFrame(self._frame[0])
        entries: list[_Entry] = []
        size_bytes = 0
        for entry in self._waiting:
            size_bytes += HEADER_SIZE + (entry.slice.size if entry.slice is not None else len(entry.body or b""))
            if entries and size_bytes > COALESCE_BYTES:
                break
            entries.append(entry)
        if not entries:
            return None
        unread = tuple(e.slice for e in entries if e.body is None and e.slice is not None)
        if unread:
            return ReadSlices(unread)
        for _ in entries:
            self._waiting.popleft()
        data = b"".join(encode_batch(dataclasses.replace(e.header, nonce=nonce), e.body or b"") for e in entries)
        self._frame = data, entries
        return SendFrame(data)

    def frame_sent(self) -> None:
        assert self._frame is not None
        _, entries = self._frame
        self._frame = None
        before = self.sent_through
        self.sent_through = max(before, *(entry.header.tseq for entry in entries))
        for entry in entries:
            again = entry.header.tseq <= before
            entry.sent = True
            entry.proof = 1 + (self.sent_through if again else entry.header.tseq)
            if entry.slice is not None:
                entry.body = None

    def slices_read(self, bodies: tuple[bytes | None, ...]) -> list[Header]:
        """The bodies that were asked for. Returns the headers of the batches that are gone: they go without records."""
        unread = (entry for entry in self._waiting if entry.body is None)
        gone: list[Header] = []
        for entry, body in zip(list(islice(unread, len(bodies))), bodies, strict=True):
            entry.body = body
            if body is None:
                gone.append(entry.header)
                self.lost_records += entry.header.count
                entry.gone += entry.header.count
                entry.body = b""
                entry.header = dataclasses.replace(entry.header, count=0, last_ns=entry.header.base_ns)
        return gone

    # --- acknowledged, or not

    def acknowledge(self, ack: Ack) -> list[ChunkUse]:
        """What is stored is forgotten, what is lost waits to be sent again. Returns what may be released."""
        gaps = iter(ack.gaps)
        gap = next(gaps, None)
        lost: list[_Entry] = []
        stored: list[_Entry] = []
        for tseq, entry in self._unacked.items():
            if tseq > ack.stored_through:
                break
            while gap is not None and gap[1] <= tseq:
                gap = next(gaps, None)
            if not entry.sent:
                continue
            if gap is None or tseq < gap[0]:
                stored.append(entry)
            elif ack.stored_through >= entry.proof:
                lost.append(entry)
        for entry in reversed(lost):
            entry.sent = False
            self._waiting.appendleft(entry)
        self.resent += len(lost)
        return [key for entry in stored for key in self._stored(entry)]

    def _stored(self, entry: _Entry) -> Iterator[ChunkUse]:
        del self._unacked[entry.header.tseq]
        self.unacknowledged_bytes -= entry.charge
        if entry.slice is not None:
            key = entry.slice.chunk, entry.slice.serial
            self._chunks[key].waiting -= 1
            yield from self._released(key)

    def _released(self, key: ChunkUse) -> Iterator[ChunkUse]:
        use = self._chunks[key]
        if use.waiting == 0:
            del self._chunks[key]
            if use.final:
                yield key

    def forget_openings(self, generation: int) -> None:
        """Of generations that are acknowledged whole; never that of ``generation``, which is open."""
        oldest = next((e.header.generation for e in self._unacked.values()), generation)
        for number in [g for g in self._openings if g < min(oldest, generation)]:
            del self._openings[number]

    def start_over(self) -> None:
        """Another recorder, or it has forgotten this tracer: it has nothing of what was sent."""
        if self._frame is not None:
            self._waiting.extendleft(reversed(self._frame[1]))
            self._frame = None
        unsent = {entry.header.tseq for entry in self._waiting}
        for opening in self._openings.values():
            if opening.header.tseq not in self._unacked:
                self._keep(opening)
        self._unacked = dict(sorted(self._unacked.items()))
        again = [entry for tseq, entry in self._unacked.items() if tseq not in unsent]
        for entry in again:
            entry.sent = False
        self._waiting = deque(sorted([*again, *self._waiting], key=lambda entry: entry.header.tseq))
        self.resent += len(again)

    def records(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Of which nobody has said that they arrived, or were told of as overwritten: ``(writer, range)``."""
        for entry in self._unacked.values():
            header = entry.header
            if header.type is BatchType.RECORDS:
                yield header.writer, (header.first_index, header.first_index + header.count + entry.gone)
            elif header.type is BatchType.END:
                yield from (
                    (row.writer, lost) for row in decode_end_mark(entry.body or b"").writers for lost in row.overwritten
                )

    def clear(self) -> list[ChunkUse]:
        """Nothing of it will be sent any more. Returns what may be released."""
        self._frame = None
        self._waiting.clear()
        self._openings.clear()
        self._unacked.clear()
        self.unacknowledged_bytes = 0
        released = [key for key, use in self._chunks.items() if use.final]
        self._chunks.clear()
        return released
