"""What of a view goes into a snapshot's header."""

from __future__ import annotations

from frzmq.recorder.events import Answer, RingView, State, StreamView, WriteSnapshot
from frzmq.recorder.snapshots import MAX_ROWS, write_view
from frzmq.recorder.tracers import bounded_rows
from frzmq.snapfile.format import MAX_HEADER_BYTES, PROLOGUE, decode_header
from frzmq.wire.ledger import Ledger, WriterLedger
from frzmq.wire.messages import MAX_WRITERS, Hello

HUGE = (1 << 64) - 1


def test_header_with_more_writers_than_it_holds_says_how_many_are_left_out() -> None:
    rows = tuple(WriterLedger(HUGE - n, HUGE, HUGE, HUGE, HUGE, HUGE, HUGE, (1 << 63) + n, HUGE) for n in range(1024))
    streams = tuple(
        StreamView(
            Hello(bytes([n]) * 16, 1, 1, 1, n, "s", 0), 0, State.LIVE, "", (), (), Ledger(), 0, 0, 0, Answer.FLUSHED, 9, (), rows, 3,
        )
        for n in range(64)
    )  # fmt: skip
    parts: list[bytes] = []
    write_view(parts.append, WriteSnapshot(1, (), RingView(streams, 0, 0, 0), "", ()), "here")
    data = b"".join(parts)
    _, _, size_bytes, _ = PROLOGUE.unpack_from(data)
    assert size_bytes < MAX_HEADER_BYTES // 3
    header = decode_header(data[PROLOGUE.size : PROLOGUE.size + size_bytes])
    most = MAX_ROWS // 64
    # those with the most records, in their order
    assert [(stream.writers, stream.other_writers) for stream in header.streams] == [
        (rows[:most], 1024 - most + 3)
    ] * 64


def test_rows_of_more_writers_than_a_header_may_have_are_left_out() -> None:
    """As of thousands of threads in an open generation."""
    rows = tuple(WriterLedger(n, open=n, writer=n) for n in range(MAX_WRITERS + 9))
    assert bounded_rows((rows, 2), MAX_ROWS) == (rows[9:], 2 + 9)
    assert bounded_rows((rows[:5], 0), 5) == (rows[:5], 0)
    assert bounded_rows((rows[:5], 0), 0) == ((), 5)
