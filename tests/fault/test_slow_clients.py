"""Clients that take a snapshot slowly, or go away in the midst of it: recording goes on, others are served, memory is bounded, and the slow are cut off."""

from __future__ import annotations

import contextlib
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import support.quick_recorder
from support.loads import Aside, Load, numbers, process_of, taken, until_state
from support.raw_tracer import RawTracer
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.transport.addresses import parse_address
from frzmq.transport.outbound import ClientSocket
from frzmq.transport.sockets import CONTROL_HWM
from frzmq.wire.messages import (
    MAX_CHUNK_BYTES,
    Credit,
    ErrorReply,
    Message,
    SnapshotChunk,
    SnapshotRequest,
    decode_message,
    encode_message,
)

LARGE = ("--max-bytes", "128M", "--min-age", "1h", "--no-death-snapshots")
CLIENT_S = 5.0
"""How long a snapshot may take a client of a recorder with little patience."""
IDLE_S = 2.5
"""And how long without progress."""
RING_BYTES = 40 << 20
"""More than the buffers of a socket hold."""
SLACK_BYTES = 16 << 20
"""What the allocator and a thread more may take."""


def impatient(address: str, idle_s: float) -> contextlib.AbstractContextManager[RecorderProcess]:
    program = (str(Path(support.quick_recorder.__file__)), "10", str(CLIENT_S), str(idle_s))
    return recorder_process(address, *LARGE, program=program)


@pytest.fixture(params=["ipc", pytest.param("tcp", marks=pytest.mark.long)])
def address(request: pytest.FixtureRequest, directory: Path) -> str:
    return str(directory) if request.param == "ipc" else "tcp"


@pytest.fixture
def recorder(address: str) -> Iterator[RecorderProcess]:
    with impatient(address, IDLE_S) as process:
        yield process


