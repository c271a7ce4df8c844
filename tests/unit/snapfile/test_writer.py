from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from support.snapshots import Stream, event, header_of, to_bytes

from frzmq.snapfile.load import SnapshotFile
from frzmq.snapfile.writer import atomic_file, write_snapshot


def two_streams() -> list[Stream]:
    one = (
        Stream("web", 1)
        .generation(1, [event(10, "a"), event(20, "b", x=1)], at_ns=5)
        .generation(2, [event(30, "c")], at_ns=25)
    )
    two = Stream("db", 2).generation(7, [event(15, "d", writer=3)], at_ns=5)
    return [one, two]


def test_write_snapshot_returns_the_bytes_that_it_wrote() -> None:
    streams = two_streams()
    parts: list[bytes] = []
    size_bytes = write_snapshot(parts.append, header_of(streams), [s.body() for s in streams])
    assert size_bytes == len(b"".join(parts))


def test_write_snapshot_with_fewer_streams_than_its_header_is_refused() -> None:
    streams = two_streams()
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        write_snapshot(lambda _: None, header_of(streams), [streams[0].body()])


def test_write_snapshot_reads_back_as_it_was(tmp_path: Path) -> None:
    streams = two_streams()
    path = tmp_path / "s.frz"
    path.write_bytes(to_bytes(*streams, reason="slow", missing=("db[2]",)))
    with SnapshotFile(path) as file:
        assert file.header == header_of(streams, reason="slow", missing=("db[2]",))
        assert file.problems == []
        for number, stream in enumerate(streams):
            body = stream.body()
            assert [file.body(s).data for s in file.strings(number)] == [b"".join(body.strings)]
            assert [(s.info, file.body(s)) for s in file.generations(number)] == [
                (g.info, type(file.body(file.sections[0]))(b"".join(g.frames))) for g in stream.generations
            ]


def test_atomic_file_is_private_and_has_its_name_at_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "s.frz"
    with atomic_file(path) as file:
        file.write(b"data")
        assert not path.exists()
    assert path.read_bytes() == b"data"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["s.frz"]


def test_atomic_file_after_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_file(tmp_path / "s.frz") as file:
            file.write(b"data")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == []


def test_atomic_file_of_an_existing_name_is_refused_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "s.frz"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError), atomic_file(path):
        pytest.fail("it was opened")
    assert path.read_bytes() == b"old"
    with atomic_file(path, overwrite=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_atomic_file_made_by_somebody_else_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s.frz"

    def write() -> None:
        with atomic_file(path) as file:
            file.write(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        write()
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["s.frz"]


@pytest.mark.parametrize("size_bytes", [1, 1 << 20])
def test_atomic_file_without_room_says_its_name_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    path = tmp_path / "s.frz"
    real = os.open

    def full(name: str, flags: int, mode: int) -> int:
        os.close(real(name, flags, mode))
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(path) as file:
        file.write(bytes(size_bytes))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert os.listdir(tmp_path) == []


def test_atomic_file_in_no_directory_says_the_files_own_name(tmp_path: Path) -> None:
    path = tmp_path / "none" / "s.frz"
    with pytest.raises(FileNotFoundError) as caught, atomic_file(path):
        pass
    assert caught.value.filename == str(path)
