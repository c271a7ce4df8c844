"""`ControlClient` against a recorder that answers what the test tells it to."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.errors import ConfigError, ControlCode, ControlError
from frzmq.transport.addresses import parse_address
from frzmq.transport.sockets import RecorderSockets, receive_all, send_to
from frzmq.wire.messages import (
    Cancel,
    Credit,
    ErrorReply,
    FlushReply,
    FlushRequest,
    Message,
    OkReply,
    Reply,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotRequest,
    StartRequest,
    decode_message,
    encode_message,
)

Answer = Callable[[Message], list[Reply | bytes]]


class FakeRecorder:
    """A thread that answers each request with what ``answer`` returns, and keeps the requests."""

    def __init__(self, directory: Path, answer: Answer) -> None:
        self.address = f"ipc://{directory}"
        self.heard: list[Message] = []
        self.peers: set[bytes] = set()
        self._answer = answer
        self._directory = directory
        self._read, self._write = os.pipe()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._serving.wait(10)

    def _run(self) -> None:
        sockets = RecorderSockets(parse_address(self.address))
        sockets.watch(self._read)
        self._serving.set()
        while self._read not in sockets.poll(10_000):
            for peer, data in receive_all(sockets.control):
                self.peers.add(peer)
                message = decode_message(data)
                self.heard.append(message)
                for reply in self._answer(message):
                    send_to(sockets.control, peer, reply if isinstance(reply, bytes) else encode_message(reply))
        sockets.close(100)

    def close(self) -> None:
        os.write(self._write, b"e")
        self._thread.join(10)
        assert not self._thread.is_alive()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Answer], FakeRecorder]]:
    made: list[FakeRecorder] = []

    def make(answer: Answer) -> FakeRecorder:
        made.append(FakeRecorder(tmp_path_factory.mktemp("r"), answer))
        return made[-1]

    yield make
    for recorder in made:
        recorder.close()


def only_starts(message: Message) -> list[Reply | bytes]:
    """Answers no other request."""
    return [OkReply(message.id)] if isinstance(message, StartRequest) else []


def impatient(recorder: FakeRecorder) -> ControlClient:
    """Waits for 0.05 s, of which the connecting, by its first request, takes none."""
    client = ControlClient(recorder.address, timeout_s=10)
    client.start()
    client._timeout_s = 0.05
    return client


def test_client_flush_takes_its_own_reply_and_no_other(serve: Callable[[Answer], FakeRecorder]) -> None:
    def answer(message: Message) -> list[Reply | bytes]:
        assert isinstance(message, FlushRequest)
        return [FlushReply(message.id + 100, ("stale",)), FlushReply(message.id, ("a[1]",))]

    recorder = serve(answer)
    with ControlClient(recorder.address) as client:
        assert client.flush(1.5, double=True).missing == ("a[1]",)
        assert client.flush().missing == ("a[1]",)
    assert recorder.heard == [FlushRequest(1, 1_500_000_000, True), FlushRequest(2, 5_000_000_000, False)]
    assert len(recorder.peers) == 1


def test_client_error_reply_is_raised_with_its_code(serve: Callable[[Answer], FakeRecorder]) -> None:
    recorder = serve(lambda message: [ErrorReply(getattr(message, "id", 0), "state", "start: it is on")])
    with ControlClient(recorder.address) as client, pytest.raises(ControlError, match="start: it is on") as raised:
        client.start()
    assert raised.value.code is ControlCode.STATE


@pytest.mark.parametrize("reply", [b"\xc1", OkReply(1), Cancel(1), ErrorReply(1, "no such code", "?")])
def test_client_nonsense_is_a_protocol_error(serve: Callable[[Answer], FakeRecorder], reply: Reply | bytes) -> None:
    recorder = serve(lambda message: [reply])
    with ControlClient(recorder.address) as client, pytest.raises(ControlError) as raised:
        client.status()
    assert raised.value.code is ControlCode.PROTOCOL


def test_client_without_an_answer_times_out_and_names_the_address(serve: Callable[[Answer], FakeRecorder]) -> None:
    recorder = serve(only_starts)
    with impatient(recorder) as client, pytest.raises(ControlError) as raised:
        client.status()
    assert raised.value.code is ControlCode.TIMEOUT
    assert str(raised.value) == f"the recorder at {recorder.address} did not answer within 0.05 s"


def test_client_without_a_recorder_is_unreachable_and_connects_later(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("r")
    with ControlClient(str(directory), timeout_s=0.05) as client:
        with pytest.raises(ControlError, match=f"no recorder at {directory}") as raised:
            client.start()
        assert raised.value.code is ControlCode.UNREACHABLE
        recorder = FakeRecorder(directory, lambda message: [OkReply(getattr(message, "id", 0))])
        with ControlClient(str(directory)) as patient:
            patient.start()
        recorder.close()


def test_client_address_of_no_kind_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        ControlClient("udp://x")


def snapshots(*replies: Callable[[int], Reply]) -> Answer:
    """Sends one reply for the request, and one more at each Credit."""
    left = list(replies)

    def answer(message: Message) -> list[Reply | bytes]:
        match message:
            case SnapshotRequest(id=id_) | Credit(id=id_) if left:
                return [left.pop(0)(id_)]
            case _:
                return []

    return answer


def test_client_snapshot_writes_chunks_as_they_come_and_tops_up(serve: Callable[[Answer], FakeRecorder]) -> None:
    end = SnapshotEnd(1, 5, ("a[1]",))
    recorder = serve(
        snapshots(lambda i: SnapshotChunk(i, 0, b"abc"), lambda i: SnapshotChunk(i, 3, b"de"), lambda i: end)
    )
    parts: list[bytes] = []
    seen: list[int] = []
    with ControlClient(recorder.address) as client:
        got = client.snapshot(
            parts.append, reason="why", last_ns=9, share=True, flush_timeout_s=1, progress=seen.append
        )
    assert (got, parts, seen) == (end, [b"abc", b"de"], [3, 5])
    assert recorder.heard == [SnapshotRequest(1, "why", 9, True, 8, 10**9), Credit(1, 1), Credit(1, 1)]


class Stingy(io.RawIOBase):
    """Takes two bytes at a time."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        taken = bytes(memoryview(data)[:2])  # type: ignore[arg-type]  # any buffer
        self.data += taken
        return len(taken)


