"""Both buffers: chunks, the cut, what is lost and counted, strings, the open table. Records are appended by its writers, as the api does."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.records import Record, Strings, decode

from frzmq.tracer import _buffer_py, choice
from frzmq.tracer._buffer_py import MAX_STRINGS_BYTES
from frzmq.tracer._writer_py import NOTICE
from frzmq.tracer.buffer import make_buffer
from frzmq.tracer.slices import Cut, Slice
from frzmq.wire.batch import WriterEnd
from frzmq.wire.chunk import (
    GENERATION_WORD,
    LARGE_CHUNK_BYTES,
    MIN_BUFFER_BYTES,
    SMALL_CHUNK_BYTES,
    STRINGS_WORD,
    decode_file_header,
    unpack_word,
)
from frzmq.wire.kinds import Kind

if TYPE_CHECKING:
    from frzmq.tracer.buffer import Buffer

UUID = b"u" * 16
TAIL = b"\xa1e\xc0"
"""An event's name and attributes."""


KINDS = [
    "py",
    pytest.param("c", marks=pytest.mark.skipif(choice.native is None, reason=f"no native buffer: {choice.missing}")),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def buffer(kind: str) -> Iterator[Buffer]:
    made = make_buffer(kind, UUID, 1, None, MIN_BUFFER_BYTES)
    yield made
    assert made.errors == 0
    made.close()


def event(buffer: Buffer, count: int = 1, tail: bytes = TAIL) -> list[bool]:
    writer = buffer.writer()
    return [writer.append(Kind.EVENT, tail) for _ in range(count)]


def events(records: list[Record]) -> list[Record]:
    return [record for record in records if record.name == "event"]


def in_thread(work: object) -> None:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]  # a function
    thread.start()
    thread.join()


# --- memory


def test_buffer_file_is_private_named_by_its_uuid_and_says_what_it_is(kind: str, tmp_path: Path) -> None:
    buffer = make_buffer(kind, UUID, 3, str(tmp_path), MIN_BUFFER_BYTES + 100)
    path = tmp_path / f"{UUID.hex()}.buf"
    assert buffer.path == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == MIN_BUFFER_BYTES
    header = decode_file_header(path.read_bytes()[:4096], MIN_BUFFER_BYTES)
    assert (header.pid, header.uuid, header.incarnation, header.layout) == (os.getpid(), UUID, 3, buffer.layout)
    buffer.close()
    assert not path.exists()


def test_buffer_where_its_file_exists_already_is_private(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"{UUID.hex()}.buf").write_bytes(b"somebody's")
    buffer = make_buffer(kind, UUID, 1, str(tmp_path), MIN_BUFFER_BYTES)
    assert buffer.path is None
    buffer.close()
    assert (tmp_path / f"{UUID.hex()}.buf").read_bytes() == b"somebody's"


def test_buffer_words_are_published_in_the_file(kind: str, tmp_path: Path) -> None:
    buffer = make_buffer(kind, UUID, 1, str(tmp_path), MIN_BUFFER_BYTES)
    buffer.intern("name")
    buffer.cut(7)
    with open(str(buffer.path), "rb") as file:
        words = memoryview(file.read(4096)).cast("Q")
    assert words[GENERATION_WORD] == 7
    assert unpack_word(words[STRINGS_WORD]) == (1, 5)
    buffer.close()


# --- records


def test_slices_are_what_was_appended_once(buffer: Buffer) -> None:
    event(buffer, 3)
    records = decode(buffer.slices(1 << 20))
    own = ["context", "process_begin", "thread_begin"]
    assert [record.name for record in records] == [*own, "event", "event", "event"]
    assert [record.index for record in records] == list(range(len(records)))
    assert sorted(record.time_ns for record in records) == [record.time_ns for record in records]
    assert buffer.slices(1 << 20) == []
    event(buffer)
    assert len(decode(buffer.slices(1 << 20))) == 1


