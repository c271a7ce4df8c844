"""Any file is a snapshot that opens, or a SnapshotError; and whatever opens can be read to its end."""

from __future__ import annotations

import zlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.targets import WHOLE, read_to_the_end, with_checksums

from frzmq.reader.snapshot import open_snapshot
from frzmq.snapfile.format import CRC, PROLOGUE, SECTION, SECTION_MAGIC, TRAILER, SectionType


@given(st.binary(max_size=400))
def test_snapshot_of_any_bytes_opens_or_says_that_it_is_none(data: bytes) -> None:
    read_to_the_end(data)
    read_to_the_end(WHOLE[: PROLOGUE.size] + data)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["flip", "cut", "insert", "copy"])):
            case "flip":
                data[at] ^= draw(st.integers(1, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 200))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case _:
                data[at:at] = data[draw(st.integers(0, len(data) - 1)) :][:100]
        if not data:
            return b""
    return bytes(data)


@given(damaged())
def test_snapshot_damaged_anyhow_reads_to_its_end(data: bytes) -> None:
    read_to_the_end(data)


def test_with_checksums_changes_nothing_of_a_whole_file() -> None:
    assert with_checksums(bytearray(WHOLE)) == WHOLE


@given(st.lists(st.tuples(st.integers(PROLOGUE.size, len(WHOLE) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_snapshot_whose_checksums_hide_the_damage_reads_to_its_end(flips: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, bits in flips:
        data[at] ^= bits
    read_to_the_end(with_checksums(data))


def with_index_again(data: bytes, times: int) -> bytes:
    """The same file, with all that its index says so many times over."""
    offset, magic = TRAILER.unpack(data[-TRAILER.size :])
    index = data[offset + SECTION.size + CRC.size : -TRAILER.size - CRC.size] * times
    head = SECTION.pack(SECTION_MAGIC, SectionType.FOOTER, 0, 0, len(index))
    footer = head + CRC.pack(zlib.crc32(head)) + index + CRC.pack(zlib.crc32(index))
    return data[:offset] + footer + TRAILER.pack(offset, magic)


def test_snapshot_whose_index_names_its_sections_again_and_again_reads_each_once(tmp_path: Path) -> None:
    assert with_index_again(WHOLE, 1) == WHOLE
    once, again = tmp_path / "once.frz", tmp_path / "again.frz"
    once.write_bytes(WHOLE)
    again.write_bytes(with_index_again(WHOLE, 300))
    with open_snapshot(once) as whole, open_snapshot(again) as opened:
        assert opened.file.sections == whole.file.sections
        assert len(list(opened)) == len(list(whole)) > 0
        assert "damaged" in opened.file.problems[0]
