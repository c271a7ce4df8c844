from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frzmq.errors import WireError
from frzmq.wire.chunk import (
    HEADER_BYTES,
    LARGE_CHUNK_BYTES,
    MAX_BUFFER_BYTES,
    MAX_OPEN_ENTRIES,
    MIN_BUFFER_BYTES,
    OPEN_ENTRY,
    OPEN_ENTRY_BYTES,
    SMALL_CHUNK_BYTES,
    FileHeader,
    Layout,
    decode_file_header,
    encode_file_header,
    layout_for,
    pack_word,
    unpack_word,
)

HEADER = FileHeader(4711, bytes(range(16)), 3, layout_for(1 << 20), 10, 20, 30)


def test_chunk_layout_of_a_mebibyte_is_this() -> None:
    assert layout_for(1 << 20) == Layout(1 << 20, 128 << 10, 1024, 31, 11)


@pytest.mark.parametrize("size_bytes", [MIN_BUFFER_BYTES, 1 << 20, (1 << 20) + 4096, 16 << 20, MAX_BUFFER_BYTES])
def test_chunk_areas_follow_each_other_inside_the_file(size_bytes: int) -> None:
    layout = layout_for(size_bytes)
    assert layout.strings_offset == HEADER_BYTES
    assert layout.open_offset == HEADER_BYTES + layout.strings_bytes
    assert layout.chunks_offset == layout.open_offset + layout.open_entries * OPEN_ENTRY_BYTES
    offsets = [layout.chunk_offset(index) for index in range(layout.chunk_count)]
    ends = [start + layout.chunk_bytes(index) for index, start in enumerate(offsets)]
    assert offsets == [layout.chunks_offset, *ends[:-1]]
    assert size_bytes - SMALL_CHUNK_BYTES < ends[-1] <= size_bytes
    sizes = [layout.chunk_bytes(index) for index in range(layout.chunk_count)]
    assert sizes == [SMALL_CHUNK_BYTES] * layout.small_chunks + [LARGE_CHUNK_BYTES] * layout.large_chunks
    assert layout.large_chunks and layout.small_chunks and layout.open_entries <= MAX_OPEN_ENTRIES


@pytest.mark.parametrize(
    "size_bytes", [0, MIN_BUFFER_BYTES - 4096, MIN_BUFFER_BYTES + 1, MAX_BUFFER_BYTES + 4096, -4096]
)
def test_chunk_layout_of_a_wrong_size_says_what_is_wanted(size_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"^buffer: wanted a multiple of 4096 in 262144\.\.1073741824 bytes, got "):
        layout_for(size_bytes)


def test_chunk_open_entry_has_its_size() -> None:
    assert OPEN_ENTRY.size == OPEN_ENTRY_BYTES


def test_chunk_file_header_comes_back() -> None:
    data = encode_file_header(HEADER)
    assert decode_file_header(data, 1 << 20) == HEADER
    assert decode_file_header(data + bytes(4096), 1 << 20) == HEADER


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"NOTFRZMQ", r"wanted b'FRZMQSM1' version 1, got b'NOTFRZMQ' version 1"),
        (8, struct.pack("<I", 2), r"wanted b'FRZMQSM1' version 1, got b'FRZMQSM1' version 2"),
        (
            16,
            struct.pack("<Q", 2 << 20),
            r"wanted areas inside the file's 1048576 bytes, got Layout\(size_bytes=2097152",
        ),
        (44, struct.pack("<I", 1 << 31), r"wanted areas inside the file's 1048576 bytes, got Layout\("),
        (48, struct.pack("<Q", 1 << 63), r"wanted areas inside the file's 1048576 bytes, got Layout\("),
        (56, struct.pack("<I", 0xFFFFFFFF), r"wanted areas inside the file's 1048576 bytes, got Layout\("),
        (60, struct.pack("<I", 12), r"wanted areas inside the file's 1048576 bytes, got Layout\("),
    ],
)
def test_chunk_file_header_damaged_says_where(offset: int, value: bytes, message: str) -> None:
    data = bytearray(encode_file_header(HEADER))
    data[offset : offset + len(value)] = value
    with pytest.raises(WireError, match=f"^buffer file: {message}"):
        decode_file_header(bytes(data), 1 << 20)


def test_chunk_file_header_cut_says_how_much_is_there() -> None:
    data = encode_file_header(HEADER)
    with pytest.raises(WireError, match=f"^buffer file: wanted a header of {len(data)} bytes, got {len(data) - 1}$"):
        decode_file_header(data[:-1], 1 << 20)


def test_chunk_file_header_of_a_file_cut_short_is_refused() -> None:
    with pytest.raises(WireError, match=r"^buffer file: wanted areas inside the file's 4096 bytes"):
        decode_file_header(encode_file_header(HEADER), 4096)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_chunk_word_comes_back(count: int, end: int) -> None:
    assert unpack_word(pack_word(count, end)) == (count, end)
    assert 0 <= pack_word(count, end) < 1 << 64
