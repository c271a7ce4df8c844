"""Programs that record numbered events under load, and what snapshots hold of them, number by number."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from frzmq.control.client import ControlClient
from frzmq.reader.model import Process
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate
from frzmq.wire.messages import TracerStatus
from support.programs import DEADLINE_S, Program
from support.until import until

T = TypeVar("T")

NAMES_EVERY = 50
"""So many events of a thread have one name; then comes another, which was never there before."""

LOAD = """
    import frzmq, mmap, os, sys, threading, time

    side, threads, burst, rest_s, pad = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
    file = os.open(side, os.O_RDWR)
    counts = memoryview(mmap.mmap(file, 512)).cast("Q")
    ends = threading.Event()

    def load(thread):
        n = 0
        while not ends.is_set():
            for n in range(n, n + burst):
                # counted first: a kill between the two leaves one that is not there
                counts[thread] = n + 1
                frzmq.event(f"load {thread} {n // 50}", n=n, thread=thread, pad=pad)
            n += 1
            time.sleep(rest_s)

    frzmq.event("begin")
    started = [threading.Thread(target=load, args=(thread,), daemon=True) for thread in range(threads)]
    for thread in started:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    ends.set()
    for thread in started:
        thread.join()
    print(frzmq.flush(30), flush=True)
    sys.stdin.readline()
"""


class Load:
    """``threads`` threads of a program that records ``burst`` events of ``size_bytes`` and a little each, rests for ``rest_s``, and so on."""

    def __init__(
        self,
        tmp_path: Path,
        address: str,
        *,
        threads: int = 2,
        burst: int = 10,
        rest_s: float = 0.01,
        size_bytes: int = 200,
        **variables: str,
    ) -> None:
        self.threads = threads
        self._side = tmp_path / f"load{time.monotonic_ns()}"
        self._side.write_bytes(bytes(512))
        self.program = Program(
            self._side.with_suffix(".py"),
            LOAD,
            str(self._side),
            str(threads),
            str(burst),
            str(rest_s),
            "x" * size_bytes,
            FRZMQ_RECORDER=address,
            FRZMQ_SERVICE="load",
            **variables,
        )
        assert self.program.line() == "ready", self.program.process.communicate()

    @property
    def pid(self) -> int:
        return self.program.process.pid

    def counts(self) -> list[int]:
        """Events that each thread has recorded, or is about to."""
        return list(memoryview(self._side.read_bytes()).cast("Q")[: self.threads])

    def until_more(self, events: int = 300) -> None:
        """It goes on: so many more of each thread."""
        before = self.counts()
        until(lambda: all(now >= then + events for now, then in zip(self.counts(), before, strict=True)), "it rests")

    def send(self, number: int) -> None:
        self.program.process.send_signal(number)
        if number == signal.SIGSTOP:
            until_stopped(self.pid)

    def finish(self) -> list[int]:
        """Ends the load; all of it is stored, and the program lives. Returns the final counts."""
        self.program.tell("")
        assert self.program.line() == "True", "not all of it was stored"
        return self.counts()

    def close(self) -> None:
        self.program.process.kill()
        self.program.process.communicate(timeout=DEADLINE_S)


class Aside(Generic[T]):
    """``what`` in a thread of its own, begun at once."""

    def __init__(self, what: Callable[[], T]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(what)

    @property
    def done(self) -> bool:
        return self._future.done()

    def result(self) -> T:
        """What it returns, or raises."""
        try:
            return self._future.result(DEADLINE_S)
        finally:
            self._pool.shutdown(wait=False)


def until_stopped(pid: int) -> None:
    """A child: a signal returns before the process feels it."""
    os.waitid(os.P_PID, pid, os.WSTOPPED)


def tracer_of(client: ControlClient, pid: int) -> TracerStatus | None:
    return next((tracer for tracer in client.status().tracers if tracer.pid == pid), None)


def until_state(client: ControlClient, pid: int, state: str) -> None:
    def reached() -> bool:
        tracer = tracer_of(client, pid)
        return tracer is not None and tracer.state == state

    until(reached, f"not {state}")


FLUSH_S = 2.0
"""A snapshot waits for those that do not answer no longer, before it reads their buffers."""


def written(address: str, tmp_path: Path, *, within_s: float = DEADLINE_S, flush_s: float = FLUSH_S) -> Path:
    """A snapshot that was answered in time."""
    path = tmp_path / f"{os.urandom(6).hex()}.frz"
    began = time.monotonic()
    with path.open("xb") as file, ControlClient(address) as client:
        client.snapshot(file, flush_timeout_s=flush_s)
    took_s = time.monotonic() - began
    assert took_s < within_s
    return path


def truthful(path: Path) -> Snapshot:
    """It contradicts itself nowhere, and its ledgers balance."""
    opened = open_snapshot(path)
    errors = [str(finding) for finding in validate(opened) if finding.level is Level.ERROR]
    assert not errors, errors
    assert all(process.ledger.balanced for process in opened.processes)
    return opened


def taken(address: str, tmp_path: Path, *, within_s: float = DEADLINE_S) -> Snapshot:
    return truthful(written(address, tmp_path, within_s=within_s))


def process_of(opened: Snapshot, pid: int) -> Process:
    """The one of this pid, which has one stream."""
    [process] = [process for process in opened.processes if process.pid == pid]
    return process


def numbers(opened: Snapshot, pid: int, threads: int) -> list[list[int]]:
    """By thread: the numbers of the events that are held, in their order. Each has the name that it was given."""
    process = process_of(opened, pid).number
    found: list[list[int]] = [[] for _ in range(threads)]
    for record in opened:
        attributes = record.fields.get("attributes")
        if record.process == process and isinstance(attributes, dict) and "thread" in attributes:
            n, thread = attributes["n"], attributes["thread"]
            assert isinstance(n, int) and isinstance(thread, int)
            assert record.fields["name"] == f"load {thread} {n // NAMES_EVERY}"
            found[thread].append(n)
    return found


def is_run(found: list[int]) -> bool:
    """Ascending, without a hole or a duplicate."""
    return not found or found == [*range(found[0], found[-1] + 1)]
