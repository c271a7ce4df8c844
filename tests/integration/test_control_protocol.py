"""The recorder's sockets, by a bare zmq client that knows what docs/protocol.md says: what is wrong gets a clear answer, and the recorder runs on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq
from support.raw_tracer import RawTracer
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

DEADLINE_MS = 10_000
CHUNK_BYTES = 256 << 10


@pytest.fixture(scope="module")
def recorder() -> Iterator[RecorderProcess]:
    with tempfile.TemporaryDirectory(prefix="fz") as directory, recorder_process(directory) as process:
        yield process


class Bare:
    """One DEALER on one of the recorder's sockets."""

    def __init__(self, recorder: RecorderProcess, name: str) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.PUSH if name == "data" else zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 1000)
        self.socket.connect(f"ipc://{recorder.address}/{name}")

    def send(self, **message: Any) -> None:
        self.socket.send(msgpack.packb(message))

    def receive(self) -> dict[str, Any]:
        assert self.socket.poll(DEADLINE_MS), "no answer"
        message: dict[str, Any] = msgpack.unpackb(self.socket.recv())
        return message

    def status(self) -> dict[str, Any]:
        """Everything else that was sent before it is answered by then: replies keep their order."""
        self.send(type="status?", id=99)
        reply = self.receive()
        assert (reply["type"], reply["id"]) == ("status", 99)
        status: dict[str, Any] = reply["status"]
        return status

    def close(self) -> None:
        self._context.destroy()


@pytest.fixture
def control(recorder: RecorderProcess) -> Iterator[Bare]:
    client = Bare(recorder, "control")
    yield client
    client.close()


@pytest.fixture
def link(recorder: RecorderProcess) -> Iterator[Bare]:
    client = Bare(recorder, "link")
    yield client
    client.close()


HELLO: dict[str, Any] = {
    "type": "hello",
    "uuid": bytes(16),
    "incarnation": 0,
    "wire_oldest": 1,
    "wire_newest": 1,
    "pid": 1,
    "service": "bare",
    "generation": 0,
}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([b""], "message: wanted one msgpack value, got 0 bytes"),
        ([b"\xc1garbage"], "message: wanted one msgpack value, got 8 bytes"),
        ([msgpack.packb([1, 2])], "message: wanted a map, got list"),
        ([msgpack.packb({"id": 1})], "message: wanted a known type, got None"),
        ([msgpack.packb({"type": "dance?", "id": 1})], "message: wanted a known type, got 'dance?'"),
        ([msgpack.packb({"type": "status?"})], "status?.id: wanted an unsigned integer of 64 bits, got nothing"),
        ([msgpack.packb({"type": "status?", "id": -1})], "status?.id: wanted an unsigned integer of 64 bits, got -1"),
        (
            [msgpack.packb({"type": "snapshot?", "id": 1, "credit": 70_000})],
            "snapshot?.credit: wanted an unsigned integer of 16 bits, got 70000",
        ),
        ([msgpack.packb({"type": "flush?", "id": 1, "double": 1})], "flush?.double: wanted true or false, got 1"),
        (
            [msgpack.packb({"type": "status?", "id": 1}) + b"\xc0"],
            "message: wanted one msgpack value, got 1 more bytes",
        ),
        ([msgpack.packb(HELLO)], "wanted a request, got Hello"),
        ([msgpack.packb({"type": "status?", "id": 1})] * 2, "wanted requests of one part, got 2"),
        ([b"x"] * 100, "wanted requests of one part, got 15"),
    ],
)
def test_control_of_a_wrong_message_is_told_what_was_wanted(
    recorder: RecorderProcess, control: Bare, parts: list[bytes], said: str
) -> None:
    control.socket.send_multipart(parts)
    reply = control.receive()
    assert (reply["type"], reply["id"], reply["code"]) == ("error", 0, "bad_request")
    assert reply["message"].startswith(said)
    assert control.status()["pid"] == recorder.process.pid


