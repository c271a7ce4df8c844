"""Any bytes give a value or a WireError, for every decoder of the wire, and never memory out of proportion to them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden import GOLDEN_DIR, parse_golden

from frzmq.errors import WireError
from frzmq.wire.batch import (
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
from frzmq.wire.chunk import MIN_BUFFER_BYTES, FileHeader, decode_file_header, encode_file_header, layout_for
from frzmq.wire.codec import pack, unpack, unpack_values
from frzmq.wire.kinds import KINDS, kinds_from_wire, kinds_to_wire
from frzmq.wire.messages import decode_message
from frzmq.wire.text import format_frame, format_message, parse_frame, parse_message

PEAK_PER_BYTE = 128
"""Of a msgpack value: the worst is a map of one integer key, 232 bytes in memory for two on the wire."""
PEAK_BASE = 64 << 10
PACKER_BYTES = 256 << 10
"""What msgpack's packer begins with, in the text form."""

STEPS = [step for path in sorted(GOLDEN_DIR.glob("*.txt")) for step in parse_golden(path.read_text("utf-8")).steps]
FRAMES = [step.data for step in STEPS if not step.is_message]
MESSAGES = [step.data for step in STEPS if step.is_message]
TEXTS = [step.text.encode() for step in STEPS]
OPENING = encode_opening(
    Opening(
        1,
        2,
        3,
        KINDS,
        (WriterInfo(1, "MainThread", 7),),
        (OpenItem(1, 1, 0, 5, "a", 0, 0, b""), OpenItem(3, 1, 4, 5, 9, 1, 0, bytes(16))),
        1,
    )
)
END_MARK = encode_end_mark(EndMark((WriterEnd(1, 0, 9, 1, ((1, 3), (4, 5))), WriterEnd(2, 0, 1 << 40))))
FILE_HEADER = encode_file_header(FileHeader(1, bytes(16), 2, layout_for(MIN_BUFFER_BYTES), 3, 4, 5))
RECORDS = b"".join(
    (pack(5), pack(250), pack(1), pack({"key": 1.5, 3: b"\0"}), pack(7), pack(1), pack(30), pack("x"), pack(None))
)

Decoder = Callable[[bytes], object]
DECODERS: dict[str, tuple[Decoder, list[bytes]]] = {
    "unpack": (unpack, MESSAGES),
    "unpack_values": (lambda data: list(unpack_values(data)), [RECORDS, OPENING]),
    "decode_header": (decode_header, FRAMES),
    "split_headers": (split_headers, FRAMES),
    "split_frame": (split_frame, FRAMES),
    "decode_opening": (decode_opening, [OPENING]),
    "decode_end_mark": (decode_end_mark, [END_MARK]),
    "decode_message": (decode_message, MESSAGES),
    "kinds_from_wire": (lambda data: kinds_from_wire(unpack(data)), [pack(kinds_to_wire(KINDS))]),  # type: ignore[arg-type]  # list is invariant
    "decode_file_header": (lambda data: decode_file_header(data, MIN_BUFFER_BYTES), [FILE_HEADER]),
    "parse_frame": (lambda data: parse_frame(data.decode("utf-8", "replace")), TEXTS),
    "parse_message": (lambda data: parse_message(data.decode("utf-8", "replace")), TEXTS),
    "format_frame": (format_frame, FRAMES),
    "format_message": (format_message, MESSAGES),
}
each_decoder = pytest.mark.parametrize("name", DECODERS)

# what claims much in few bytes: containers, strings and binaries of 2**16 and 2**32 elements; one of each length class
CLAIMS = [
    b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xde\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xda\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc5\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xc1", b"\xd4\x01\x00",
    b"\xff\xff\xff\xff", b"\x80", b"\x90" * 50, b"\x91" * 50, b"\x81\x00" * 50, b"\xcf" + b"\xff" * 8, b"\x80" * 20,
]  # fmt: skip


def attempt(name: str, data: bytes) -> None:
    """The decoder gives a value or raises WireError; any other exception ends the test."""
    try:
        DECODERS[name][0](data)
    except WireError as error:
        message = str(error)
    else:
        message = ""
    assert len(message) < 1000


