"""Shared memory that is full: when a program begins, and while it runs. Buffers fall back, the status says so, nothing dies of SIGBUS."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import PlacedRecorder, placed_recorder, started, with_mounts
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate
from frzmq.wire.messages import TracerStatus

PROGRAM = """
    import sys
    import frzmq
    from frzmq.tracer import runtime

    runtime.END_S = 20.0  # all are to say goodbye, on a busy machine too
    frzmq.start(service=sys.argv[2], recorder=sys.argv[1])
    n = 0
    while True:
        for _ in range(5_000):
            frzmq.event("n", n=n)
            n += 1
            if n % 500 == 0 and not frzmq.flush(20):
                sys.exit("not flushed")
        print(n, flush=True)
        if sys.stdin.readline() == "end\\n":
            break
"""


class Memory:
    """A tmpfs of 6 MiB, seen by the processes that are started in ``place``; the recorder serves in it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self.place = with_mounts(f"-t tmpfs -o size=6m,mode=0700 tmpfs {directory}")
        self.recorder: PlacedRecorder | None = None

    @property
    def pid(self) -> int:
        assert self.recorder is not None
        return self.recorder.process.pid

    @property
    def inside(self) -> tuple[str, ...]:
        """The recorder's place, for others."""
        return ("nsenter", "--target", str(self.pid), "--mount", "--")

    @property
    def filler(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.path}/filler")

    def fill(self) -> None:
        with self.filler.open("wb", 0) as file:
            at, size = 0, 1 << 20
            while size >= 4096:
                try:
                    os.posix_fallocate(file.fileno(), at, size)
                    at += size
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, as a socket's path must be."""
    path = Path(f"/tmp/fz{os.urandom(4).hex()}")
    path.mkdir(mode=0o700)
    yield path
    path.rmdir()


@pytest.fixture
def memory(directory: Path) -> Iterator[Memory]:
    made = Memory(directory)
    with placed_recorder(made.place, str(directory), "--no-death-snapshots") as recorder:
        made.recorder = recorder
        yield made


def status(memory: Memory) -> dict[str, TracerStatus]:
    with ControlClient(f"/proc/{memory.pid}/root{memory.path}") as client:
        return {tracer.service: tracer for tracer in client.status().tracers}


def taken(memory: Memory, path: Path) -> Snapshot:
    with path.open("xb") as file, ControlClient(f"/proc/{memory.pid}/root{memory.path}") as client:
        assert client.snapshot(file).missing == ()
    opened = open_snapshot(path)
    assert [str(finding) for finding in validate(opened) if finding.level is Level.ERROR] == []
    return opened


def numbers(opened: Snapshot, service: str) -> list[object]:
    numbers = {process.number for process in opened.processes if process.service == service}
    return [event.attributes["n"] for event in opened.events if event.process in numbers]


def test_shared_memory_that_fills_up_while_a_program_runs_harms_neither_it_nor_the_next(
    memory: Memory, tmp_path: Path
) -> None:
    address = str(memory.path)
    with started(tmp_path / "first.py", PROGRAM, address, "first", prefix=memory.inside) as first:
        assert first.line() == "5000"
        memory.fill()
        # its buffer is all there: each of its pages is written again
        first.tell("more")
        assert first.line() == "10000"
        during = taken(memory, tmp_path / "during.frz")
        assert numbers(during, "first") == [*range(10_000)]
        with started(tmp_path / "second.py", PROGRAM, address, "second", prefix=memory.inside) as second:
            assert second.line() == "5000"
            found = {name: (t.buffer_kind.partition(" ")[2], t.buffer_bytes) for name, t in status(memory).items()}
            assert found == {"first": ("", 4 << 20), "second": ("private", 4 << 20)}
            opened = taken(memory, tmp_path / "full.frz")
            assert numbers(opened, "second") == [*range(5_000)]
            assert opened.ledger.lost == 0
            second.tell("end")
            second.end()
        memory.filler.unlink()
        with started(tmp_path / "third.py", PROGRAM, address, "third", prefix=memory.inside) as third:
            assert third.line() == "5000"
            # half of what it wanted is free beside the first one's
            assert (status(memory)["third"].buffer_kind.partition(" ")[2], status(memory)["third"].buffer_bytes) == (
                "",
                1 << 20,
            )
            third.tell("end")
            third.end()
        first.tell("end")
        first.end()
        until(lambda: {t.state for t in status(memory).values()} == {"gone"}, "that all have said goodbye")


def test_recorder_that_begins_where_shared_memory_is_full_serves(directory: Path, tmp_path: Path) -> None:
    full = with_mounts(f"-t tmpfs -o size=4k,mode=0700 tmpfs {directory}")
    with placed_recorder(full, str(directory), "--no-death-snapshots") as recorder:
        memory = Memory(directory)
        memory.recorder = recorder
        with started(tmp_path / "only.py", PROGRAM, str(directory), "only", prefix=memory.inside) as program:
            assert program.line() == "5000"
            assert status(memory)["only"].buffer_kind.endswith(" private")
            assert numbers(taken(memory, tmp_path / "s.frz"), "only") == [*range(5_000)]
            program.tell("end")
            program.end()
