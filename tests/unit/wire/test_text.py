from __future__ import annotations

import pytest

from frzmq.errors import WireError
from frzmq.wire.batch import BatchType, EndMark, Header, WriterEnd, encode_batch, encode_end_mark
from frzmq.wire.codec import pack
from frzmq.wire.messages import Ack, Ping, encode_message
from frzmq.wire.text import format_frame, format_message, parse_frame, parse_message

UUID = bytes(range(16))
HEADER = Header(BatchType.RECORDS, UUID, 1, 2, 3, 4, 5, 6, 7, 8, 2)
HEAD = "uuid=h'000102030405060708090a0b0c0d0e0f' incarnation=1 nonce=2 generation=3 tseq=4"
BATCH = f"batch records {HEAD} writer=5 base_ns=6 last_ns=7 first_index=8 count=2\n"
RECORDS = b"".join(
    [pack(5), pack(250), pack("a \"b\"\n#é\u2028"), pack({"k": 1.5, 3: b"\x00"}), pack(6), pack(0), pack(1), pack(float("-inf"))]
)  # fmt: skip
RECORD_LINES = '  event +250 "a \\"b\\"\\n#é\u2028" {"k": 1.5, 3: h\'00\'}\n  gauge +0 1 -inf\n'


def test_text_of_records_is_a_line_each() -> None:
    frame = encode_batch(HEADER, RECORDS)
    assert format_frame(frame) == BATCH + RECORD_LINES
    assert parse_frame(BATCH + RECORD_LINES) == frame


def test_text_of_an_end_mark_and_a_flush_names_their_values() -> None:
    mark = EndMark((WriterEnd(5, 0, 9, 1, ((1, 3),)),))
    head = Header(BatchType.END, UUID, 1, 2, 3, 4)
    frame = encode_batch(head, encode_end_mark(mark)) + encode_batch(Header(BatchType.FLUSH, UUID, 1, 2, 3, 4))
    text = (
        f"batch end {HEAD}\n  writer 5 first_index=0 next_index=9 dropped=1 overwritten=[[1, 3]]\nbatch flush {HEAD}\n"
    )
    assert format_frame(frame) == text
    assert parse_frame(text) == frame


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (BatchType.RECORDS, b"\xcd\x01\x2c\x00"),  # a kind that this version does not know
        (BatchType.RECORDS, b"\xcc\x0b\x00"),  # an integer longer than need be
        (BatchType.RECORDS, b"\x05\x01\x01"),  # a record without its last value
        (BatchType.RECORDS, b"\xff" * 60),
        (BatchType.OPEN, b"\x80"),
        (BatchType.END, b"\x90"),
        (BatchType.STRINGS, b"\xa1\xff"),
        (BatchType.STRINGS, b"\x01"),
        (BatchType.GOODBYE, b"x"),
    ],
)
def test_text_of_a_body_that_lines_cannot_say_is_hex(kind: BatchType, body: bytes) -> None:
    frame = encode_batch(Header(kind, UUID, 1, 2, 3, 4, first_index=1), body)
    text = format_frame(frame)
    assert text.startswith(f"batch {kind.name.lower()} {HEAD} first_index=1\n")
    lines = text.split("\n")[1:-1]
    assert all(line.startswith("  hex ") for line in lines) and "".join(line[6:] for line in lines) == body.hex()
    assert parse_frame(text) == frame


def test_text_keeps_the_reserved_bytes_of_a_header() -> None:
    frame = encode_batch(Header(BatchType.FLUSH, UUID, 1, 2, 3, 4))[:-4] + b"\x09\x00\x00\x00"
    assert format_frame(frame) == f"batch flush {HEAD} reserved=9\n"
    assert parse_frame(format_frame(frame)) == frame


def test_text_comments_blank_lines_and_spaces_mean_nothing() -> None:
    text = f"# a story\n\n   {BATCH.strip()}   # of two\r\n\t# records\n{RECORD_LINES}\n\n"
    assert parse_frame(text) == encode_batch(HEADER, RECORDS)


def test_text_of_a_message_is_a_line_for_each_key() -> None:
    data = encode_message(Ack(UUID, 5, ((1, 2),)))
    text = "message ack\n  boot_id=h'000102030405060708090a0b0c0d0e0f'\n  stored_through=5\n  gaps=[[1, 2]]\n"
    assert format_message(data) == text
    assert parse_message(text) == data


def test_text_of_a_newer_peers_message_is_hex() -> None:
    data = pack({"type": "ping", "sent_ns": 1, "new": True})
    assert format_message(data) == f"message ping\n  hex {data.hex()}\n"
    assert parse_message(format_message(data)) == data


