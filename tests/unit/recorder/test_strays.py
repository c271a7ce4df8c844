"""Tracers that died before anybody had told of them: real children, as for every lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.locks import held

from frzmq.recorder import strays as module
from frzmq.recorder.strays import LOOK_NS, Strays
from frzmq.wire.messages import Hello, Ping, encode_message

UUID = bytes(range(16))


def left(directory: Path, uuid: bytes = UUID, *, shared: bool = True) -> Hello:
    hello = Hello(uuid, 1, 1, 1, 42, "svc", 0, shared=shared, lock=True)
    (directory / f"{uuid.hex()}.lock").write_bytes(encode_message(hello))
    return hello


def test_strays_of_whom_nobody_has_told_are_found_once_they_are_dead(tmp_path: Path) -> None:
    strays = Strays(str(tmp_path))
    hello = left(tmp_path)
    with held(tmp_path / f"{UUID.hex()}.lock"):
        assert strays.find((), 5) == []
    assert strays.next_ns == 5 + LOOK_NS
    assert strays.find((), 6) == [hello]
    assert strays.find((), 7) == []


def test_strays_that_were_known_once_are_none(tmp_path: Path) -> None:
    strays = Strays(str(tmp_path))
    left(tmp_path)
    assert strays.find({UUID}, 0) == []
    # forgotten since
    assert strays.find((), 0) == []
    # the file was removed, and another of this name is another's
    (tmp_path / f"{UUID.hex()}.lock").unlink()
    assert strays.find((), 0) == []
    assert strays.find((), 0) == []
    hello = left(tmp_path)
    assert strays.find((), 0) == [hello]


@pytest.mark.parametrize(
    "content",
    [b"", b"rubbish", encode_message(Ping(1)), encode_message(Hello(b"o" * 16, 1, 1, 1, 42, "svc", 0, shared=True))],
)
def test_strays_whose_file_says_nothing_of_them_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{UUID.hex()}.lock").write_bytes(content)
    assert Strays(str(tmp_path)).find((), 0) == []


def test_strays_without_a_file_of_records_or_that_are_no_files_are_none(tmp_path: Path) -> None:
    left(tmp_path, shared=False)
    other = b"x" * 16
    os.mkfifo(tmp_path / f"{other.hex()}.lock")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    left(hidden, b"y" * 16)
    (tmp_path / f"{(b'y' * 16).hex()}.lock").symlink_to(hidden / f"{(b'y' * 16).hex()}.lock")
    for name in ("lock", "data", f"{UUID.hex()}.buf", f"{UUID.hex().upper()}.lock", "00.lock", ".lock"):
        (tmp_path / name).touch()
    assert Strays(str(tmp_path)).find((), 0) == []
    assert Strays(None).find((), 0) == []


def test_strays_in_great_numbers_come_one_look_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_A_LOOK", 2)
    every = [left(tmp_path, bytes([n]) * 16) for n in range(5)]
    strays = Strays(str(tmp_path))
    found = [strays.find((), 0) for _ in range(4)]
    assert [len(some) for some in found] == [2, 2, 1, 0]
    assert sorted((hello for some in found for hello in some), key=lambda hello: hello.uuid) == every
