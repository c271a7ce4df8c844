from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.snapshots import Stream, event, to_bytes

from frzmq.errors import SnapshotError
from frzmq.reader.snapshot import open_snapshot
from frzmq.snapfile.format import PROLOGUE, SECTION_MAGIC, TRAILER
from frzmq.snapfile.load import SnapshotFile

STREAM = Stream("web", 1)
for _n in range(1, 5):
    STREAM.generation(_n, [event(100 * _n + 10, "a", n=_n), event(100 * _n + 20, "b")], at_ns=100 * _n)
DATA = to_bytes(STREAM, reason="test")


def opened(tmp_path: Path, data: bytes) -> SnapshotFile:
    path = tmp_path / "s.frz"
    path.write_bytes(data)
    return SnapshotFile(path)


def generations(file: SnapshotFile) -> list[int]:
    return [s.info.generation for s in file.generations(0) if s.info is not None and not file.body(s).problem]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "wanted a snapshot file, got one that begins with b''"),
        (b"PK\x03\x04 something else", "wanted a snapshot file, got one that begins with b'PK"),
        (DATA[:10], "got the first 10 bytes of one"),
        (DATA[:40], "wanted a header of"),
        (DATA[:8] + (9).to_bytes(4, "little") + DATA[12:], "wanted format version 1..1, got 9"),
        (DATA[:50] + b"\xff" + DATA[51:], "the header is damaged"),
    ],
)
def test_load_of_what_is_no_snapshot_says_so(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(SnapshotError, match=r"s\.frz: ") as caught:
        opened(tmp_path, data)
    assert message in str(caught.value)


def test_load_cut_at_any_byte_reads_what_is_there_and_says_what_is_gone(tmp_path: Path) -> None:
    header_end = PROLOGUE.size + PROLOGUE.unpack_from(DATA)[2]
    with opened(tmp_path, DATA) as whole:
        ends = {s.info.generation: s.end for s in whole.generations(0) if s.info is not None}
    for size in range(header_end, len(DATA)):
        with opened(tmp_path, DATA[:size]) as file:
            assert generations(file) == [n for n, end in ends.items() if end <= size], size
            assert file.problems, size


def test_load_without_its_index_finds_the_same_sections(tmp_path: Path) -> None:
    with opened(tmp_path, DATA) as whole, opened(tmp_path, DATA[: -TRAILER.size]) as cut:
        assert cut.sections == whole.sections
        assert cut.problems == ["the end of the file is missing: it was cut short"]


@pytest.mark.parametrize("indexed", [True, False])
def test_load_damaged_anywhere_loses_one_section_at_most(tmp_path: Path, indexed: bool) -> None:
    data = DATA if indexed else DATA[: -TRAILER.size]
    header_end = PROLOGUE.size + PROLOGUE.unpack_from(DATA)[2]
    for at in range(header_end, len(data), 7):
        damaged = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        with opened(tmp_path, damaged) as file:
            lost = {1, 2, 3, 4} - set(generations(file))
            assert len(lost) <= 1, at
            wrong_bodies = [s for s in file.sections if file.body(s).problem]
            assert file.problems or wrong_bodies, at


def test_load_behind_a_run_of_false_heads_finds_the_next(tmp_path: Path) -> None:
    at = DATA.index(SECTION_MAGIC)
    with opened(tmp_path, DATA[:at] + SECTION_MAGIC * 1000 + DATA[at : -TRAILER.size]) as file:
        assert generations(file) == [1, 2, 3, 4]
        assert "4000 bytes at byte" in file.problems[1]


def test_load_ends_in_a_body_keeps_its_whole_batches(tmp_path: Path) -> None:
    with opened(tmp_path, DATA) as whole:
        last = whole.generations(0)[-1]
    path = tmp_path / "cut.frz"
    path.write_bytes(DATA[: last.body_offset + last.body_bytes])
    with open_snapshot(path) as snapshot:
        assert [e.attributes for e in snapshot.events if e.name == "a"] == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]
        assert [g.cause for g in snapshot.gaps] == ["damaged"]
        assert "the file ends after" in snapshot.problems[-1]


def test_load_of_a_fifo_that_nobody_writes_to_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SnapshotError, match="got one that begins with b''"):
        SnapshotFile(tmp_path / "fifo")