def fill(recorder: RecorderProcess, size_bytes: int) -> None:
    """The ring with so much."""
    tracer = RawTracer(recorder.address)
    for _ in range(size_bytes // 250_000):
        tracer.record(padding=250_000)
    tracer.flush_mark()
    tracer.goodbye()
    with ControlClient(recorder.address) as client:
        until(lambda: client.status().held_bytes > size_bytes // 2, "it is not there")
        until(lambda: all(t.state == "gone" for t in client.status().tracers), "it does not leave")
    tracer.close()


def files(recorder: RecorderProcess) -> int:
    """Spool files that it holds open: they have no name."""
    found = 0
    for entry in Path(f"/proc/{recorder.process.pid}/fd").iterdir():
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue
        found += stat.S_ISREG(status.st_mode) and status.st_nlink == 0
    return found


class SlowSocket:
    """Enough of ZMTP 3.0, on a socket of the system, for a DEALER that reads as slowly as it likes."""

    def __init__(self, address: str) -> None:
        control = parse_address(address).control
        if control.startswith("ipc://"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(control.removeprefix("ipc://"))
        else:
            host, port = control.removeprefix("tcp://").rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(10)
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        assert len(self.exactly(64)) == 64
        ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        self.socket.sendall(b"\x04" + bytes([len(ready)]) + ready)
        flags, size = self.exactly(2)
        assert flags == 4
        assert self.exactly(size).startswith(b"\x05READY")

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, "closed"
            data += more
        return data

    def close(self) -> None:
        self.socket.close()

    def say(self, message: Message) -> None:
        data = encode_message(message)
        assert len(data) < 256
        self.socket.sendall(b"\x00" + bytes([len(data)]) + data)


def check_goes_on(recorder: RecorderProcess, tmp_path: Path, load: Load) -> None:
    """Another client is served in time, with the truth, and nothing was lost."""
    load.until_more()
    opened = taken(recorder.address, tmp_path, within_s=15)
    assert all(found == [*range(len(found))] for found in numbers(opened, load.pid, load.threads))
    assert process_of(opened, load.pid).ledger.lost == 0


def check_byte_a_second(recorder: RecorderProcess, tmp_path: Path, idle_s: float) -> None:
    fill(recorder, RING_BYTES)
    load = Load(tmp_path, recorder.address)
    try:
        with ControlClient(recorder.address) as client:
            until_state(client, load.pid, "live")
        check_goes_on(recorder, tmp_path, load)
        before_bytes = recorder.rss_bytes()
        with contextlib.closing(SlowSocket(recorder.address)) as slow:
            began = time.monotonic()
            slow.say(SnapshotRequest(1, credit=60_000))
            until(lambda: files(recorder), "no snapshot was begun")
            check_goes_on(recorder, tmp_path, load)
            # the client's slowness, and no wait for anything
            while files(recorder):
                assert time.monotonic() - began < idle_s + 15, "it waits for ever"
                slow.exactly(1)
                time.sleep(1)
            assert time.monotonic() - began > idle_s
            grown_bytes = recorder.rss_bytes() - before_bytes
            assert grown_bytes < CONTROL_HWM * MAX_CHUNK_BYTES + SLACK_BYTES
            check_goes_on(recorder, tmp_path, load)
    finally:
        load.close()


def test_client_that_reads_a_byte_a_second_is_cut_off_and_holds_up_nobody(
    recorder: RecorderProcess, tmp_path: Path
) -> None:
    check_byte_a_second(recorder, tmp_path, IDLE_S)


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["ipc", "tcp"])
def test_client_that_reads_a_byte_a_second_is_cut_off_after_30_s(tmp_path: Path, directory: Path, way: str) -> None:
    with recorder_process(str(directory) if way == "ipc" else "tcp", *LARGE) as recorder:
        check_byte_a_second(recorder, tmp_path, 30)


def test_client_that_gives_a_credit_a_second_is_served_until_its_time_is_over(address: str, tmp_path: Path) -> None:
    # progress may be late for as long as a machine is busy: it is the whole that counts
    with impatient(address, 60) as recorder:
        check_credit_a_second(recorder, tmp_path)


def check_credit_a_second(recorder: RecorderProcess, tmp_path: Path) -> None:
    fill(recorder, 4 << 20)
    load = Load(tmp_path, recorder.address)
    slow = ClientSocket(parse_address(recorder.address).control)
    try:
        with ControlClient(recorder.address) as client:
            until_state(client, load.pid, "live")
        assert slow.send(encode_message(SnapshotRequest(1, credit=1)), 10_000)
        began = time.monotonic()
        others = Aside(lambda: check_goes_on(recorder, tmp_path, load))
        chunks = 0
        while True:
            data = slow.receive(10_000)
            assert data is not None
            message = decode_message(data)
            if isinstance(message, ErrorReply):
                break
            assert isinstance(message, SnapshotChunk) and message.offset == chunks * MAX_CHUNK_BYTES
            chunks += 1
            time.sleep(1)
            assert slow.send(encode_message(Credit(1, 1)), 0)
        took_s = time.monotonic() - began
        others.result()
        assert message.code == "snapshot_failed"
        assert message.message == "snapshot: the client took nothing for too long"
        assert CLIENT_S - 1 < took_s < CLIENT_S + 20
        assert 2 <= chunks <= CLIENT_S + 1
        assert files(recorder) == 0
    finally:
        slow.close()
        load.close()


def test_clients_gone_in_mid_snapshot_leave_nothing_behind(recorder: RecorderProcess, tmp_path: Path) -> None:
    fill(recorder, 4 << 20)
    load = Load(tmp_path, recorder.address)
    try:
        with ControlClient(recorder.address) as client:
            until_state(client, load.pid, "live")
        check_goes_on(recorder, tmp_path, load)
        before_bytes = recorder.rss_bytes()
        for n in range(10):
            take_a_chunk_and_go(recorder, n)
        until(lambda: not files(recorder), "a file stays open", CLIENT_S + 10)
        check_goes_on(recorder, tmp_path, load)
        assert recorder.rss_bytes() - before_bytes < 2 * SLACK_BYTES
    finally:
        load.close()


def take_a_chunk_and_go(recorder: RecorderProcess, id_: int) -> None:
    """With credit for all of it."""
    client = ClientSocket(parse_address(recorder.address).control)

    def begins() -> bool:
        assert client.send(encode_message(SnapshotRequest(id_, credit=1)), 10_000)
        data = client.receive(10_000)
        assert data is not None
        return isinstance(decode_message(data), SnapshotChunk)

    try:
        # until the snapshot before is written another is refused
        until(begins, "no chunk came")
        assert client.send(encode_message(Credit(id_, 60_000)), 10_000)
    finally:
        client.close(0)
