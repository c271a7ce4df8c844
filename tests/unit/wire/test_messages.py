from __future__ import annotations

import pytest

from frzmq.errors import WireError
from frzmq.wire import messages as m
from frzmq.wire.codec import Value, pack, unpack

ID = bytes(range(16))
U64 = (1 << 64) - 1
TRACER = m.TracerStatus(ID, "shop", 7, "live", 3, records=5, error="naïve")
STATUS = m.Status("on", "0.1.0", 1, ID, 2, 3, 4, 5, tracers=(TRACER,), errors=("a",))
MESSAGES: list[m.Message] = [
    m.Hello(ID, 1, 1, 1, 4711, "shop", 3, False, shared=True, wall_ns=U64),
    m.TracerHeartbeat(1, 2, offset_ns=-(1 << 63)),
    m.Ping(U64),
    m.Welcome(ID, U64, 1, 1, 2, 3),
    m.Reject("no"),
    m.Advance(7),
    m.RecorderHeartbeat(ID, 7),
    m.Ack(ID, 5, ((1, 2), (3, U64))),
    m.Stop("why", 9),
    m.Pong(1, 2),
    m.StatusRequest(1),
    m.StartRequest(2),
    m.StopRequest(3),
    m.FlushRequest(4, 5, True),
    m.SnapshotRequest(5, "slow", 1, True, 9, 2),
    m.Credit(5, 1),
    m.Cancel(5),
    m.OkReply(1),
    m.StatusReply(1, STATUS),
    m.FlushReply(1, ("shop[7]",)),
    m.SnapshotChunk(1, 2, b"\x00\xff"),
    m.SnapshotEnd(1, 2, ("a", "b")),
    m.ErrorReply(1, "busy", "later"),
    m.Report(1, "slow 500ms", "GET / took 1s", "ab" * 16),
    m.LinesWanted(1, "ab" * 16),
    m.Lines(1, "ab" * 16, (m.LogLine(1, "s[1]", 10, "app", "said"),), 3, ""),
    m.Reported(1, "/s/a.frz", "slow: GET /", ""),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_each_comes_back(message: m.Message) -> None:
    assert m.decode_message(m.encode_message(message)) == message


def test_messages_every_type_is_tested_here() -> None:
    assert {type(message) for message in MESSAGES} == set(m.MESSAGE_TYPES.values())


def test_messages_unknown_keys_are_ignored() -> None:
    assert m.decode_message(pack({"type": "ping", "sent_ns": 1, "new": [1], 5: None})) == m.Ping(1)


def test_messages_missing_keys_take_their_defaults() -> None:
    assert m.decode_message(pack({"type": "snapshot?", "id": 1})) == m.SnapshotRequest(1)


def changed(message: m.Message, key: str, value: Value) -> bytes:
    whole = unpack(m.encode_message(message))
    assert isinstance(whole, dict)
    return pack(whole | {key: value})


LIMITS: list[tuple[m.Message, str, Value, Value, str]] = [
    (MESSAGES[0], "uuid", ID, ID + b"x", "hello.uuid: wanted 16 bytes, got b'"),
    (MESSAGES[0], "uuid", ID, ID[:-1], "hello.uuid: wanted 16 bytes, got b'"),
    (MESSAGES[0], "pid", (1 << 32) - 1, 1 << 32, "hello.pid: wanted an unsigned integer of 32 bits, got 4294967296"),
    (MESSAGES[0], "pid", 0, -1, "hello.pid: wanted an unsigned integer of 32 bits, got -1"),
    (MESSAGES[0], "wire_newest", 255, 256, "hello.wire_newest: wanted an unsigned integer of 8 bits, got 256"),
    (MESSAGES[0], "service", "x" * 256, "x" * 257, "hello.service: wanted a string of at most 256 characters, got 'xx"),
    (MESSAGES[0], "python", "x" * 64, "x" * 65, "hello.python: wanted a string of at most 64 characters, got 'xx"),
    (MESSAGES[0], "shared", True, 1, "hello.shared: wanted true or false, got 1"),
    (MESSAGES[0], "generation", 1, True, "hello.generation: wanted an unsigned integer of 64 bits, got True"),
    (MESSAGES[1], "offset_ns", (1 << 63) - 1, 1 << 63, "heartbeat.offset_ns: wanted an integer of 64 bits, got 92"),
    (MESSAGES[4], "reason", "x" * 1024, "x" * 1025, "reject.reason: wanted a string of at most 1024 characters, got 'x"),
    (MESSAGES[7], "gaps", [[1, 2]] * m.MAX_GAPS, [[1, 2]] * (m.MAX_GAPS + 1), "ack.gaps: wanted a list of at most 1024: a range [from, to), got [["),
    (MESSAGES[7], "gaps", [[1, 2]], [[2, 2]], "ack.gaps: wanted a list of at most 1024: a range [from, to), got [[2, 2]]"),
    (MESSAGES[14], "credit", 65535, 65536, "snapshot?.credit: wanted an unsigned integer of 16 bits, got 65536"),
    (MESSAGES[19], "missing", ["x"] * 1024, ["x"] * 1025, "flushed.missing: wanted a list of at most 1024: a string, got ['x'"),
    (MESSAGES[20], "data", b"x" * m.MAX_CHUNK_BYTES, "text", "chunk.data: wanted at most 262144 bytes, got 'text'"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "key", "within", "past", "error"), LIMITS, ids=[f"{e[4][:24]}{n}" for n, e in enumerate(LIMITS)])  # fmt: skip
def test_messages_a_value_at_its_limit_is_taken_and_one_past_it_named(
    message: m.Message, key: str, within: Value, past: Value, error: str
) -> None:
    assert unpack(m.encode_message(m.decode_message(changed(message, key, within)))) == unpack(
        changed(message, key, within)
    )
    with pytest.raises(WireError) as caught:
        m.decode_message(changed(message, key, past))
    assert str(caught.value).startswith(error)


def test_messages_a_fault_deep_in_a_status_is_named() -> None:
    reply = unpack(m.encode_message(m.StatusReply(1, STATUS)))
    assert isinstance(reply, dict)
    reply["status"]["tracers"][0]["pid"] = "7"  # type: ignore[call-overload, index]  # known to be maps
    with pytest.raises(WireError) as caught:
        m.decode_message(pack(reply))
    assert str(caught.value) == "TracerStatus.pid: wanted an unsigned integer of 32 bits, got '7'"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "message: wanted a map, got list"),
        ({}, "message: wanted a known type, got None"),
        ({"type": "nope"}, "message: wanted a known type, got 'nope'"),
        ({"type": [1]}, "message: wanted a known type, got [1]"),
        ({"type": "ping"}, "ping.sent_ns: wanted an unsigned integer of 64 bits, got nothing"),
        ({"type": "status", "id": 1, "status": 3}, "status.status: wanted a map (Status), got 3"),
    ],
)
def test_messages_what_is_none_says_why(value: Value, message: str) -> None:
    with pytest.raises(WireError) as caught:
        m.decode_message(pack(value))
    assert str(caught.value) == message
