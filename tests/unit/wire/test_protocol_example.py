"""The bytes in docs/protocol.md are what they are said to be."""

from __future__ import annotations

import re
from pathlib import Path

from frzmq.wire.batch import Batch, BatchType, Header, encode_batch, split_frame
from frzmq.wire.messages import Hello, decode_message

PROTOCOL = (Path(__file__).resolve().parents[3] / "docs" / "protocol.md").read_text()
UUID = bytes(range(16))
NONCE = 0x1122334455667788
SECOND_NS = 10**9


def dumps() -> list[bytes]:
    """The indented blocks of the example."""
    text = PROTOCOL.partition("### An example\n")[2].partition("\n###")[0]
    return [bytes.fromhex(block) for block in re.findall(r"(?:^    [0-9a-f ]+\n)+", text, re.MULTILINE)]


def test_protocol_document_example_is_a_hello_a_string_and_an_event() -> None:
    hello, strings, records = dumps()
    assert decode_message(hello) == Hello(UUID, 0, 1, 1, 7, "x", 0)
    string = Header(
        BatchType.STRINGS,
        UUID,
        0,
        NONCE,
        1,
        2,
        base_ns=SECOND_NS,
        last_ns=SECOND_NS,
        first_index=1,
        count=1,
        body_size=6,
    )
    event = Header(
        BatchType.RECORDS,
        UUID,
        0,
        NONCE,
        1,
        3,
        writer=1,
        base_ns=SECOND_NS,
        last_ns=SECOND_NS + 1,
        count=1,
        body_size=4,
    )
    assert split_frame(strings + records) == [Batch(string, b"\xa5hello"), Batch(event, b"\x05\x01\x01\xc0")]
    assert encode_batch(event, b"\x05\x01\x01\xc0") == records
