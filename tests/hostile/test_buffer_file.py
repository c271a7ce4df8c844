"""A dead tracer's buffer file, whatever is in it: a tail or a WireError, in time and memory in proportion."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.targets import EVENTS, SIZE, UUID, file_bytes, reader, tail_of, take

from frzmq.errors import WireError
from frzmq.recorder.ranges import Ranges
from frzmq.recorder.stream import Stream
from frzmq.recorder.tail import Tail, read_tail
from frzmq.tracer.attributes import pack_text
from frzmq.tracer.buffer import make_buffer
from frzmq.wire.chunk import PUBLISHED_WORD, STATE_WORD, ChunkState, layout_for, unpack_word
from frzmq.wire.kinds import Kind
from frzmq.wire.messages import Hello


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return file_bytes(str(tmp_path_factory.getbasetemp()))


def stored_of(*ranges: tuple[int, int]) -> dict[int, Ranges]:
    found = Ranges()
    for start, end in ranges:
        found.add(start, end)
    return {1: found}


def indices(tail: Tail) -> list[int]:
    return [index for run in tail.runs for index in range(run.first_index, run.end)]


def test_tail_of_a_whole_file_has_all_records_strings_and_what_was_open(whole: bytes) -> None:
    tail = tail_of(whole)
    assert tail.problems == ()
    total = len(indices(tail))
    # beside the events: the begin of the process and of the thread, and where the writer is, in each generation
    assert EVENTS < total <= EVENTS + 6
    assert sorted(indices(tail)) == [*range(total)]
    assert {run.generation for run in tail.runs} >= {2}
    assert pack_text("event 4") in tail.strings
    assert [item.kind for item in tail.open] == [Kind.SPAN_BEGIN]
    assert not tail.says_end


@pytest.mark.parametrize("stored", [[(0, 50)], [(0, 1), (3, 60), (70, 71)], [(0, 10_000)], [(20, 30)]])
def test_tail_is_what_was_not_stored_with_its_times(whole: bytes, stored: list[tuple[int, int]]) -> None:
    every = {
        run.first_index + n: at for run in tail_of(whole).runs for n, at in enumerate(times(run.body, run.base_ns))
    }
    tail = tail_of(whole, stored_of(*stored))
    taken = {run.first_index + n: at for run in tail.runs for n, at in enumerate(times(run.body, run.base_ns))}
    have = {n for start, end in stored for n in range(start, end)}
    assert taken == {n: at for n, at in every.items() if n not in have}


def times(body: bytes, base_ns: int) -> list[int]:
    from frzmq.recorder.tail import _records

    found = []
    for _, _, delta_ns in _records(body):
        base_ns += delta_ns
        found.append(base_ns)
    return found


def test_tail_of_another_tracer_is_refused(whole: bytes) -> None:
    with pytest.raises(WireError, match=r"^buffer file: wanted that of tracer 01020304"):
        read_tail(reader(whole), len(whole), b"\1\2\3\4" + bytes(12), {})


@given(st.binary(max_size=8192))
def test_tail_of_any_bytes_is_a_tail_or_a_wire_error(data: bytes) -> None:
    take(data)


@given(st.data())
def test_tail_of_a_damaged_file_is_a_tail_or_a_wire_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(file_bytes(str(tmp_path_factory.getbasetemp())))
    layout = layout_for(SIZE)
    for _ in range(data.draw(st.integers(1, 4))):
        area = data.draw(
            st.sampled_from(
                [
                    (0, 4096),
                    (4096, 4400),
                    (layout.open_offset, layout.open_offset + 256),
                    (layout.chunks_offset, layout.chunks_offset + 2000),
                ]
            )
        )
        at = data.draw(st.integers(*area)) // 8 * 8
        word = data.draw(
            st.integers(0, (1 << 64) - 1)
            | st.sampled_from([0, 1, 1 << 32, (1 << 32) + 1, (1 << 63) - 1, (1 << 64) - 1])
        )
        damaged[at : at + 8] = word.to_bytes(8, "little")
    take(bytes(damaged))


@given(st.integers(0, SIZE - 1))
def test_tail_of_a_file_cut_anywhere_is_a_tail_or_a_wire_error(
    tmp_path_factory: pytest.TempPathFactory, size: int
) -> None:
    data = file_bytes(str(tmp_path_factory.getbasetemp()))
    take(data[:size])
    # or cut while it is read
    try:
        read_tail(reader(data[:size]), len(data), UUID, {})
    except WireError:
        pass


def test_tail_of_a_file_that_lies_takes_memory_in_proportion(whole: bytes) -> None:
    lying = bytearray(whole)
    lying[520:528] = ((1 << 32) - 1 << 32 | (1 << 32) - 1).to_bytes(8, "little")
    lying += os.urandom(0)
    tracemalloc.start()
    try:
        take(bytes(lying))
        assert tracemalloc.get_traced_memory()[1] < 40 * SIZE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["py", "auto"])
def test_record_that_was_being_written_is_torn_and_only_that(kind: str, tmp_path: Path) -> None:
    buffer = make_buffer(kind, UUID, 1, str(tmp_path), SIZE)
    writer = buffer.writer()
    for n in range(3000):
        # chunks that are used again are full of old records
        writer.append(Kind.EVENT, buffer.intern(f"event {n % 5}") + b"\xc0")
        for piece in buffer.slices(1 << 30):
            if piece.final:
                buffer.release(piece.chunk, piece.serial)
    assert buffer.path is not None
    data = bytearray(Path(buffer.path).read_bytes())
    layout = buffer.layout
    buffer.close()
    assert tail_of(bytes(data)).torn == 0
    [end] = [
        layout.chunk_offset(n) + unpack_word(words[PUBLISHED_WORD])[1]
        for n in range(layout.chunk_count)
        if (words := memoryview(data)[layout.chunk_offset(n) :][:128].cast("Q"))[STATE_WORD] >> 32 == ChunkState.OWNED
    ]
    data[end : end + 3] = bytes([Kind.EVENT, 0xCD, 0])
    tail = tail_of(bytes(data))
    assert (tail.torn, tail.problems) == (1, ())
    stream = Stream(asked=1, young=True, max_strings_bytes=1 << 20)
    stream.recover(tail, Hello(UUID, 1, 1, 1, 1, "s", 0), 0)
    assert stream.ledger().torn == 1
