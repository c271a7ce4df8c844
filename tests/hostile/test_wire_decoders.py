"""Any bytes give a value or a WireError, for every decoder of the wire, and never memory out of proportion to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.targets import DECODERS, END_MARK, FRAMES, MESSAGES, OPENING, RECORDS, TARGETS, check_memory

from frzmq.errors import WireError
from frzmq.wire.batch import (
    BatchType,
    Header,
    encode_batch,
    split_frame,
)
from frzmq.wire.codec import pack, unpack
from frzmq.wire.messages import decode_message
from frzmq.wire.text import format_frame, format_message, parse_frame, parse_message

each_decoder = pytest.mark.parametrize("name", DECODERS)

# what claims much in few bytes: containers, strings and binaries of 2**16 and 2**32 elements; one of each length class
CLAIMS = [
    b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xde\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xda\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc5\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xc1", b"\xd4\x01\x00",
    b"\xff\xff\xff\xff", b"\x80", b"\x90" * 50, b"\x91" * 50, b"\x81\x00" * 50, b"\xcf" + b"\xff" * 8, b"\x80" * 20,
]  # fmt: skip


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
    TARGETS[name].run(data.draw(st.binary(max_size=300)))


@each_decoder
@given(data=st.data())
def test_decoder_mutated_bytes_give_a_value_or_a_wire_error(name: str, data: st.DataObject) -> None:
    TARGETS[name].run(data.draw(mutated(TARGETS[name].corpus)))


@each_decoder
def test_decoder_valid_bytes_cut_anywhere_give_a_value_or_a_wire_error(name: str) -> None:
    for valid in TARGETS[name].corpus:
        for end in range(0, len(valid), 1 + len(valid) // 200):
            TARGETS[name].run(valid[:end])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("name", ["decode_opening", "decode_end_mark", "decode_message", "kinds_from_wire"])
@given(value=VALUES, data=st.data())
def test_decoder_any_msgpack_value_gives_a_value_or_a_wire_error(name: str, value: object, data: st.DataObject) -> None:
    # a valid value of which one part, at any depth, became another
    whole = unpack(data.draw(st.sampled_from(TARGETS[name].corpus)))
    parent: object = None
    key: object = None
    inner: object = whole
    while isinstance(inner, list | dict) and inner and (parent is None or data.draw(st.booleans())):
        parent = inner
        key = data.draw(st.sampled_from(sorted(inner, key=str) if isinstance(inner, dict) else range(len(inner))))
        inner = inner[key]  # type: ignore[call-overload]  # of its own keys
    if isinstance(parent, list | dict):
        parent[key] = value  # type: ignore[call-overload]
    TARGETS[name].run(pack(whole))


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


@each_decoder
@pytest.mark.parametrize("bomb", BOMBS)
def test_decoder_bomb_takes_memory_in_proportion(name: str, bomb: str) -> None:
    data = BOMBS[bomb]
    check_memory(name, data)


@each_decoder
@given(data=st.data())
def test_decoder_mutated_bytes_take_memory_in_proportion(name: str, data: st.DataObject) -> None:
    check_memory(name, data.draw(mutated(TARGETS[name].corpus)))