def test_client_snapshot_into_a_raw_file_writes_all(serve: Callable[[Answer], FakeRecorder]) -> None:
    recorder = serve(snapshots(lambda i: SnapshotChunk(i, 0, b"abcde"), lambda i: SnapshotEnd(i, 5)))
    file = Stingy()
    with ControlClient(recorder.address) as client:
        client.snapshot(file)  # type: ignore[arg-type]  # a raw file is none of BinaryIO's
    assert file.data == b"abcde"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (lambda i: SnapshotChunk(i, 4, b"x"), "wanted a chunk at 3, got one at 4"),
        (lambda i: SnapshotEnd(i, 4), "wanted 4 bytes, got 3"),
        (OkReply, "wanted chunks, got OkReply"),
    ],
)
def test_client_snapshot_that_does_not_add_up_is_a_protocol_error(
    serve: Callable[[Answer], FakeRecorder], reply: Callable[[int], Reply], said: str
) -> None:
    recorder = serve(snapshots(lambda i: SnapshotChunk(i, 0, b"abc"), reply))
    with ControlClient(recorder.address) as client, pytest.raises(ControlError, match=said) as raised:
        client.snapshot(io.BytesIO())
    assert raised.value.code is ControlCode.PROTOCOL


def test_client_snapshot_whose_writer_fails_is_cancelled(serve: Callable[[Answer], FakeRecorder]) -> None:
    cancelled = threading.Event()

    def answer(message: Message) -> list[Reply | bytes]:
        if isinstance(message, Cancel):
            cancelled.set()
        return [SnapshotChunk(message.id, 0, b"abc")] if isinstance(message, SnapshotRequest) else []

    def fail(data: bytes) -> None:
        raise OSError(28, "disk full")

    recorder = serve(answer)
    with ControlClient(recorder.address) as client:
        with pytest.raises(OSError, match="disk full"):
            client.snapshot(fail)
        assert cancelled.wait(10)
    assert recorder.heard[-1] == Cancel(1)


def test_client_in_threads_takes_turns(serve: Callable[[Answer], FakeRecorder]) -> None:
    recorder = serve(lambda message: [FlushReply(getattr(message, "id", 0))])
    with ControlClient(recorder.address) as client:
        threads = [threading.Thread(target=client.flush) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(getattr(message, "id", 0) for message in recorder.heard) == [1, 2, 3, 4]


def test_client_closed_and_used_again_has_another_identity(serve: Callable[[Answer], FakeRecorder]) -> None:
    recorder = serve(lambda message: [OkReply(getattr(message, "id", 0))])
    client = ControlClient(recorder.address)
    client.start()
    client.close()
    client.start()
    client.close()
    assert len(recorder.peers) == 2


def test_client_whose_other_thread_does_not_come_back_times_out(
    serve: Callable[[Answer], FakeRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(message: Message) -> list[Reply | bytes]:
        if isinstance(message, SnapshotRequest):
            return [SnapshotChunk(message.id, 0, b"x"), SnapshotEnd(message.id, 1)]
        return only_starts(message)

    inside, goes_on = threading.Event(), threading.Event()

    def write(data: bytes) -> None:
        inside.set()
        assert goes_on.wait(10)

    monkeypatch.setattr("frzmq.control.client.SNAPSHOT_S", 0.05)
    recorder = serve(answer)
    client = impatient(recorder)
    slow = threading.Thread(target=client.snapshot, args=(write,))
    slow.start()
    assert inside.wait(10)
    with pytest.raises(ControlError) as raised:
        client.status()
    assert raised.value.code is ControlCode.TIMEOUT
    assert (
        str(raised.value)
        == f"another request of this client to the recorder at {recorder.address} did not end within 0.1 s"
    )
    goes_on.set()
    slow.join(10)
    client.close()
    until(lambda: len(recorder.heard) > 2, "the credit does not come")
    assert [type(message) for message in recorder.heard] == [StartRequest, SnapshotRequest, Credit]
