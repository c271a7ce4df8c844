"""docs/buffer.md says what `frzmq.wire.chunk` does: areas, headers, words, entries."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from frzmq.wire import chunk

BUFFER = (Path(__file__).resolve().parents[3] / "docs" / "buffer.md").read_text()
MIB = 1 << 20


def rows(title: str) -> list[list[str]]:
    """The cells of the table of a section, without its head."""
    text = BUFFER.partition(f"# {title}\n")[2].partition("\n#")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


def sizes(title: str) -> list[tuple[int, int]]:
    return [(int(offset), int(size)) for offset, size, *_ in rows(title)]


def offsets_of(layout: str) -> list[tuple[int, int]]:
    """``(offset, size)`` of each field of a packed struct."""
    found, offset = [], 0
    for field in re.findall(r"\d*[a-zA-Z]", layout.lstrip("<")):
        for code in [field] if field.endswith("s") else field[-1:] * int(field[:-1] or 1):
            found.append((offset, struct.calcsize(f"<{code}")))
            offset += found[-1][1]
    return found


def test_buffer_document_has_the_areas_of_four_mib() -> None:
    layout = chunk.layout_for(4 * MIB)
    starts = [
        0,
        layout.strings_offset,
        layout.open_offset,
        layout.chunk_offset(0),
        layout.chunk_offset(layout.small_chunks),
    ]
    said = [[int(n) for n in re.findall(r"\d+", row[3])] for row in rows("The file")]
    assert [row[0] for row in said] == starts
    assert [row[1] for row in said[3:]] == [layout.small_chunks, layout.large_chunks]


def test_buffer_document_has_the_file_header() -> None:
    words = [chunk.GENERATION_WORD, chunk.STRINGS_WORD, chunk.OPEN_OMITTED_WORD]
    assert sizes("File header") == offsets_of(chunk._FILE_HEADER.format) + [(8 * word, 8) for word in words]


def test_buffer_document_has_the_open_entry() -> None:
    assert sizes("The open table") == offsets_of(chunk.OPEN_ENTRY.format)
    assert chunk.OPEN_ENTRY.size == chunk.OPEN_ENTRY_BYTES
    assert {row[2].split(",")[0]: int(row[0]) for row in rows("The open table")}["end"] == 8 * chunk.OPEN_END_WORD


@pytest.mark.parametrize("row", rows("Chunks"), ids=lambda row: row[1].strip("`"))
def test_buffer_document_has_the_word_of_a_chunk(row: list[str]) -> None:
    assert int(row[0]) == 8 * getattr(chunk, row[1].strip("`"))


def test_buffer_document_has_every_word_of_a_chunk() -> None:
    wanted = {name for name in vars(chunk) if name.endswith(("_WORD", "_WORDS"))}
    file_words = {"GENERATION_WORD", "STRINGS_WORD", "OPEN_OMITTED_WORD", "OPEN_END_WORD"}
    assert {row[1].strip("`") for row in rows("Chunks")} == wanted - file_words
    states = dict(re.findall(r"(\d) ([A-Z]+)", rows("Chunks")[0][2]))
    assert {int(number): name for number, name in states.items()} == {s.value: s.name for s in chunk.ChunkState}