@st.composite
def mutated(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """A valid input, cut, flipped, spliced with another, or with an oversized claim put in."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0:
                del data[at:]
            case 1 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                other = draw(st.sampled_from(valid))
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case 3:
                claim = draw(st.sampled_from(CLAIMS))
                data[at : at + draw(st.integers(0, len(claim)))] = claim
            case _:
                data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


@each_decoder
@given(data=st.data())
def test_decoder_any_bytes_give_a_value_or_a_wire_error(name: str, data: st.DataObject) -> None:
    attempt(name, data.draw(st.binary(max_size=300)))


@each_decoder
@given(data=st.data())
def test_decoder_mutated_bytes_give_a_value_or_a_wire_error(name: str, data: st.DataObject) -> None:
    attempt(name, data.draw(mutated(DECODERS[name][1])))


@each_decoder
def test_decoder_valid_bytes_cut_anywhere_give_a_value_or_a_wire_error(name: str) -> None:
    for valid in DECODERS[name][1]:
        for end in range(0, len(valid), 1 + len(valid) // 200):
            attempt(name, valid[:end])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("name", ["decode_opening", "decode_end_mark", "decode_message", "kinds_from_wire"])
@given(value=VALUES, data=st.data())
def test_decoder_any_msgpack_value_gives_a_value_or_a_wire_error(name: str, value: object, data: st.DataObject) -> None:
    # a valid value of which one part, at any depth, became another
    whole = unpack(data.draw(st.sampled_from(DECODERS[name][1])))
    parent: object = None
    key: object = None
    inner: object = whole
    while isinstance(inner, list | dict) and inner and (parent is None or data.draw(st.booleans())):
        parent = inner
        key = data.draw(st.sampled_from(sorted(inner, key=str) if isinstance(inner, dict) else range(len(inner))))
        inner = inner[key]  # type: ignore[call-overload]  # of its own keys
    if isinstance(parent, list | dict):
        parent[key] = value  # type: ignore[call-overload]
    attempt(name, pack(whole))


@given(mutated(FRAMES))
def test_text_any_frame_survives_the_round_trip(data: bytes) -> None:
    try:
        split_frame(data)
    except WireError:
        return
    assert parse_frame(format_frame(data)) == data


@given(st.sampled_from(list(BatchType)), mutated([RECORDS, OPENING, END_MARK, b"\xa1a\xa2bc", b""]))
def test_text_any_body_survives_the_round_trip(kind: BatchType, body: bytes) -> None:
    data = encode_batch(Header(kind, bytes(range(16)), 1, 2, 3, 4, first_index=1), body)
    assert parse_frame(format_frame(data)) == data


@given(mutated(MESSAGES))
def test_text_any_message_survives_the_round_trip(data: bytes) -> None:
    try:
        decode_message(data)
    except WireError:
        return
    assert parse_message(format_message(data)) == data


def deep(opener: bytes, size_bytes: int) -> bytes:
    """Containers in containers, as deep as the decoder takes them, side by side in one list."""
    chain = opener * 500 + b"\xc0"
    count = min(size_bytes // len(chain), 0xFFFF)
    return b"\xdc" + count.to_bytes(2, "big") + chain * count


SIZE_BYTES = 64 << 10
BOMBS = {
    "empty maps": b"\xdc\xff\x00" + b"\x80" * 0xFF00,
    "empty lists": b"\xdc\xff\x00" + b"\x90" * 0xFF00,
    "nested lists": deep(b"\x91", SIZE_BYTES),
    "nested maps": deep(b"\x81\x00", SIZE_BYTES),
    "many values": b"\x80" * SIZE_BYTES,
    "claims": b"\xdd\x00\x00\xff\xff" * (SIZE_BYTES // 5),
    "depth": b"\x91" * SIZE_BYTES,
    "map depth": b"\x81\x00" * (SIZE_BYTES // 2),
    "short depth": b"\x91" * 900 + b"\xc0",
    "short map depth": b"\x81\x00" * 900 + b"\xc0",
    "message": pack({"type": "ack", "boot_id": bytes(16), "stored_through": 1, "gaps": [[]] * 0xFF00}),
    "message depth": b"\x82\xa4type\xa4ping\xa7sent_ns" + b"\x91" * 900 + b"\xc0",
    "opening depth": b"\x82\xa5clock\x93\x01\x02\x03\xa5kinds\x91" + b"\x91" * 900 + b"\xc0",
    "deepest message": b"\x82\xa4type\xa4ping\xa7sent_ns" + b"\x91" * 1015 + b"\xc0",
    "deepest opening": b"\x82\xa5clock\x93\x01\x02\x03\xa5kinds\x91" + b"\x91" * 1015 + b"\xc0",
    "deepest end mark": b"\x91" * 1020 + b"\xc0",
    "batches": FRAMES[0] * 200,
    "text brackets": b"message ping\n sent_ns=" + b"[" * SIZE_BYTES,
    "text lists": b"message ping\n sent_ns=[" + b"[]," * (SIZE_BYTES // 3),
    "text lines": b"batch flush\n" * (SIZE_BYTES // 12),
    "text letters": b"a\n" * (SIZE_BYTES // 2),
    "text digits": b"message ping\n sent_ns=" + b"9" * SIZE_BYTES,
    "text string": b'message ping\n sent_ns="' + b"\\" * SIZE_BYTES,
}


def peak_bytes(name: str, data: bytes) -> int:
    """The most memory in use while the decoder is at work, beyond what there was before."""
    tracemalloc.start()
    try:
        attempt(name, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bound_bytes(name: str, data: bytes) -> int:
    packer_bytes = PACKER_BYTES if name.startswith(("parse_", "format_")) else 0
    return PEAK_PER_BYTE * len(data) + PEAK_BASE + packer_bytes


@each_decoder
@pytest.mark.parametrize("bomb", BOMBS)
def test_decoder_bomb_takes_memory_in_proportion(name: str, bomb: str) -> None:
    data = BOMBS[bomb]
    assert peak_bytes(name, data) <= bound_bytes(name, data)


@each_decoder
@given(data=st.data())
def test_decoder_mutated_bytes_take_memory_in_proportion(name: str, data: st.DataObject) -> None:
    wrong = data.draw(mutated(DECODERS[name][1]))
    assert peak_bytes(name, wrong) <= bound_bytes(name, wrong)