def test_control_of_an_oversized_message_loses_its_connection_and_nobody_elses(
    recorder: RecorderProcess, control: Bare
) -> None:
    big = Bare(recorder, "control")
    try:
        monitor = big.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        big.socket.send(bytes(2 << 20))
        assert monitor.poll(DEADLINE_MS), "still connected"
        assert control.status()["pid"] == recorder.process.pid
        big.socket.disable_monitor()
        monitor.close()
    finally:
        big.close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"wire_oldest": 9, "wire_newest": 9}, "no common wire version: wanted one of 1..1, the peer speaks 9..9"),
        ({"generation": 1 << 62}, "hello: wanted a generation below"),
        ({"uuid": b"short"}, "hello.uuid: wanted 16 bytes, got b'short'"),
        ({"type": "status?", "id": 1}, "wanted a message of a tracer, got StatusRequest"),
    ],
)
def test_link_of_a_wrong_hello_is_rejected_with_the_reason(
    link: Bare, control: Bare, changed: dict[str, Any], said: str
) -> None:
    link.send(**{**HELLO, **changed})
    reply = link.receive()
    assert reply["type"] == "reject"
    assert reply["reason"].startswith(said)
    assert all(tracer["service"] != "bare" for tracer in control.status()["tracers"])


def test_link_of_a_stranger_with_a_heartbeat_is_sent_to_say_hello(link: Bare, control: Bare) -> None:
    link.send(type="heartbeat", generation=7, tseq=12)
    assert link.receive() == {"type": "level", "boot_id": control.status()["boot_id"], "generation": 0}


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"fz\x09" + bytes(93), id="version 9"),
        pytest.param(b"fz\x01\x01" + b"\xff" * 92, id="body beyond the frame"),
        pytest.param(b"fz\x01\x05" + bytes(92), id="unknown tracer"),
    ],
)
def test_data_of_a_stranger_is_counted_and_harms_nobody(recorder: RecorderProcess, control: Bare, frame: bytes) -> None:
    before = control.status()["rejected_frames"]
    data = Bare(recorder, "data")
    try:
        data.socket.send(frame)
        deadline = time.monotonic() + DEADLINE_MS / 1000
        while (after := control.status()["rejected_frames"]) == before:
            assert time.monotonic() < deadline, "it was not counted"
        assert after == before + 1
    finally:
        data.close()


def fill(recorder: RecorderProcess, control: Bare) -> None:
    """The ring with more than two chunks."""
    tracer = RawTracer(recorder.address)
    tracer.record(padding=CHUNK_BYTES)
    tracer.record(padding=CHUNK_BYTES)
    tracer.flush_mark()
    tracer.goodbye()
    deadline = time.monotonic() + DEADLINE_MS / 1000
    while next(t["state"] for t in control.status()["tracers"] if t["uuid"] == tracer.uuid) == "live":
        assert time.monotonic() < deadline, "it does not leave"
    tracer.close()


def test_snapshot_sends_no_more_chunks_than_it_has_credit_for(recorder: RecorderProcess, control: Bare) -> None:
    fill(recorder, control)
    control.send(type="snapshot?", id=5, credit=1)
    got = b""
    while (message := control.receive())["type"] == "chunk":
        assert (message["id"], message["offset"]) == (5, len(got))
        got += message["data"]
        if len(message["data"]) == CHUNK_BYTES:
            # without credit nothing but the status comes, however often one asks
            control.status()
            control.status()
        control.send(type="credit", id=5, chunks=1)
    assert message == {"type": "snapshot", "id": 5, "size_bytes": len(got), "missing": []}
    assert len(got) > 2 * CHUNK_BYTES


def test_snapshot_that_is_cancelled_sends_nothing_more(recorder: RecorderProcess, control: Bare) -> None:
    fill(recorder, control)
    made = control.status()["snapshots"]
    control.send(type="snapshot?", id=6, credit=1)
    first = control.receive()
    assert (first["type"], first["id"], len(first["data"])) == ("chunk", 6, CHUNK_BYTES)
    control.send(type="cancel", id=6)
    control.send(type="credit", id=6, chunks=100)
    # a large one may still be written, and another is refused until then
    until(lambda: control.status()["snapshots"] == made + 1, "it is not written")
    control.status()
    control.send(type="snapshot?", id=7, credit=1000)
    while (message := control.receive())["type"] == "chunk":
        assert message["id"] == 7
    assert (message["type"], message["id"]) == ("snapshot", 7)
