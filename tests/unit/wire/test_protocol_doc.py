"""docs/protocol.md says what the code does: every message and field, every kind, the header."""

from __future__ import annotations

import dataclasses
import re
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from frzmq.wire.batch import HEADER_SIZE, BatchType
from frzmq.wire.kinds import KINDS, KindSpec
from frzmq.wire.messages import MESSAGE_TYPES, Status, TracerStatus

PROTOCOL = (Path(__file__).resolve().parents[3] / "docs" / "protocol.md").read_text()


def section(title: str) -> str:
    return PROTOCOL.partition(f"### {title}\n")[2].partition("\n#")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of its tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize(
    ("title", "message"),
    [
        *((f"`{name}`", cls) for name, cls in MESSAGE_TYPES.items()),
        ("`status` of a `status` reply", Status),
        ("Each of its `tracers`", TracerStatus),
    ],
)
def test_protocol_document_has_every_field_with_its_bounds(title: str, message: type) -> None:
    wanted = []
    for field in dataclasses.fields(message):
        required = field.default is dataclasses.MISSING
        default = "" if required else "`[]`" if field.default == () else f"`{field.default!r}`"
        bounds = field.metadata["check"].wanted.partition(": a map")[0].replace("a map (Status)", "a map, below")
        wanted.append([f"`{field.name}`", bounds, default])
    found = [[name, text.partition(": maps")[0], default] for name, text, default in rows(section(title))[2:]]
    assert found == wanted


@pytest.mark.parametrize("spec", KINDS.values(), ids=lambda spec: spec.name)
def test_protocol_document_has_every_kind(spec: KindSpec) -> None:
    fields = " ".join(spec.fields)
    assert [str(spec.kind), f"`{spec.name}`", f"`{fields}`" if fields else ""] in [row[:3] for row in rows(PROTOCOL)]


def test_protocol_document_has_the_headers_layout() -> None:
    table = [row for row in rows(PROTOCOL) if len(row) == 4 and row[0].isdigit() and row[1].isdigit()]
    sizes = [(int(offset), int(size)) for offset, size, *_ in table]
    assert sizes[0][0] == 0
    assert all(offset + size == following for (offset, size), (following, _) in pairwise(sizes))
    assert sum(sizes[-1]) == HEADER_SIZE == struct.calcsize("<2sBBI16sIIQQQQQQQII")
    types = dict(re.findall(r"(\d) ([A-Z]+)", next(row[3] for row in table if row[2] == "type")))
    assert {int(number): name for number, name in types.items()} == {t.value: t.name for t in BatchType}