def test_slices_take_about_what_is_asked_and_at_least_one(buffer: Buffer) -> None:
    event(buffer, 3000)
    assert len(buffer.slices(1)) == 1
    assert sum(piece.size for piece in buffer.slices(1 << 20)) > 3000


def test_first_chunk_of_a_thread_is_small_and_the_others_are_large(buffer: Buffer) -> None:
    event(buffer, SMALL_CHUNK_BYTES // 6)
    pieces = buffer.slices(1 << 20)
    sizes = [buffer.layout.chunk_bytes(piece.chunk) for piece in pieces]
    assert sizes == [SMALL_CHUNK_BYTES, LARGE_CHUNK_BYTES]
    assert [piece.final for piece in pieces] == [True, False]


def test_every_thread_has_a_writer_and_its_end_is_recorded(buffer: Buffer) -> None:
    event(buffer)
    in_thread(lambda: event(buffer, 2))
    records = decode(buffer.slices(1 << 20))
    by_writer = {writer: [r.name for r in records if r.writer == writer] for writer in (1, 2)}
    assert by_writer[1][-1] == "event"
    assert by_writer[2][-3:] == ["event", "event", "thread_end"]
    assert buffer.totals().recorded == len(records)


def test_record_too_large_for_any_chunk_is_dropped_and_counted(buffer: Buffer) -> None:
    assert event(buffer, 1, b"x" * LARGE_CHUNK_BYTES) == [False]
    assert event(buffer) == [True]
    assert buffer.totals().dropped == 1


def test_append_inside_an_append_is_dropped_and_counted(buffer: Buffer) -> None:
    writer = buffer.writer()
    writer.busy = True
    assert event(buffer, 2) == [False, False]
    writer.busy = False
    assert event(buffer) == [True]
    assert buffer.totals().dropped == 2


# --- memory that is full


def fill(buffer: Buffer) -> int:
    """Events until the pool has been used twice; returns how many."""
    count = 2 * MIN_BUFFER_BYTES // 9
    assert all(event(buffer, count))
    return count


def test_full_buffer_overwrites_the_oldest_and_the_cut_says_which(buffer: Buffer) -> None:
    buffer.cut(1)
    fill(buffer)
    recorded = buffer.totals().recorded
    cut = buffer.cut(2)
    got = {index for piece in cut.slices for index in range(piece.first_index, piece.first_index + piece.count)}
    (end,) = cut.writers
    lost = {index for start, stop in end.overwritten for index in range(start, stop)}
    assert (end.first_index, end.next_index) == (0, recorded)
    assert got | lost == set(range(recorded))
    assert not got & lost
    assert min(got) > max(lost)
    assert buffer.totals().overwritten == len(lost) > 0
    assert len(decode(cut.slices)) == len(got)


def test_taken_records_that_are_overwritten_are_not_lost_again(buffer: Buffer) -> None:
    buffer.cut(1)
    event(buffer, 1000)
    taken = sum(piece.count for piece in buffer.slices(1 << 30))
    fill(buffer)
    (end,) = buffer.cut(2).writers
    assert all(start >= taken for start, _ in end.overwritten)


def test_released_chunk_is_used_again_before_anything_is_overwritten(buffer: Buffer) -> None:
    for _ in range(20):
        event(buffer, 5000)
        for piece in buffer.slices(1 << 30):
            if piece.final:
                buffer.release(piece.chunk, piece.serial)
    assert buffer.totals().overwritten == 0


def test_release_of_another_use_of_a_chunk_does_nothing(buffer: Buffer) -> None:
    event(buffer, SMALL_CHUNK_BYTES // 6)
    piece = next(piece for piece in buffer.slices(1 << 30) if piece.final)
    buffer.release(piece.chunk, piece.serial + 1)
    assert buffer.read(piece) == piece.body


def test_read_gives_the_same_bytes_until_the_chunk_is_reused(buffer: Buffer) -> None:
    event(buffer, 100)
    piece = buffer.slices(1 << 30)[0]
    assert buffer.read(piece) == piece.body
    fill(buffer)
    fill(buffer)
    assert buffer.read(piece) is None


# --- the cut


def test_cut_parts_the_records_of_every_writer(buffer: Buffer) -> None:
    buffer.cut(1)
    event(buffer, 3)
    in_thread(lambda: event(buffer, 2))
    cut = buffer.cut(2)
    old = decode(cut.slices)
    event(buffer, 4)
    new = decode(buffer.slices(1 << 20))
    assert len(events(old)) == 5
    assert [record.name for record in new] == ["context"] + ["event"] * 4
    ends = {end.writer: end for end in cut.writers}
    assert ends[1].next_index == new[0].index
    assert [end.overwritten for end in cut.writers] == [(), ()]


def test_cut_of_idle_writers_says_nothing_of_them(buffer: Buffer) -> None:
    event(buffer)
    buffer.cut(1)
    assert buffer.cut(2).writers == ()
    assert buffer.cut(2).slices == []


def test_cut_reports_a_writer_whose_thread_ended_for_the_last_time(buffer: Buffer) -> None:
    buffer.cut(1)
    in_thread(lambda: event(buffer, 2))
    cut = buffer.cut(2)
    assert [(end.writer, end.dropped) for end in cut.writers] == [(1, 0)]
    assert buffer.writer_infos() == []
    assert buffer.totals().recorded == cut.writers[0].next_index


def test_cut_counts_what_a_writer_dropped(buffer: Buffer) -> None:
    buffer.cut(1)
    event(buffer)
    event(buffer, 3, b"x" * LARGE_CHUNK_BYTES)
    (end,) = buffer.cut(2).writers
    assert end == WriterEnd(1, 0, end.next_index, 3, ())
    assert buffer.cut(3).writers == ()


def test_cut_of_a_writer_that_noticed_by_itself_is_where_it_noticed() -> None:
    # only of the one in pure Python: a native cut is one step
    buffer = _buffer_py.Buffer(UUID, 1, None, MIN_BUFFER_BYTES)
    buffer.cut(1)
    event(buffer, 3)
    # what a cut does first of all; then this thread goes on before the agent reads where it is
    buffer.generation = 2
    buffer.writer().op = NOTICE
    event(buffer, 4)
    assert len(events(decode(buffer.cut(2).slices))) == 3
    assert len(events(decode(buffer.slices(1 << 20)))) == 4


def test_cut_while_threads_append_loses_and_doubles_nothing(buffer: Buffer) -> None:
    stop = threading.Event()
    counts: list[int] = []

    def work() -> None:
        done = 0
        while not stop.is_set():
            done += sum(event(buffer, 10))
        counts.append(done)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    generations: list[list[Slice]] = []
    overwritten = 0
    for generation in range(1, 60):
        taken = buffer.slices(1 << 30)
        cut = buffer.cut(generation)
        generations.append([*taken, *cut.slices])
        overwritten += sum(b - a for end in cut.writers for a, b in end.overwritten)
        for piece in generations[-1]:
            if piece.final:
                buffer.release(piece.chunk, piece.serial)
    stop.set()
    for thread in threads:
        thread.join()
    rest = buffer.cut(100)
    generations.append(rest.slices)
    overwritten += sum(b - a for end in rest.writers for a, b in end.overwritten)
    records = [record for pieces in generations for record in decode(pieces)]
    places = [(record.writer, record.index) for record in records]
    assert len(set(places)) == len(places)
    assert len(places) + overwritten == buffer.totals().recorded
    if not overwritten:
        assert len(events(records)) == sum(counts)


# --- strings


def test_intern_gives_ids_in_order_and_each_string_is_shipped_once(buffer: Buffer) -> None:
    assert [buffer.intern(text) for text in ("a", "b", "a", "")] == [b"\x01", b"\x02", b"\x01", b"\xa0"]
    assert buffer.new_strings() == (1, 2, b"\xa1a\xa1b")
    assert buffer.new_strings() is None
    buffer.intern("c")
    assert buffer.new_strings() == (3, 1, b"\xa1c")
    assert buffer.strings_from_start() == (1, 3, b"\xa1a\xa1b\xa1c")


def test_intern_past_the_tables_end_gives_the_text_itself(buffer: Buffer) -> None:
    refs = [buffer.intern(f"{n:0200d}") for n in range(MAX_STRINGS_BYTES // 200)]
    assert refs[0] == b"\x01"
    assert refs[-1] == b"\xd9\xc8" + f"{len(refs) - 1:0200d}".encode()
    strings = Strings()
    strings.take(buffer)
    assert strings.texts[1] == "0" * 200


# --- the open table


def test_open_items_are_what_was_open_at_the_moment(buffer: Buffer) -> None:
    first = buffer.open(Kind.SPAN_BEGIN, 1, 100, "a", 2, 7, 0, b"")
    second = buffer.open(Kind.OPERATION_BEGIN, 1, 200, "b", 0, 8, 7, b"t" * 16)
    buffer.free_entry(first, 300)

    def at(time_ns: int) -> list[tuple[int, int, int, int, bytes]]:
        return [(i.kind, i.begin_ns, i.track, i.op, i.trace) for i in buffer.open_items(time_ns)[0]]

    one, two = (1, 100, 2, 7, b""), (3, 200, 0, 8, b"t" * 16)
    assert [at(t) for t in (100, 101, 250, 300, 301)] == [[], [one], [one, two], [one, two], [two]]
    buffer.free_entry(second, 400)
    assert at(500) == []


def test_open_items_of_a_writer_may_have_a_moment_of_their_own(buffer: Buffer) -> None:
    ended = buffer.open(Kind.SPAN_BEGIN, 1, 100, "a", 0, 0, 0, b"")
    buffer.open(Kind.SPAN_BEGIN, 1, 200, "b", 0, 0, 0, b"")
    buffer.open(Kind.SPAN_BEGIN, 2, 200, "c", 0, 0, 0, b"")
    buffer.free_entry(ended, 150)

    def at(time_ns: int, moments: dict[int, int]) -> list[tuple[int, int]]:
        return [(i.writer, i.begin_ns) for i in buffer.open_items(time_ns, moments)[0]]

    assert at(201, {}) == at(201, {3: 1}) == [(1, 200), (2, 200)]
    assert at(201, {1: 150}) == [(1, 100), (2, 200)]
    assert at(50, {1: 151, 2: 201}) == [(2, 200)]


def test_cut_moments_are_behind_the_last_record_or_before_the_first_that_is_carried() -> None:
    def piece(writer: int, count: int, base_ns: int, last_ns: int) -> Slice:
        return Slice(0, 1, 0, 0, writer, 0, count, base_ns, last_ns, b"", False)

    cut = Cut([piece(1, 2, 10, 20), piece(1, 1, 20, 30), piece(2, 1, 10, 60), piece(3, 0, 40, 40)], ())
    assert cut.moments(50, carry=False) == {1: 50, 2: 61}
    assert cut.moments(50, carry=True) == {1: 11, 2: 11}
    assert (cut.begin_ns(50, carry=False), cut.begin_ns(50, carry=True), cut.begin_ns(5, carry=True)) == (50, 10, 5)


def test_open_items_beyond_the_table_are_counted(buffer: Buffer) -> None:
    room = buffer.layout.open_entries
    entries = [buffer.open(Kind.SPAN_BEGIN, 1, 100 + n, "a", 0, 0, 0, b"") for n in range(room + 3)]
    items, omitted = buffer.open_items(1 << 40)
    assert (len(items), omitted) == (room, 3)
    for entry in entries:
        buffer.free_entry(entry, 1 << 41)
    assert buffer.open_items(1 << 42) == ([], 0)
