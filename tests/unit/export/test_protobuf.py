from __future__ import annotations

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos

from frzmq.export.protobuf import data, double, integer, text, varint


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        ((1 << 64) - 1, b"\xff" * 9 + b"\x01"),
        (-1, b"\xff" * 9 + b"\x01"),
    ],
)
def test_varint_is_as_the_documentation_has_it(value: int, encoded: bytes) -> None:
    assert varint(value) == encoded


def test_fields_are_read_by_a_real_decoder() -> None:
    note = protos.DebugAnnotation()
    for encoded, name, value in (
        (integer(4, -5), "int_value", -5),
        (integer(3, (1 << 64) - 1), "uint_value", (1 << 64) - 1),
        (double(5, 1.25), "double_value", 1.25),
        (text(6, "ä\ud800"), "string_value", "ä\\ud800"),
    ):
        note.ParseFromString(encoded)
        assert getattr(note, name) == value


def test_message_in_a_message_is_its_bytes() -> None:
    trace = protos.Trace()
    trace.ParseFromString(data(1, integer(8, 7)) + data(1, integer(8, 9)))
    assert [packet.timestamp for packet in trace.packet] == [7, 9]
