"""docs/guarantees.md names tests, and the tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()


def test_guarantees_name_tests_that_exist() -> None:
    there = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert named - there == set()


def test_guarantees_have_a_test_for_each_promise() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| [^|-]", line) and not line.startswith("| promise |")]
    assert len(rows) > 20
    for row in rows:
        promise, _kept, tests, _bound = (cell.strip() for cell in row.strip("|").split("|"))
        assert promise
        assert re.search(r"`test_\w+`|the same test", tests), promise
