from __future__ import annotations

import tracemalloc

import msgpack
import pytest

from frzmq.errors import WireError
from frzmq.wire.codec import (
    MAX_BINARY_BYTES,
    MAX_CONTAINER,
    MAX_FLAT_LIST,
    MAX_MESSAGE_BYTES,
    MAX_STRING_BYTES,
    Value,
    pack,
    unpack,
    unpack_values,
)

VALUES: list[Value] = [
    None, True, False, 0, -1, -(1 << 63), (1 << 64) - 1, 0.0, -1.5, float("inf"), "", "naïve", b"", b"\x00\xff",
    [], [1, [2, ["x"]]], {}, {"a": {1: None}, 7: [b"b"]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_codec_a_value_comes_back_with_its_types(value: Value) -> None:
    assert (back := unpack(pack(value))) == value
    assert type(back) is type(value)


def test_codec_a_flat_run_comes_back_in_order() -> None:
    assert list(unpack_values(b"".join(map(pack, VALUES)))) == VALUES


def test_codec_unpack_takes_memoryviews() -> None:
    data = memoryview(pack({"a": [1]}))
    assert unpack(data) == {"a": [1]}
    assert list(unpack_values(data)) == [{"a": [1]}]


@pytest.mark.parametrize(
    ("value", "past"),
    [
        pytest.param("x" * MAX_STRING_BYTES, "x" * (MAX_STRING_BYTES + 1), id="string"),
        pytest.param(b"x" * MAX_BINARY_BYTES, b"x" * (MAX_BINARY_BYTES + 1), id="binary"),
        pytest.param([1] * MAX_CONTAINER, [1] * (MAX_CONTAINER + 1), id="list"),
        pytest.param(dict.fromkeys(range(MAX_CONTAINER), 1), dict.fromkeys(range(MAX_CONTAINER + 1), 1), id="map"),
    ],
)
def test_codec_a_value_at_its_limit_is_taken_and_one_past_it_not(value: Value, past: Value) -> None:
    assert unpack(pack(value)) == value
    with pytest.raises(
        WireError, match=r"^thing: wanted one msgpack value, got \d+ bytes that are not: .* exceeds max"
    ):
        unpack(pack(past), "thing")


def test_codec_a_message_at_its_limit_is_taken_and_one_past_it_not() -> None:
    # 1 MiB in all: binaries with headers of 5 bytes, in a list with a header of 1
    pieces = [b"x" * (MAX_BINARY_BYTES - 5)] * 3 + [b"x" * (MAX_BINARY_BYTES - 6)]
    assert len(pack([*pieces])) == MAX_MESSAGE_BYTES
    assert unpack(pack([*pieces])) == pieces
    pieces[-1] += b"x"
    with pytest.raises(WireError) as caught:
        unpack(pack([*pieces]), "hello")
    assert str(caught.value) == f"hello: wanted at most {MAX_MESSAGE_BYTES} bytes, got {MAX_MESSAGE_BYTES + 1}"


def test_codec_a_list_in_a_flat_run_is_taken_to_its_limit() -> None:
    assert list(unpack_values(pack([1] * MAX_FLAT_LIST))) == [[1] * MAX_FLAT_LIST]
    with pytest.raises(WireError, match=r"^body: not msgpack at byte \d+ of 20: 17 exceeds max_array_len"):
        list(unpack_values(pack([1] * (MAX_FLAT_LIST + 1))))


def test_codec_more_behind_the_value_says_how_much() -> None:
    with pytest.raises(WireError, match=r"^ack: wanted one msgpack value, got 2 more bytes behind it$"):
        unpack(b"\x01\x02\x03", "ack")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xa5abc", id="cut short"),
        pytest.param(b"\xc1", id="the byte that means nothing"),
        pytest.param(b"\xa2\xff\xfe", id="not utf-8"),
        pytest.param(b"\x81\x90\x01", id="a list as a key"),
        pytest.param(msgpack.packb(msgpack.ExtType(5, b"x")), id="an extension"),
        pytest.param(msgpack.packb(msgpack.Timestamp(1, 2)), id="a timestamp"),
        pytest.param(b"\x91" * 5000 + b"\x01", id="too deep"),
    ],
)
def test_codec_what_is_no_value_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError, match=f"^reply: wanted one msgpack value, got {len(data)} bytes that are not: .+"):
        unpack(data, "reply")


def test_codec_a_run_cut_short_gives_what_was_before_and_says_where() -> None:
    values = unpack_values(b"\x01\x02\xa5abc", "records")
    assert [next(values), next(values)] == [1, 2]
    with pytest.raises(WireError, match=r"^records: not msgpack at byte [23] of 6: "):
        next(values)


def test_codec_nested_claims_take_no_memory() -> None:
    data = b"\xdc\x0b\xb8" * 1000  # each claims a list of 3000: 24 kB
    tracemalloc.start()
    with pytest.raises(WireError):
        unpack(data)
    with pytest.raises(WireError):
        list(unpack_values(data))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 256 << 10


def test_codec_pack_is_the_shortest_form() -> None:
    assert pack({"a": [1, 128, -1], 2: b"\x00"}).hex() == "82a161" + "9301cc80ff" + "02c40100"
