"""No room on the disk, or no right to write to it, while a snapshot is made: at the client, and in each place where the recorder itself writes."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest
from support.places import (
    PlacedRecorder,
    frzmq,
    kill,
    placed_recorder,
    recorder_to_kill,
    started,
    with_limit,
    with_mounts,
)
from support.programs import Program
from support.until import until

from frzmq.control.client import ControlClient
from frzmq.errors import ControlCode, ControlError
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate
from frzmq.recorder.incidents import MIN_GAP_NS

RECORDS = 3000
DISK_BYTES = 2 << 20
PROGRAM = """
    import logging, sys
    import frzmq

    logging.basicConfig(format="%(message)s")
    frzmq.start(service="shop", recorder=sys.argv[1], threads=False)
    for n in range(3000):
        frzmq.event("n", n=n, pad="x" * 200)
    print(frzmq.flush(20), flush=True)
    for line in sys.stdin:
        try:
            with frzmq.operation("bad"):
                raise ZeroDivisionError
        except ZeroDivisionError:
            print("failed", flush=True)
"""


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of the recorder: short, as a socket's path must be."""
    path = Path(f"/tmp/fz{os.urandom(4).hex()}")
    yield path
    if path.exists():
        for left in path.iterdir():
            left.unlink()
        path.rmdir()


@pytest.fixture
def recorder(directory: Path) -> Iterator[PlacedRecorder]:
    with placed_recorder((), str(directory), "--no-death-snapshots") as process:
        yield process


@pytest.fixture
def program(recorder: PlacedRecorder, tmp_path: Path) -> Iterator[Program]:
    with recorded(recorder, tmp_path) as process:
        yield process


@contextlib.contextmanager
def recorded(recorder: PlacedRecorder, tmp_path: Path) -> Iterator[Program]:
    """A program of which the recorder has RECORDS records, some 600 KiB."""
    with started(tmp_path / "shop.py", PROGRAM, recorder.address) as process:
        assert process.line() == "True"
        yield process


def whole(path: Path) -> Snapshot:
    """Everything of the one program, and nothing wrong with it."""
    opened = open_snapshot(path)
    assert [str(finding) for finding in validate(opened)] == []
    assert [event.attributes["n"] for event in opened.events] == [*range(RECORDS)]
    return opened


