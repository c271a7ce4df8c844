"""A tracer by hand that loses records on purpose, and keeps count by writer of what it did with each."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

from frzmq.wire.batch import BatchType, EndMark, Header, WriterEnd, encode_batch, encode_end_mark
from frzmq.wire.messages import TracerHeartbeat
from support.raw_tracer import RECORD, RawTracer


class CountedTracer(RawTracer):
    """``made``: by writer, records by what became of them: sent, lost (on the way), overwritten, dropped."""

    def __init__(self, address: str, *, service: str = "counted") -> None:
        self.made: dict[int, Counter[str]] = {}
        self.next: dict[int, int] = {}
        self._first: dict[int, int] = {}
        self._gone: dict[int, list[tuple[int, int]]] = {}
        self._dropped: Counter[int] = Counter()
        super().__init__(address, service=service)

    def write(self, writer: int, count: int, fate: str = "sent") -> bytes:
        """Records: ``sent`` in a batch; ``lost``: the batch is made, and not sent; ``emptied``: sent without them, as one that was overwritten meanwhile;
        ``overwritten``: never in a batch, the end mark names them; ``dropped``: they get no index. Returns the batch as it was made."""
        self.made.setdefault(writer, Counter())[fate] += count
        if fate == "dropped":
            self._dropped[writer] += count
            self.next.setdefault(writer, 0)
            return b""
        start = self.next.get(writer, 0)
        self.next[writer] = start + count
        if fate == "overwritten":
            self._gone.setdefault(writer, []).append((start, start + count))
            return b""
        now_ns = time.monotonic_ns()
        header = self.header(
            BatchType.RECORDS,
            writer=writer,
            first_index=start,
            count=count,
            base_ns=now_ns - count,
            last_ns=now_ns,
            dropped=self._dropped.total(),
        )
        self._batches += 1
        batch = encode_batch(header, RECORD * count)
        if fate == "sent":
            self.send(batch)
        elif fate == "emptied":
            self.send(encode_batch(replace(header, count=0)))
        return batch

    def forge(self, writer: int, count: int) -> None:
        """A batch with a nonce that is not its own."""
        header = Header(BatchType.RECORDS, self.uuid, 0, self.nonce ^ 1, self.generation, 1, writer=writer, count=count)
        self.send(encode_batch(header, RECORD * count))

    def heartbeat(self) -> None:
        self.say(TracerHeartbeat(self.generation, self.tseq, dropped=self._dropped.total()))

    def _open(self, generation: int) -> None:
        super()._open(generation)
        self._first, self._gone = dict(self.next), {}

    def _end(self) -> None:
        rows = tuple(
            WriterEnd(writer, self._first.get(writer, 0), end, self._dropped[writer], tuple(self._gone.get(writer, ())))
            for writer, end in self.next.items()
        )
        self.send(encode_batch(self.header(BatchType.END, count=self._batches), encode_end_mark(EndMark(rows))))
