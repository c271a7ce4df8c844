from __future__ import annotations

from dataclasses import replace

import pytest

from frzmq.errors import WireError
from frzmq.wire.batch import (
    HEADER_SIZE,
    MAX_BODY_BYTES,
    MAX_FRAME_BYTES,
    Batch,
    BatchType,
    EndMark,
    Header,
    Opening,
    OpenItem,
    WriterEnd,
    WriterInfo,
    decode_end_mark,
    decode_header,
    decode_opening,
    encode_batch,
    encode_end_mark,
    encode_opening,
    split_frame,
    split_headers,
)
from frzmq.wire.codec import Value, pack
from frzmq.wire.kinds import KINDS
from frzmq.wire.version import WIRE_VERSION

UUID = bytes.fromhex("0a1b2c3d" + "00" * 12)
HEADER = Header(BatchType.RECORDS, UUID, 1, 2, 4, 17, 5, 100, 200, 7, 2, 3)
WHERE = "tracer 0a1b2c3d generation 4 tseq 17"
U64 = (1 << 64) - 1
OPENING = Opening(
    1,
    2,
    -3,
    {5: KINDS[5]},
    (WriterInfo(1, "main", 7),),
    (OpenItem(1, 1, 0, 5, None, 0, 0, b""), OpenItem(3, 1, 4, 5, 9, 1, U64, bytes(16))),
    6,
)


def test_batch_header_has_96_bytes_in_this_order() -> None:
    before = bytes.fromhex("667a 01 01 04000000")
    behind = bytes.fromhex(
        "01000000 05000000 0200000000000000 0400000000000000 1100000000000000 6400000000000000"
        "c800000000000000 0700000000000000 0300000000000000 02000000 00000000"
    )
    assert encode_batch(HEADER, b"body") == before + UUID + behind + b"body"
    assert len(before + UUID + behind) == HEADER_SIZE == 96


@pytest.mark.parametrize("kind", list(BatchType))
def test_batch_header_of_every_type_comes_back(kind: BatchType) -> None:
    header = replace(HEADER, type=kind)
    assert decode_header(encode_batch(header, b"body")) == replace(header, body_size=4)


def test_batch_header_with_the_greatest_values_comes_back() -> None:
    u32 = (1 << 32) - 1
    header = Header(BatchType.END, b"\xff" * 16, u32, U64, U64, U64, u32, U64, U64, U64, u32, U64)
    assert decode_header(encode_batch(header)) == header


