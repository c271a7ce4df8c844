"""Record locks: those of another process are the ones that count, hence real children."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest
from support.locks import held

from frzmq.errors import ConfigError
from frzmq.recorder.liveness import PROBE_NS, DirectoryLock, Liveness

UUID = bytes(range(16))
KILLED = "SIGKILL" if sys.platform == "linux" else "unknown"


def test_liveness_says_a_death_once(tmp_path: Path) -> None:
    liveness = Liveness(str(tmp_path))
    with held(tmp_path / f"{UUID.hex()}.lock"):
        assert liveness.watch(UUID)
        assert liveness.probe(0) == []
        assert liveness.deadline_ns() == PROBE_NS
    assert liveness.probe(PROBE_NS - 1) == []
    assert liveness.probe(PROBE_NS) == [(UUID, KILLED)]
    assert liveness.probe(2 * PROBE_NS) == []
    assert liveness.deadline_ns() is None


def test_liveness_of_a_removed_lock_file_still_holds(tmp_path: Path) -> None:
    liveness = Liveness(str(tmp_path))
    with held(tmp_path / f"{UUID.hex()}.lock"):
        assert liveness.watch(UUID)
        (tmp_path / f"{UUID.hex()}.lock").unlink()
        assert liveness.probe(0) == []
    assert liveness.probe(PROBE_NS) == [(UUID, KILLED)]


def test_liveness_of_a_forgotten_tracer_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / f"{UUID.hex()}.lock").touch()
    liveness = Liveness(str(tmp_path))
    assert liveness.watch(UUID)
    liveness.forget(UUID)
    liveness.forget(UUID)
    assert liveness.probe(0) == []


@pytest.mark.parametrize("kind", ["missing", "link", "directory", "fifo"])
def test_liveness_without_a_plain_lock_file_is_not_watched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{UUID.hex()}.lock"
    match kind:
        case "link":
            (tmp_path / "target").touch()
            path.symlink_to(tmp_path / "target")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    liveness = Liveness(str(tmp_path))
    assert not liveness.watch(UUID)
    assert liveness.probe(0) == []


def test_liveness_without_descriptors_watches_once_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{UUID.hex()}.lock"
    path.touch()
    liveness = Liveness(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "Too many open files")))
        assert not liveness.watch(UUID)
        assert liveness.probe(0) == []
    assert liveness.deadline_ns() == PROBE_NS
    assert liveness.probe(PROBE_NS) == [(UUID, "unknown")]


def test_liveness_without_a_directory_watches_nobody() -> None:
    assert not Liveness(None).watch(UUID)


def test_directory_lock_is_refused_while_another_process_holds_it(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4711\n")
    with held(tmp_path / "lock"), pytest.raises(ConfigError, match=r"another recorder \(pid 4711\) runs in"):
        DirectoryLock(str(tmp_path))
    DirectoryLock(str(tmp_path)).release()
    assert list(tmp_path.iterdir()) == []


def test_directory_lock_removes_sockets_and_nothing_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("r")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(directory / "data"))
    (directory / "link").write_text("not a socket")
    lock = DirectoryLock(str(directory))
    assert {path.name for path in directory.iterdir()} == {"link", "lock"}
    assert (directory / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()
    assert {path.name for path in directory.iterdir()} == {"link"}


def test_directory_lock_through_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match="cannot lock"):
        DirectoryLock(str(tmp_path))
