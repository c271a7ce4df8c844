from __future__ import annotations

from pathlib import Path

import pytest
from support.golden import GOLDEN_DIR, parse_golden, with_bytes

FILES = sorted(GOLDEN_DIR.glob("*.txt"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_golden_files_are_found() -> None:
    assert len(FILES) >= 6


@each_file
def test_golden_text_makes_the_bytes(path: Path) -> None:
    golden = parse_golden(path.read_text(encoding="utf-8"))
    assert golden.steps and golden.story.startswith("# ")
    assert [(s.title, s.encoded().hex()) for s in golden.steps] == [(s.title, s.data.hex()) for s in golden.steps]


def plain(text: str) -> list[str]:
    """The lines without comments and without spaces between words."""
    lines = (" ".join(line.split("  #")[0].split()) for line in text.split("\n"))
    return [line for line in lines if line]


@each_file
def test_golden_bytes_make_the_text(path: Path) -> None:
    golden = parse_golden(path.read_text(encoding="utf-8"))
    assert [plain(s.formatted()) for s in golden.steps] == [plain(s.text) for s in golden.steps]


@each_file
def test_golden_file_is_as_the_script_writes_it(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    assert with_bytes(content) == content