def test_batch_frame_of_several_comes_back_in_order() -> None:
    one, two = replace(HEADER, body_size=4), replace(HEADER, type=BatchType.GOODBYE, tseq=18)
    frame = encode_batch(one, b"abcd") + encode_batch(two)
    assert split_frame(frame) == [Batch(one, b"abcd"), Batch(two)]
    assert split_headers(frame) == [one, two]
    assert decode_header(memoryview(frame), HEADER_SIZE + 4) == two
    assert Batch(one).where() == WHERE


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (encode_batch(HEADER)[:-1], "batch header: wanted 96 bytes at 0, got 95"),
        (b"xx" + encode_batch(HEADER)[2:], "batch header: wanted magic b'fz' at 0, got b'xx'"),
        (
            encode_batch(replace(HEADER, version=WIRE_VERSION + 1)),
            f"batch header: wanted wire version 1..{WIRE_VERSION}, got {WIRE_VERSION + 1}",
        ),
        (encode_batch(replace(HEADER, version=0)), f"batch header: wanted wire version 1..{WIRE_VERSION}, got 0"),
        (b"fz\x01\x07" + encode_batch(HEADER)[4:], "batch header: wanted a type in 1..6, got 7"),
        (b"fz\x01\x00" + encode_batch(HEADER)[4:], "batch header: wanted a type in 1..6, got 0"),
        (encode_batch(HEADER, b"body")[:-1], f"{WHERE}: body: wanted at most 3 bytes, header says 4"),
        (encode_batch(replace(HEADER, last_ns=99)), f"{WHERE}: times: wanted last >= base, got 99 < 100"),
        (encode_batch(HEADER, b"abc"), f"{WHERE}: 2 records: wanted at least 4 bytes of body, got 3"),
        (
            encode_batch(replace(HEADER, type=BatchType.STRINGS), b"a"),
            f"{WHERE}: strings: wanted ids from 1 and a byte each, got 2 from 7 in 1 bytes",
        ),
        (
            encode_batch(replace(HEADER, type=BatchType.STRINGS, first_index=0), b"ab"),
            f"{WHERE}: strings: wanted ids from 1 and a byte each, got 2 from 0 in 2 bytes",
        ),
    ],
)
def test_batch_malformed_header_says_what_and_where(frame: bytes, message: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_header(frame)
    assert str(caught.value) == message


def test_batch_body_at_its_limit_is_taken_and_one_past_it_not() -> None:
    assert decode_header(encode_batch(HEADER, bytes(MAX_BODY_BYTES))).body_size == MAX_BODY_BYTES
    with pytest.raises(
        WireError, match=f"body: wanted at most {MAX_BODY_BYTES} bytes, header says {MAX_BODY_BYTES + 1}"
    ):
        decode_header(encode_batch(HEADER, bytes(MAX_BODY_BYTES + 1)))


def test_batch_frame_at_its_limit_is_taken_and_one_past_it_not() -> None:
    half = encode_batch(HEADER, bytes(MAX_FRAME_BYTES // 2 - HEADER_SIZE))
    assert len(split_headers(half + half)) == 2
    for frame in (half + half + b"f", b""):
        with pytest.raises(WireError) as caught:
            split_headers(frame)
        assert str(caught.value) == f"frame: wanted 1..{MAX_FRAME_BYTES} bytes, got {len(frame)}"


def test_batch_frame_with_a_malformed_second_is_not_taken() -> None:
    with pytest.raises(WireError, match=r"^batch header: wanted magic b'fz' at 100, got b'\\x00\\x00'$"):
        split_frame(encode_batch(HEADER, b"body") + bytes(HEADER_SIZE))


def test_batch_opening_comes_back() -> None:
    assert decode_opening(encode_opening(OPENING)) == OPENING
    assert decode_opening(pack({"clock": [1, 2, 3], "kinds": []})) == Opening(1, 2, 3, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clock": [1, 2]}, "wanted a map with clock and kinds, got dict"),
        ({"clock": [-1, 2, 3]}, "wanted a map with clock and kinds, got dict"),
        ({"writers": 1}, "wanted lists of writers and open items and a count of those omitted"),
        ({"open": {}}, "wanted lists of writers and open items and a count of those omitted"),
        ({"open_omitted": -1}, "wanted lists of writers and open items and a count of those omitted"),
        ({"writers": [[1, "a"]]}, "wanted writers [id, name, native id], got [1, 'a']"),
        ({"writers": [[-1, "a", 1]]}, "wanted writers [id, name, native id], got [-1, 'a', 1]"),
        ({"open": [[1]]}, "wanted open items of 8 values, got [1]"),
        ({"open": [[1, 1, 0, 5, "a", 0, 0, b"short"]]}, "wanted open items of 8 values, got [1, 1, 0, 5, 'a', 0, ...]"),
        ({"open": [[999, 1, 0, 5, "a", 0, 0, b""]]}, "wanted open items of 8 values, got [999, 1, 0, 5, 'a', 0, ...]"),
    ],
)
def test_batch_malformed_opening_says_what(change: dict[str | int, Value], message: str) -> None:
    whole: dict[str | int, Value] = {"clock": [1, 2, 3], "kinds": []}
    with pytest.raises(WireError) as caught:
        decode_opening(pack(whole | change))
    assert str(caught.value) == f"opening batch: {message}"


def test_batch_end_mark_comes_back() -> None:
    mark = EndMark((WriterEnd(1, 0, 9, 1, ((0, 3), (3, 4), (8, 9))), WriterEnd(2, U64, U64)))
    assert decode_end_mark(encode_end_mark(mark)) == mark
    assert decode_end_mark(b"") == EndMark() == decode_end_mark(encode_end_mark(EndMark()))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "wanted a list of writers, got dict"),
        ([[1, 0, 9, 0]], "wanted writers [id, first, next, dropped, overwritten], got [1, 0, 9, 0]"),
        ([[1, 9, 8, 0, []]], "wanted writers [id, first, next, dropped, overwritten], got [1, 9, 8, 0, []]"),
        ([[1, 0, 9, 0, [[3, 3]]]], "wanted ascending ranges inside 0..9, got [3, 3]"),
        ([[1, 0, 9, 0, [[8, 10]]]], "wanted ascending ranges inside 0..9, got [8, 10]"),
        ([[1, 2, 9, 0, [[1, 3]]]], "wanted ascending ranges inside 2..9, got [1, 3]"),
        ([[1, 0, 9, 0, [[4, 6], [5, 7]]]], "wanted ascending ranges inside 0..9, got [5, 7]"),
    ],
)
def test_batch_malformed_end_mark_says_what(value: Value, message: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_end_mark(pack(value))
    assert str(caught.value) == f"end mark: {message}"
