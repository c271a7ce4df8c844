"""Memory, threads and descriptors of recorder and tracers stay within what follows from their configuration, whatever the other side does."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgpack
import pytest
import zmq
from support.bounds import (
    CLIENT_BYTES,
    MIB,
    OWN_BYTES,
    Usage,
    assert_within,
    idle_share,
    recorder_bounds,
    tracer_bounds,
)
from support.left_behind import Places
from support.programs import Program
from support.raw_tracer import RawTracer
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

from frzmq.config import RecorderConfig
from frzmq.control.client import ControlClient
from frzmq.tracer.choice import native
from frzmq.transport.sockets import close_all, new_context
from frzmq.wire.batch import BatchType, encode_batch
from frzmq.wire.messages import SnapshotRequest, encode_message

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")

CONFIG = RecorderConfig(max_bytes=24 * MIB)
DEADLINE_S = 20.0


@pytest.fixture
def directory(places: Places) -> Iterator[str]:
    """In memory, where there is such a place: the buffers in it are."""
    with tempfile.TemporaryDirectory(dir=places.runtime) as path:
        yield path


@pytest.fixture
def recorder(directory: str) -> Iterator[RecorderProcess]:
    with recorder_process(directory, "--max-bytes", str(CONFIG.max_bytes)) as process:
        yield process


def idle(recorder: RecorderProcess) -> Usage:
    """After a first request: what it loads for that is loaded."""
    with ControlClient(recorder.address) as client:
        client.status()
    return Usage.of(recorder.process.pid)


class Flood:
    """Tracers, each in a thread, that send as much as is taken: batches of ``size`` bytes, with names that never come back."""

    def __init__(self, address: str, tracers: int, size: int) -> None:
        self.sent_bytes = [0] * tracers
        self._address, self._size = address, size
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(tracers)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        tracer = RawTracer(self._address, service=f"flood{number}")
        names = 1
        while not self._ends.is_set():
            tracer.pump(0)
            body = b"".join(msgpack.packb(f"name {number} {n}") for n in range(names, names + 50))
            header = tracer.header(BatchType.STRINGS, first_index=names, count=50, generation=0)
            tracer.send(encode_batch(header, body))
            tracer.record(1, padding=self._size)
            self.sent_bytes[number] += self._size
            names += 50
        tracer.goodbye()
        tracer.close()

    def until_sent(self, size_bytes: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while sum(self.sent_bytes) < size_bytes:
            assert time.monotonic() < deadline, f"sent {self.sent_bytes}"
            assert all(thread.is_alive() for thread in self._threads)
            time.sleep(0.01)

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


@contextmanager
def flood(address: str, tracers: int, size: int) -> Iterator[Flood]:
    made = Flood(address, tracers, size)
    try:
        yield made
    finally:
        made.end()


def fill(address: str, size_bytes: int) -> None:
    """At a pace that the recorder keeps: of a flood all may be late, for it comes faster than new generations are asked for."""
    tracer = RawTracer(address, service="filled")
    for n in range(size_bytes // (200 << 10)):
        tracer.record(1, padding=200 << 10)
        if n % 5 == 4:
            tracer.flush_mark()
    tracer.goodbye()
    tracer.close()


DEAF = 7
SNAPSHOTS = 5


class Deaf:
    """A client that asks for a snapshot, with all the credit there is, and reads nothing."""

    def __init__(self, address: str, reason: str) -> None:
        self._context = new_context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 1)
        self._socket.connect(f"ipc://{address}/control")
        request = SnapshotRequest(1, reason, share=True, credit=(1 << 16) - 1, timeout_ns=10**9)
        self._socket.send(encode_message(request))

    def close(self) -> None:
        assert close_all(self._context, [self._socket], 0)


@pytest.mark.parametrize(("size", "sent_bytes"), [(4 << 10, 30 * MIB), (200 << 10, 400 * MIB)])
def test_recorder_under_overload_with_snapshots_under_way_stays_in_its_bounds(
    recorder: RecorderProcess, size: int, sent_bytes: int
) -> None:
    before = idle(recorder)
    with flood(recorder.address, 6, size) as load, ExitStack() as stack:
        for part in range(1, SNAPSHOTS + 1):
            load.until_sent(part * sent_bytes // SNAPSHOTS)
            stack.callback(Deaf(recorder.address, f"deaf{part}").close)
            with ControlClient(recorder.address) as client:
                # of those that never pause one may not be sealed in time: it is named
                client.snapshot(lambda _: None, flush_timeout_s=0.5, share=True)
        wanted = recorder_bounds(CONFIG, tracers=6, clients=SNAPSHOTS + 1, snapshots=1)
        assert_within(recorder.process.pid, before, wanted)
    with ControlClient(recorder.address) as client:
        assert client.status().held_bytes <= CONFIG.max_bytes + 2 * CONFIG.max_generation_bytes


def test_recorder_with_clients_that_do_not_read_stays_in_its_bounds(recorder: RecorderProcess) -> None:
    before = idle(recorder)
    # no flood before: the memory that it leaves to the allocator would be what the clients take
    fill(recorder.address, 16 * MIB)
    filled_bytes = Usage.of(recorder.process.pid).peak_bytes
    with ExitStack() as stack, ControlClient(recorder.address) as client:
        for n in range(DEAF):
            stack.callback(Deaf(recorder.address, f"deaf{n}").close)
        # one more, which reads: by then each of the others has got what its connection takes
        assert client.snapshot(lambda _: None, share=True).size_bytes > 2 * CLIENT_BYTES
        now = assert_within(
            recorder.process.pid, before, recorder_bounds(CONFIG, tracers=1, clients=DEAF + 1, snapshots=1)
        )
        took_bytes = now.peak_bytes - filled_bytes
        assert DEAF * CLIENT_BYTES // 2 < took_bytes <= (DEAF + 1) * CLIENT_BYTES + OWN_BYTES


PROGRAM = """
    import sys, threading, time
    import frzmq

    def work(number, end):
        n = 0
        while time.monotonic() < end:
            for _ in range(100):
                n += 1
                with frzmq.span(f"{number} {n}" if number else "span"):
                    frzmq.event("event", n=n, text="x" * 50)

    def told(said):
        print(said, flush=True)
        return sys.stdin.readline()

    threading.Thread(target=time.sleep, args=(0,)).start()
    told("idle")
    while seconds := float(told("ready")):
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=work, args=(n, end)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
"""
NAMES = 64 << 10
"""Of eight bytes each: more do not go into the largest table."""


@pytest.mark.parametrize("recorder_is", ["absent", "stopped", "slow", "there"])
@pytest.mark.parametrize(
    ("kind", "buffer_bytes"),
    [("py", MIB), pytest.param("c", 2 * MIB, marks=pytest.mark.skipif(native is None, reason="no native buffer"))],
)
def test_tracer_stays_in_its_bounds_whatever_its_recorder_does(
    tmp_path: Path, directory: str, kind: str, recorder_is: str, buffer_bytes: int
) -> None:
    variables = {
        "FRZMQ_RECORDER": directory,
        "FRZMQ_RUNTIME_DIR": directory,
        "FRZMQ_BUFFER": kind,
        "FRZMQ_BUFFER_BYTES": str(buffer_bytes),
    }
    with ExitStack() as stack:
        process = stack.enter_context(recorder_process(directory)).process if recorder_is != "absent" else None
        program = Program(tmp_path / "program.py", PROGRAM, **variables)
        assert program.line() == "idle"
        before = Usage.of(program.process.pid)
        program.tell("go")
        assert program.line() == "ready"
        if process is not None and recorder_is == "stopped":
            program.tell("0.1")
            assert program.line() == "ready"
            process.send_signal(signal.SIGSTOP)
            stack.callback(process.send_signal, signal.SIGCONT)
        # as much as would not go unnoticed if it stayed
        program.tell("2.5" if recorder_is == "there" and kind == "c" else "0.5")
        if process is not None and recorder_is == "slow":
            stack.callback(slowed(process))
        assert program.line() == "ready"
        now = assert_within(program.process.pid, before, tracer_bounds(buffer_bytes, names=NAMES))
        assert now.shared_bytes <= buffer_bytes
        # who has nothing to do does nothing, once all is shipped: it does not spin for a recorder that is not there
        until(lambda: recorder_is == "slow" or idle_share(program.process.pid) < 0.2, "a program that rests")
        program.tell("0")
        stack.close()
        program.end()


def slowed(process: subprocess.Popen[bytes]) -> Callable[[], None]:
    """It runs a tenth of the time, until what is returned is called."""
    ends = threading.Event()

    def run() -> None:
        while not ends.wait(0.01):
            process.send_signal(signal.SIGSTOP)
            ends.wait(0.1)
            process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end() -> None:
        ends.set()
        thread.join(DEADLINE_S)

    return end