def test_text_keys_of_a_message_may_share_a_line() -> None:
    assert parse_message("message ping sent_ns=5".replace(" sent", "\nsent")) == encode_message(Ping(5))


def test_text_of_what_is_no_frame_or_message_is_a_wire_error() -> None:
    with pytest.raises(WireError, match=r"^frame: wanted 1\.\."):
        format_frame(b"")
    with pytest.raises(WireError, match=r"^message: wanted a map, got int$"):
        format_message(b"\x01")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text: wanted a frame, got no batch"),
        ("# only a comment\n", "text: wanted a frame, got no batch"),
        ("\nbunch records", "line 2: wanted 'batch', got 'bunch'"),
        ("batch record", "line 1: wanted one of records open end strings flush goodbye, got 'record'"),
        ("batch flush", "line 1: wanted uuid=h'..' of 16 bytes, got None"),
        ("batch flush uuid=h'00'", "line 1: wanted uuid=h'..' of 16 bytes, got b'\\x00'"),
        ("batch flush uuid=h'0'", "line 1: wanted two digits for each byte, got \"h'0'\""),
        (f'batch flush {HEAD} writer="x"', "line 1: wanted an unsigned integer as writer, got 'x'"),
        (f"batch flush {HEAD} tseq=5", "line 1: wanted one of uuid incarnation nonce"),
        (f"batch flush {HEAD} colour=5", "line 1: wanted one of uuid incarnation nonce"),
        (f"batch flush {HEAD} writer=-1", "line 1: "),
        (f"batch flush {HEAD} base_ns=5", "line 1: tracer 00010203 generation 3 tseq 4: times: wanted last >= base"),
        (f"batch flush {HEAD}\n  event +1 1 null", "line 2: wanted no body, or hex, got 'event'"),
        (f"{BATCH}\n  evnt +1 1 null", "line 3: wanted a kind of record, got 'evnt'"),
        (f"{BATCH}  event 1 1 null", "line 2: wanted '+', got '1'"),
        (f"{BATCH}  event +1 1", "line 2: wanted a value, got its end"),
        (f"{BATCH}  event +1 1 null null", "line 2: wanted its end, got 'null'"),
        (f"{BATCH}  event +1 nul null", "line 2: wanted a value, got 'nul'"),
        (f"{BATCH}  event +-1 1 null", "line 2: wanted an unsigned integer, got '-1'"),
        (f'{BATCH}  event +1 "a null', "line 2: wanted a word, a value or a mark, got '\"a null'"),
        (f'{BATCH}  event +1 "\\ud800" null', "line 2: wanted a string as in JSON, got '\"\\\\ud800\"'"),
        (f"{BATCH}  event +1 18446744073709551616 null", "line 2: wanted an integer of 64 bits, got '18446744073709551616'"),
        (f"{BATCH}  event +1 1 {{1: 2, 1: 3}}", "line 2: wanted a new string or integer as key, got 1"),
        (f"{BATCH}  event +1 1 {'[' * 99}", "line 2: wanted values nested at most 16 deep, got '['"),
        (f"{BATCH}  hex 0", "line 2: wanted 'hex' and an even count of digits, got 'hex'"),
        (f"batch end {HEAD}\n writer 1 first_index=2 next_index=1", "line 2: end mark: wanted writers ["),
        (f"batch open {HEAD}\n clok 1 2 3", "line 2: wanted clock, kind, writer, open or omitted, got 'clok'"),
        (f"batch open {HEAD}\n kind event", "line 2: opening batch: wanted a map with clock and kinds"),
    ],
)  # fmt: skip
def test_text_frame_that_is_wrong_names_the_line(text: str, message: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_frame(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text: wanted a message, got nothing"),
        ("batch flush", "line 1: wanted 'message', got 'batch'"),
        ("message pinged", "line 1: wanted a type of message, got 'pinged'"),
        ("message ping", "line 1: ping.sent_ns: wanted an unsigned integer of 64 bits, got nothing"),
        ("message ping\n  sent_ns=-1", "line 1: ping.sent_ns: wanted an unsigned integer of 64 bits, got -1"),
        ("message ping\n  sent=1", "line 2: wanted one of sent_ns, each once, got 'sent'"),
        ("message ping\n  sent_ns=1\n  sent_ns=2", "line 3: wanted one of sent_ns, each once, got 'sent_ns'"),
        ("message ping\n  hex 00", "line 1: message: wanted a map, got int"),
    ],
)
def test_text_message_that_is_wrong_names_the_line(text: str, message: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_message(text)
    assert str(caught.value) == message
