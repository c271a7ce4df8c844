"""The recorder as a process, a tracer by hand, the real control client."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.raw_tracer import RECORD, WRITER, RawTracer
from support.recorder_process import RecorderProcess, recorder_process, start, until_gone

from frzmq.control.client import ControlClient
from frzmq.errors import ControlCode, ControlError
from frzmq.transport.addresses import parse_address
from frzmq.transport.outbound import ClientSocket
from frzmq.wire.batch import BatchType, encode_batch
from frzmq.wire.messages import (
    Cancel,
    Credit,
    ErrorReply,
    Message,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotRequest,
    StatusReply,
    StatusRequest,
    TracerStatus,
    decode_message,
    encode_message,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def recorder(directory: Path) -> Iterator[RecorderProcess]:
    with recorder_process(f"ipc://{directory}") as process:
        yield process


@pytest.fixture
def client(recorder: RecorderProcess) -> Iterator[ControlClient]:
    with ControlClient(recorder.address, timeout_s=10) as made:
        yield made


@pytest.fixture
def tracer(recorder: RecorderProcess) -> Iterator[RawTracer]:
    made = RawTracer(recorder.address)
    yield made
    made.close()


def of(client: ControlClient, tracer: RawTracer) -> TracerStatus:
    return next(status for status in client.status().tracers if status.uuid == tracer.uuid)


class InThread(threading.Thread):
    """Runs ``what`` beside the test; `result` waits for it, and raises what it raised."""

    def __init__(self, what: object) -> None:
        super().__init__(daemon=True)
        self._what = what
        self._result: object = None
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        assert callable(self._what)
        try:
            self._result = self._what()
        except Exception as error:  # noqa: BLE001  # `result` raises it
            self._error = error

    def result(self, *tracers: RawTracer) -> object:
        """Pumps the tracers until it is there."""
        for tracer in tracers:
            tracer.until(lambda: not self.is_alive())
        self.join(30)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


# --- recording and snapshots


def test_flush_brings_what_was_recorded_into_the_snapshot(client: ControlClient, tracer: RawTracer) -> None:
    tracer.record(3)
    tracer.record(4)
    before = tracer.generation
    flushed = InThread(client.flush).result(tracer)
    assert getattr(flushed, "missing", flushed) == ()
    assert tracer.generation > before
    status = of(client, tracer)
    assert (status.state, status.records, status.held, status.missing) == ("live", 7, 7, 0)
    file = io.BytesIO()
    end = InThread(lambda: client.snapshot(file, reason="test")).result(tracer)
    assert (getattr(end, "size_bytes", end), getattr(end, "missing", end)) == (len(file.getvalue()), ())
    assert RECORD * 3 in file.getvalue()
    assert RECORD * 4 in file.getvalue()
    assert client.status().snapshots == 1


def test_flush_mark_is_acknowledged_after_what_was_before_it(client: ControlClient, tracer: RawTracer) -> None:
    tracer.record(5)
    tracer.flush_mark()
    assert of(client, tracer).records == 5


def test_flush_of_a_tracer_without_end_marks_advances_twice(recorder: RecorderProcess, client: ControlClient) -> None:
    tracer = RawTracer(recorder.address, end_marks=False)
    tracer.record(3)
    before = tracer.generation
    flushed = InThread(client.flush).result(tracer)
    assert getattr(flushed, "missing", flushed) == ()
    assert tracer.generation >= before + 2
    assert of(client, tracer).held == 3
    tracer.close()


def test_flush_with_double_advances_twice_in_spite_of_end_marks(client: ControlClient, tracer: RawTracer) -> None:
    before = tracer.generation
    InThread(lambda: client.flush(double=True)).result(tracer)
    assert tracer.generation >= before + 2


def test_flush_with_a_deaf_tracer_ends_and_names_it(client: ControlClient, tracer: RawTracer) -> None:
    tracer.deaf = True
    flushed = InThread(lambda: client.flush(0.3)).result(tracer)
    assert getattr(flushed, "missing", flushed) == (f"raw[{os.getpid()}]",)


def test_snapshot_larger_than_the_credit_arrives_whole(client: ControlClient, tracer: RawTracer) -> None:
    for _ in range(40):
        tracer.record(1, padding=200_000)
    seen: list[int] = []
    file = io.BytesIO()
    end = InThread(lambda: client.snapshot(file, progress=seen.append)).result(tracer)
    assert getattr(end, "size_bytes", end) == len(file.getvalue()) == seen[-1]
    assert len(file.getvalue()) > 8_000_000
    assert len(seen) > 30


def test_snapshot_whose_writer_fails_harms_nobody(client: ControlClient, tracer: RawTracer) -> None:
    tracer.record(1, padding=900_000)

    def fail(data: bytes) -> None:
        raise OSError(28, "disk full")

    with pytest.raises(OSError, match="disk full"):
        InThread(lambda: client.snapshot(fail)).result(tracer)
    file = io.BytesIO()
    InThread(lambda: client.snapshot(file)).result(tracer)
    assert len(file.getvalue()) > 900_000


def test_second_snapshot_while_one_is_made_is_refused_or_shares_it(
    recorder: RecorderProcess, client: ControlClient, tracer: RawTracer
) -> None:
    tracer.record(3)
    tracer.deaf = True
    asked, sharing = RawClient(recorder.address), RawClient(recorder.address)
    asked.ask_first(SnapshotRequest(1, credit=100, timeout_ns=30 * 10**9))
    with pytest.raises(ControlError) as raised:
        client.snapshot(io.BytesIO())
    assert raised.value.code is ControlCode.SNAPSHOT_ACTIVE
    sharing.ask_first(SnapshotRequest(7, credit=100, share=True))
    tracer.deaf = False
    chunk = InThread(asked.answer).result(tracer)
    assert isinstance(chunk, SnapshotChunk)
    assert RECORD * 3 in chunk.data
    assert asked.answer() == SnapshotEnd(1, len(chunk.data))
    assert sharing.answer() == dataclasses.replace(chunk, id=7)
    assert sharing.answer() == SnapshotEnd(7, len(chunk.data))
    asked.socket.close()
    sharing.socket.close()


class RawClient:
    """A control client that gives no credit."""

    def __init__(self, address: str) -> None:
        self.socket = ClientSocket(parse_address(address).control)

    def ask(self, message: Message) -> None:
        assert self.socket.send(encode_message(message), 10_000)

    def ask_first(self, message: Message) -> None:
        """Returns when the recorder has read it."""
        self.ask(message)
        self.ask(StatusRequest(1 << 32))
        assert isinstance(self.answer(), StatusReply)

    def answer(self, timeout_ms: int = 10_000) -> Message | None:
        data = self.socket.receive(timeout_ms)
        return None if data is None else decode_message(data)


def test_snapshot_without_credit_waits_and_holds_up_nobody(
    recorder: RecorderProcess, client: ControlClient, tracer: RawTracer
) -> None:
    for _ in range(10):
        tracer.record(1, padding=200_000)
    slow = RawClient(recorder.address)
    slow.ask(SnapshotRequest(7, credit=2))
    first, second = InThread(slow.answer).result(tracer), slow.answer()
    assert isinstance(first, SnapshotChunk) and isinstance(second, SnapshotChunk)
    assert (first.offset, second.offset) == (0, len(first.data))
    # chunks are sent while the rest is written, and another is refused until then
    tracer.until(lambda: client.status().snapshots == 1)
    file = io.BytesIO()
    InThread(lambda: client.snapshot(file)).result(tracer)
    assert len(file.getvalue()) > 2_000_000
    assert slow.answer(50) is None
    slow.ask(Credit(7, 1))
    third = slow.answer()
    assert isinstance(third, SnapshotChunk) and third.offset == len(first.data) + len(second.data)
    # else the recorder would wait for it at its end, for a while
    slow.ask(Cancel(7))
    slow.socket.close()


def test_snapshot_of_a_client_that_went_away_harms_nobody(
    recorder: RecorderProcess, client: ControlClient, tracer: RawTracer
) -> None:
    for _ in range(20):
        tracer.record(1, padding=200_000)
    gone = RawClient(recorder.address)
    gone.ask(SnapshotRequest(1, credit=1))
    assert isinstance(InThread(gone.answer).result(tracer), SnapshotChunk)
    gone.ask(Credit(1, 1000))
    assert gone.socket.close(50)
    tracer.record(2)
    tracer.flush_mark()
    assert of(client, tracer).records == 42
    tracer.until(lambda: client.status().snapshots == 1)
    file = io.BytesIO()
    InThread(lambda: client.snapshot(file)).result(tracer)
    assert len(file.getvalue()) > 4_000_000


def test_control_garbage_gets_an_error_and_the_recorder_goes_on(
    recorder: RecorderProcess, client: ControlClient
) -> None:
    raw = RawClient(recorder.address)
    assert raw.socket.send(b"\xc1 nonsense", 10_000)
    reply = raw.answer()
    assert isinstance(reply, ErrorReply) and reply.code == ControlCode.BAD_REQUEST.value
    raw.ask(StatusRequest(1))
    assert raw.answer() is not None
    raw.socket.close()
    assert client.status().state == "on"


def test_start_and_stop_out_of_turn_are_state_errors(client: ControlClient) -> None:
    with pytest.raises(ControlError) as raised:
        client.start()
    assert raised.value.code is ControlCode.STATE
    client.stop()
    for refused in (client.stop, client.flush, lambda: client.snapshot(io.BytesIO())):
        with pytest.raises(ControlError) as raised:
            refused()
        assert raised.value.code is ControlCode.STATE
    client.start()
    assert client.status().state == "on"


# --- wrong and dead tracers


def test_forged_nonce_is_rejected_and_counted(client: ControlClient, tracer: RawTracer) -> None:
    header = dataclasses.replace(tracer.header(BatchType.RECORDS, writer=WRITER, count=2), nonce=tracer.nonce ^ 1)
    tracer.tseq -= 1
    tracer.send(encode_batch(header, RECORD * 2))
    tracer.record(3)
    tracer.flush_mark()
    status = of(client, tracer)
    assert (status.state, status.records, status.rejected) == ("live", 3, 2)
    assert client.status().rejected_frames == 1


def test_malformed_batch_of_a_proven_sender_stops_only_it(
    recorder: RecorderProcess, client: ControlClient, tracer: RawTracer
) -> None:
    other = RawTracer(recorder.address, service="other")
    tracer.send(encode_batch(tracer.header(BatchType.RECORDS, writer=WRITER, count=1), RECORD) + b"garbage behind it")
    tracer.until(lambda: tracer.stopped is not None)
    other.record(2)
    other.flush_mark()
    stopped = of(client, tracer)
    assert stopped.state == "stopped"
    assert stopped.error
    assert (of(client, other).state, of(client, other).records) == ("live", 2)
    other.close()


def test_random_bytes_on_every_socket_harm_nobody(
    recorder: RecorderProcess, directory: Path, client: ControlClient, tracer: RawTracer
) -> None:
    for name in ("data", "link", "control"):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(directory / name))
            raw.sendall(os.urandom(9))
    tracer.record(1)
    tracer.flush_mark()
    assert of(client, tracer).records == 1


def test_tracer_whose_lock_is_free_is_dead(recorder: RecorderProcess, directory: Path, client: ControlClient) -> None:
    uuid = os.urandom(16)
    lock = directory / f"{uuid.hex()}.lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl; f = open({str(lock)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"\n"
    tracer = RawTracer(recorder.address, lock=True, uuid=uuid)
    tracer.record(3)
    tracer.flush_mark()
    assert of(client, tracer).state == "live"
    holder.kill()
    holder.communicate()
    tracer.until(lambda: of(client, tracer).state == "dead")
    assert of(client, tracer).held == 3
    tracer.close()


# --- the process


def test_sigterm_removes_sockets_and_lock_and_exits_0(directory: Path) -> None:
    with recorder_process(str(directory)) as recorder:
        assert {path.name for path in directory.iterdir()} == {"data", "link", "control", "lock"}
        assert recorder.end() == (0, "")
    assert list(directory.iterdir()) == []


def test_sigint_ends_a_recorder_that_is_not_embedded(directory: Path) -> None:
    with recorder_process(str(directory)) as recorder:
        assert recorder.end(signal.SIGINT) == (0, "")


def test_sigterm_during_a_snapshot_finishes_it(directory: Path) -> None:
    with recorder_process(str(directory)) as recorder, ControlClient(recorder.address) as client:
        tracer = RawTracer(recorder.address)
        for _ in range(40):
            tracer.record(1, padding=200_000)
        file = io.BytesIO()

        def end_at_the_first_chunk(size_bytes: int) -> None:
            if size_bytes <= 256 << 10:
                recorder.process.send_signal(signal.SIGTERM)

        end = InThread(lambda: client.snapshot(file, progress=end_at_the_first_chunk)).result(tracer)
        assert getattr(end, "size_bytes", end) == len(file.getvalue()) > 8_000_000
        assert recorder.wait() == (0, "")
        tracer.close(0)


def test_second_recorder_in_a_directory_is_refused_in_one_line(
    recorder: RecorderProcess, directory: Path, client: ControlClient
) -> None:
    second = start(str(directory))
    _, said = second.communicate(timeout=20)
    assert second.returncode == 2
    assert said.decode() == f"frzmq recorder: another recorder (pid {recorder.process.pid}) runs in {directory}\n"
    assert client.status().pid == recorder.process.pid


def test_sockets_of_a_killed_recorder_are_replaced(directory: Path) -> None:
    with recorder_process(str(directory)) as killed:
        killed.process.kill()
        killed.wait()
    assert stat.S_ISSOCK((directory / "control").stat().st_mode)
    with recorder_process(str(directory)) as recorder, ControlClient(recorder.address) as client:
        assert client.status().pid == recorder.process.pid


def test_tracer_and_client_outlive_a_restart_of_the_recorder(directory: Path) -> None:
    with ControlClient(str(directory), timeout_s=10) as client:
        with recorder_process(str(directory)):
            first = client.status().boot_id
        with recorder_process(str(directory)):
            assert client.status().boot_id != first


def test_no_recorder_is_unreachable_by_name(directory: Path) -> None:
    with ControlClient(f"ipc://{directory}", timeout_s=0.2) as client, pytest.raises(ControlError) as raised:
        client.status()
    assert raised.value.code is ControlCode.UNREACHABLE
    assert str(directory) in str(raised.value)


def test_tcp_on_loopback_serves() -> None:
    with recorder_process("tcp") as recorder, ControlClient(recorder.address) as client:
        tracer = RawTracer(recorder.address)
        tracer.record(2)
        InThread(client.flush).result(tracer)
        assert of(client, tracer).held == 2
        tracer.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tcp://0.0.0.0:7000"], "--insecure"),
        (["tcp://127.0.0.1"], "with a port"),
        (["/" + "d" * 120], "at most 107 bytes"),
        (["/run/x", "--remove-dir"], "--embedded"),
    ],
)
def test_recorder_that_cannot_serve_says_why_in_one_line_and_exits_2(arguments: list[str], said: str) -> None:
    refused = start(*arguments)
    _, error = refused.communicate(timeout=20)
    assert refused.returncode == 2
    assert said in error.decode()
    assert error.count(b"\n") == 1


def test_embedded_recorder_ends_with_its_program_and_removes_its_directory(directory: Path) -> None:
    mine = directory / "e"
    mine.mkdir(mode=0o700)
    theirs, ours = os.pipe()
    recorder = RecorderProcess(f"ipc://{mine}", "--embedded", "--remove-dir", stdin=theirs)
    os.close(theirs)
    assert os.getsid(recorder.process.pid) == recorder.process.pid
    recorder.process.send_signal(signal.SIGINT)
    with ControlClient(recorder.address) as client:
        assert client.status().pid == recorder.process.pid
    os.close(ours)
    assert recorder.wait() == (0, "")
    until_gone(mine)


def test_lock_of_the_recorder_is_a_record_lock(recorder: RecorderProcess, directory: Path) -> None:
    with open(directory / "lock", "r+") as lock, pytest.raises(BlockingIOError):
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert (directory / "lock").read_text() == f"{recorder.process.pid}\n"
    assert stat.S_IMODE((directory / "lock").stat().st_mode) == 0o600