def taken(recorder: PlacedRecorder, tmp_path: Path) -> Snapshot:
    path = tmp_path / f"{time.monotonic_ns()}.frz"
    done = frzmq("snapshot", recorder.address, "-o", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    return whole(path)


def listed(place: Sequence[str], directory: Path) -> Sequence[str]:
    """``place``, and at the end what is in ``directory`` there, a line each, on standard output."""
    return (*place, "sh", "-c", '"$@"; code=$?; ls -A "$0"; exit $code', str(directory))


# --- the client's file


def check_client(
    recorder: PlacedRecorder, tmp_path: Path, place: Sequence[str], target: Path, why: str, *arguments: str
) -> None:
    """It fails in one line that names the file; of that nothing is left."""
    done = frzmq("snapshot", recorder.address, "-o", str(target), *arguments, prefix=listed(place, target.parent))
    assert (done.returncode, done.stderr) == (2, f"frzmq: {target}: {why}\n")
    assert done.stdout == ""
    taken(recorder, tmp_path)
    with ControlClient(recorder.address) as client:
        assert client.status().errors == ()


@pytest.mark.usefixtures("program")
def test_client_on_a_full_disk_leaves_no_part_of_a_file_and_says_which(
    recorder: PlacedRecorder, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    place = with_mounts(f"-t tmpfs -o size=64k tmpfs {tmp_path}/disk")
    check_client(recorder, tmp_path, place, tmp_path / "disk" / "s.frz", "No space left on device")


@pytest.mark.usefixtures("program")
def test_client_beyond_its_file_size_limit_leaves_no_part_of_a_file_and_says_which(
    recorder: PlacedRecorder, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    check_client(recorder, tmp_path, with_limit(fsize=100_000), tmp_path / "disk" / "s.frz", "File too large")


@pytest.mark.usefixtures("program")
def test_client_in_a_directory_that_is_read_only_says_which_file_it_cannot_make(
    recorder: PlacedRecorder, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    place = with_mounts(f"-t tmpfs -o size=4m,ro tmpfs {tmp_path}/disk")
    check_client(recorder, tmp_path, place, tmp_path / "disk" / "s.frz", "Read-only file system")


@pytest.mark.usefixtures("program")
def test_client_that_overwrites_on_a_full_disk_leaves_the_old_file_as_it_was(
    recorder: PlacedRecorder, tmp_path: Path
) -> None:
    target = tmp_path / "old.frz"
    target.write_text("the only one")
    done = frzmq("snapshot", recorder.address, "-f", "-o", str(target), prefix=with_limit(fsize=100_000))
    assert (done.returncode, done.stderr) == (2, f"frzmq: {target}: File too large\n")
    assert target.read_text() == "the only one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.frz", "shop.py"]


@pytest.mark.usefixtures("program")
def test_client_whose_standard_output_is_full_says_so(recorder: PlacedRecorder, tmp_path: Path) -> None:
    done = frzmq("snapshot", recorder.address, "-o", "-", prefix=("sh", "-c", 'exec "$0" "$@" > /dev/full'))
    assert (done.returncode, done.stderr) == (2, "frzmq: standard output: No space left on device\n")
    taken(recorder, tmp_path)


# --- the recorder's own


class Disk:
    """A tmpfs that only the recorder sees, which may be filled up and made read-only from here."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.path = directory
        self.place = with_mounts(f"-t tmpfs -o size={DISK_BYTES} tmpfs {directory}")
        self.recorder: PlacedRecorder | None = None

    @property
    def seen(self) -> Path:
        assert self.recorder is not None
        return Path(f"/proc/{self.recorder.process.pid}/root{self.path}")

    def fill(self) -> None:
        with (self.seen / "filler").open("wb", 0) as file:
            while not self._is_full(file):
                pass

    @staticmethod
    def _is_full(file: IO[bytes]) -> bool:
        try:
            return not file.write(bytes(4096))
        except OSError as error:
            return error.errno == errno.ENOSPC

    def empty(self) -> None:
        (self.seen / "filler").unlink()

    def protect(self) -> None:
        self._remount("ro")

    def unprotect(self) -> None:
        self._remount("rw")

    def _remount(self, how: str) -> None:
        assert self.recorder is not None
        options = ("--target", str(self.recorder.process.pid), "--mount", "--")
        command = ("nsenter", *options, "mount", "-o", f"remount,{how}", str(self.path))
        assert os.spawnvp(os.P_WAIT, "nsenter", command) == 0

    def names(self) -> list[str]:
        return sorted(path.name for path in self.seen.iterdir())


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "disk")


def errors(recorder: PlacedRecorder) -> tuple[str, ...]:
    with ControlClient(recorder.address) as client:
        return client.status().errors


@pytest.mark.parametrize(
    ("hurt", "heal", "why"),
    [
        (Disk.fill, Disk.empty, "its temporary file in {}: No space left on device"),
        (Disk.protect, Disk.unprotect, "no temporary file in {}: Read-only file system"),
    ],
    ids=["full", "read-only"],
)
def test_recorder_without_room_for_its_temporary_file_says_so_and_goes_on(
    disk: Disk, directory: Path, tmp_path: Path, hurt: Callable[[Disk], None], heal: Callable[[Disk], None], why: str
) -> None:
    with (
        placed_recorder(disk.place, str(directory), "--no-death-snapshots", TMPDIR=str(disk.path)) as recorder,
        recorded(recorder, tmp_path),
    ):
        disk.recorder = recorder
        taken(recorder, tmp_path)
        hurt(disk)
        said = why.format(disk.path)
        began = time.monotonic()
        done = frzmq("snapshot", recorder.address, "-o", str(tmp_path / "s.frz"))
        assert (done.returncode, done.stderr) == (1, f"frzmq: snapshot: {said}\n")
        assert time.monotonic() - began < 10
        assert not list(tmp_path.glob("s.frz*"))
        assert errors(recorder) == (f"snapshot 2: {said}",)
        heal(disk)
        taken(recorder, tmp_path)
        assert disk.names() == []


def test_recorder_without_room_for_a_triggers_snapshot_says_so_and_takes_the_next(
    disk: Disk, directory: Path, tmp_path: Path
) -> None:
    where = ("--snapshots", str(disk.path), "--trigger", "error cooldown=1h")
    with placed_recorder(disk.place, str(directory), *where) as recorder, recorded(recorder, tmp_path) as program:
        disk.recorder = recorder
        disk.fill()
        program.tell("fail")
        assert program.line() == "failed"
        until(lambda: errors(recorder), "an error in the status")
        [said] = errors(recorder)
        assert said.startswith(f"snapshot of a trigger: {disk.path}/frzmq-")
        assert said.endswith("-shop-error.frz: No space left on device")
        assert disk.names() == ["filler"]
        disk.empty()
        # the program has heard of it, and lives
        program.tell("fail")
        assert program.line() == "failed"
        with ControlClient(recorder.address) as client:
            assert client.flush().missing == ()
            kill(program.process)
            until(lambda: client.status().stored == 1, "that its death is stored")
        [name] = disk.names()
        assert name.endswith("-shop-death.frz")
        opened = open_snapshot(disk.seen / name)
        assert [str(finding) for finding in validate(opened) if finding.level is Level.ERROR] == []
        assert [(p.state, p.ledger.lost) for p in opened.processes] == [("dead", 0)]
        assert [o.name for o in opened.operations] == ["bad", "bad"]
        assert len(opened.events) == RECORDS
        assert [log.message.partition(": ")[0] for log in opened.logs] == ["no snapshot"]


@pytest.mark.long
def test_recorder_without_room_for_a_deaths_snapshot_says_so_and_takes_the_next(
    disk: Disk, directory: Path, tmp_path: Path
) -> None:
    with placed_recorder(disk.place, str(directory), "--snapshots", str(disk.path)) as recorder:
        disk.recorder = recorder
        disk.fill()
        for n in range(2):
            (tmp_path / str(n)).mkdir()
            with recorded(recorder, tmp_path / str(n)) as program:
                kill(program.process)
                if n == 0:
                    until(lambda: errors(recorder), "an error in the status")
                    disk.empty()
                    # another death so soon makes no snapshot of its own
                    time.sleep(MIN_GAP_NS / 1e9)
        until(disk.names, "a snapshot")
        with ControlClient(recorder.address) as client:
            until(lambda: client.status().stored == 1, "that it is stored")
        [said] = errors(recorder)
        assert said.startswith(f"snapshot of a trigger: {disk.path}/frzmq-")
        assert said.endswith("-shop-death.frz: No space left on device")
        [name] = disk.names()
        opened = open_snapshot(disk.seen / name)
        # the first one's last moments are in it too
        assert [(p.state, p.ledger.lost) for p in opened.processes] == [("dead", 0)] * 2
        assert len(opened.events) == 2 * RECORDS


def test_recorder_that_begins_without_room_for_what_dead_processes_left_leaves_it_for_the_next(
    disk: Disk, directory: Path, tmp_path: Path
) -> None:
    where = (str(directory), "--snapshots", str(disk.path))
    with recorder_to_kill(*where) as killed, recorded(killed, tmp_path) as program:
        kill(killed.process)
        kill(program.process)
    left = sorted(path.name for path in directory.glob("*.buf"))
    assert len(left) == 1
    full = with_mounts(f"-t tmpfs -o size=64k tmpfs {disk.path}")
    said = f"what dead processes left: {disk.path}/frzmq-"
    with placed_recorder(full, *where, said=(said,)) as recorder:
        assert recorder.process.stderr is not None
        assert recorder.process.stderr.readline().decode().endswith("-recovered.frz: No space left on device\n")
        assert sorted(path.name for path in directory.glob("*.buf")) == left
    with placed_recorder(disk.place, *where, said=("what dead processes left is in ",)) as recorder:
        disk.recorder = recorder
        until(lambda: not list(directory.glob("*.buf")), "that it is taken")
        [name] = disk.names()
        assert len(open_snapshot(disk.seen / name).events) > 0


def test_recorder_that_ends_while_its_disk_is_full_ends_well(disk: Disk, directory: Path, tmp_path: Path) -> None:
    with placed_recorder(disk.place, str(directory), "--no-death-snapshots", TMPDIR=str(disk.path)) as recorder:
        disk.recorder = recorder
        with recorded(recorder, tmp_path):
            # which directory is used is found out at the first one
            taken(recorder, tmp_path)
            disk.fill()
            with ControlClient(recorder.address) as client, pytest.raises(ControlError) as caught:
                client.snapshot(lambda _: None)
            assert caught.value.code is ControlCode.SNAPSHOT_FAILED
