"""Any file is a snapshot that opens, or a SnapshotError; and whatever opens can be read to its end."""

from __future__ import annotations

import io
import os
import tempfile
import zlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.snapshots import (
    At,
    Stream,
    begin,
    context,
    end,
    event,
    open_span,
    operation_begin,
    operation_end,
    to_bytes,
)

from frzmq.errors import SnapshotError
from frzmq.export.perfetto import write_perfetto
from frzmq.export.report import write_report
from frzmq.export.svg import write_svg
from frzmq.export.text import write_text
from frzmq.reader.snapshot import open_snapshot
from frzmq.reader.validate import validate
from frzmq.snapfile.format import CRC, PROLOGUE, SECTION, SECTION_MAGIC
from frzmq.wire.kinds import Kind


def _whole() -> bytes:
    asked = [
        begin(10, "a", x=1),
        context(20, 3, "Task", 7),
        end(30, "a"),
        operation_begin(40, "ask", 7),
        At(41, Kind.INJECT, (7, b"t" * 16, 77)),
        At(42, Kind.LOG, (30, "log", "slow", None)),
        At(43, Kind.EXCEPTION, ("KeyError", "x", "main", "a.py:1 f")),
        operation_end(60, 7, error="KeyError"),
    ]
    web = Stream("web", 1).generation(1, asked, at_ns=5)
    web.generation(3, [event(110, "b", writer=2)], at_ns=100, skip={1: 2}, open=(open_span(1, "hang"),))
    answered = [
        event(10, "c"),
        operation_begin(45, "answer", 8, remote=77),
        At(46, Kind.EXTRACT, (8, b"t" * 16, 77)),
        operation_end(50, 8),
    ]
    db = Stream("db", 2, machine="other", offset_ns=7, rtt_ns=3).generation(1, answered)
    return to_bytes(web, db)


WHOLE = _whole()


def read_to_the_end(data: bytes) -> None:
    """Raises SnapshotError at the most."""
    descriptor, name = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        try:
            opened = open_snapshot(name)
        except SnapshotError:
            return
        with opened:
            validate(opened)
            write_text(opened, io.StringIO())
            write_perfetto(opened, lambda _: None)
            write_svg(opened, lambda _: None)
            write_report(opened, lambda _: None)
            assert isinstance(opened.horizon_ns + opened.begin_ns + opened.end_ns, int)
    finally:
        Path(name).unlink()


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


def with_checksums(data: bytearray) -> bytes:
    """Made right again: what is wrong is behind them."""
    size = PROLOGUE.unpack_from(data)[2]
    header = bytes(data[PROLOGUE.size : PROLOGUE.size + size])
    CRC.pack_into(data, PROLOGUE.size - CRC.size, zlib.crc32(header))
    at = data.find(SECTION_MAGIC, PROLOGUE.size + size)
    while 0 <= at <= len(data) - SECTION.size - CRC.size:
        _, _, _, info_bytes, body_bytes = SECTION.unpack_from(data, at)
        info_at = at + SECTION.size + CRC.size
        body_at = info_at + info_bytes
        if body_at + body_bytes + CRC.size > len(data):
            break
        checksum = zlib.crc32(data[info_at:body_at], zlib.crc32(data[at : at + SECTION.size]))
        CRC.pack_into(data, at + SECTION.size, checksum)
        CRC.pack_into(data, body_at + body_bytes, zlib.crc32(data[body_at : body_at + body_bytes]))
        at = data.find(SECTION_MAGIC, body_at + body_bytes)
    return bytes(data)


def test_with_checksums_changes_nothing_of_a_whole_file() -> None:
    assert with_checksums(bytearray(WHOLE)) == WHOLE


@given(st.lists(st.tuples(st.integers(PROLOGUE.size, len(WHOLE) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_snapshot_whose_checksums_hide_the_damage_reads_to_its_end(flips: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, bits in flips:
        data[at] ^= bits
    read_to_the_end(with_checksums(data))
