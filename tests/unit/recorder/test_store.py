from __future__ import annotations

import io
import os
import re
import time
from pathlib import Path

import pytest

from frzmq.config import StoreConfig
from frzmq.recorder.store import SnapshotStore


def old(directory: Path, n: int, *, age_s: float = 0.0, size_bytes: int = 10) -> Path:
    path = directory / f"frzmq-20260101T0000{n:02d}.000Z-s-slow.frz"
    path.write_bytes(b"x" * size_bytes)
    at = time.time() - age_s - (60 - n)
    os.utime(path, (at, at))
    return path


def test_keep_leaves_a_private_file_with_the_service_and_the_reason_in_its_name(tmp_path: Path) -> None:
    store = SnapshotStore(StoreConfig(str(tmp_path / "made" / "here")))
    path = Path(store.keep(io.BytesIO(b"snapshot"), "my shop/../x", "slow"))
    assert path.read_bytes() == b"snapshot"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert re.fullmatch(r"frzmq-\d{8}T\d{6}\.\d{3}Z-my-shop-\.\.-x-slow\.frz", path.name)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_keep_where_nothing_can_be_made_raises_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        SnapshotStore(StoreConfig(str(tmp_path / "file"))).keep(io.BytesIO(b"x"), "s", "slow")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({"keep_count": 2}, [3, 4]),
        ({"keep_bytes": 25}, [3, 4]),
        ({"keep_bytes": 1}, [4]),
        ({"keep_age_s": 500.0}, [2, 3, 4]),
    ],
)
def test_sweep_removes_the_oldest_beyond_each_limit(tmp_path: Path, config: dict[str, float], left: list[int]) -> None:
    paths = [old(tmp_path, n, age_s=1000.0 if n < 2 else 0.0) for n in range(5)]
    SnapshotStore(StoreConfig(str(tmp_path), **config)).sweep()  # type: ignore[arg-type]  # as named above
    assert [n for n, path in enumerate(paths) if path.exists()] == left


def test_sweep_spares_the_newest_the_pinned_and_all_other_files(tmp_path: Path) -> None:
    pinned, gone, newest = (old(tmp_path, n, age_s=10_000.0) for n in range(3))
    Path(f"{pinned}.pin").touch()
    mine = tmp_path / "mine.frz"
    mine.touch()
    os.utime(mine, (1, 1))
    link = tmp_path / "frzmq-20250101T000000.000Z-s-slow.frz"
    link.symlink_to(mine)
    SnapshotStore(StoreConfig(str(tmp_path), keep_age_s=1.0, keep_count=1)).sweep()
    assert [p.exists() for p in (pinned, gone, newest, mine, link)] == [True, False, True, True, True]


def test_keep_after_the_clock_was_set_back_keeps_what_it_made(tmp_path: Path) -> None:
    before = [old(tmp_path, n, age_s=-3600.0) for n in range(2)]
    store = SnapshotStore(StoreConfig(str(tmp_path), keep_count=2))
    made = Path(store.keep(io.BytesIO(b"x"), "s", "slow"))
    assert [path.exists() for path in (*before, made)] == [False, True, True]
