from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
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
    snapshot,
)

from frzmq.errors import ConfigError
from frzmq.export.svg import MAX_HATCHED, MAX_LANES, write_svg
from frzmq.reader.snapshot import Snapshot
from frzmq.wire.kinds import Kind

SVG = "{http://www.w3.org/2000/svg}"
T, OTHER, ALIKE = b"t" * 16, b"o" * 16, b"a" * 16
Box = tuple[str, float, float, float, float]
"""Title, left, top, right, bottom."""


def drawn(opened: Snapshot, operation: str | None = None, width: int = 1200) -> ET.Element:
    parts: list[bytes] = []
    size_bytes = write_svg(opened, parts.append, operation=operation, width=width)
    assert size_bytes == len(b"".join(parts))
    return ET.fromstring(b"".join(parts))


def boxes(picture: ET.Element) -> list[Box]:
    found = []
    for rect in picture.iter(f"{SVG}rect"):
        title = rect.find(f"{SVG}title")
        if title is not None:
            x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            found.append((str(title.text), x, y, x + width, y + height))
    return found


def words(picture: ET.Element) -> list[str]:
    return [str(text.text) for text in picture.iter(f"{SVG}text")]


def shop() -> list[Stream]:
    web = Stream("web", 1).generation(
        1,
        [
            operation_begin(1000, "buy", 5, trace=T),
            context(1001, op=5),
            begin(2000, "ask"),
            At(2100, Kind.INJECT, (5, T, 77)),
            At(8500, Kind.LOG, (30, "web", "slow <&> request", None)),
            end(9000, "ask", error="KeyError"),
            operation_end(10_000, 5),
        ],
    )
    db = Stream("db", 2).generation(
        1,
        [
            operation_begin(3000, "answer", 6, trace=T, remote=77),
            context(3001, op=6),
            At(3002, Kind.EXTRACT, (6, T, 77)),
            operation_end(8000, 6),
        ],
    )
    others = Stream("other", 3).generation(
        1,
        [
            operation_begin(500, "audit", 7, trace=OTHER),
            operation_end(7000, 7),
            operation_begin(1500, "buy", 8, trace=ALIKE, writer=2),
            operation_end(9500, 8, writer=2),
        ],
    )
    return [web, db, others]


def test_svg_of_an_operation_shows_it_over_its_processes_and_what_ran_meanwhile(tmp_path: Path) -> None:
    picture = drawn(snapshot(tmp_path, *shop()), f"{5:016x}")
    assert [box[0] for box in boxes(picture)] == ["buy 9us", "ask 7us", "answer 5us", "audit 6.5us"]
    dimmed = [group for group in picture.iter(f"{SVG}g") if group.attrib["class"] == "d"]
    assert [str(rect[0].text) for group in dimmed for rect in group.iter(f"{SVG}rect")] == ["audit 6.5us"]
    assert len([p for p in picture.iter(f"{SVG}path") if p.attrib["class"] == "f"]) == 1
    assert [str(p[0].text) for p in picture.iter(f"{SVG}path") if p.attrib["class"] == "w"] == ["slow <&> request"]
    assert words(picture)[-1] == "9us; dimmed: what else ran meanwhile"


def test_svg_children_are_inside_their_parents_and_all_inside_the_picture(tmp_path: Path) -> None:
    for width in (900, 1200):
        picture = drawn(snapshot(tmp_path, *shop()), "buy", width)
        height = float(picture.attrib["height"])
        found = {box[0]: box for box in boxes(picture)}
        assert all(
            0 <= left <= right <= width and 0 <= top <= bottom <= height
            for _, left, top, right, bottom in found.values()
        )
        _, left, top, right, _ = found["buy 9us"]
        _, inner_left, inner_top, inner_right, _ = found["ask 7us"]
        assert left < inner_left < inner_right < right
        assert inner_top > top


def test_svg_bars_of_a_lane_do_not_overlap(tmp_path: Path) -> None:
    records = [begin(10, "generator"), begin(20, "caller"), end(30, "generator"), end(40, "caller"), event(50, "x")]
    found = boxes(drawn(snapshot(tmp_path, Stream().generation(1, records))))
    for n, (_, left, top, right, bottom) in enumerate(found):
        for _, other_left, other_top, other_right, other_bottom in found[n + 1 :]:
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top


def test_svg_by_name_takes_the_slowest(tmp_path: Path) -> None:
    records = [
        operation_begin(10, "a", 1),
        operation_end(20, 1),
        operation_begin(30, "a", 2, trace=OTHER),
        operation_end(90, 2),
    ]
    found = boxes(drawn(snapshot(tmp_path, Stream().generation(1, records)), "a"))
    assert [box[0] for box in found] == ["a 60ns"]


def test_svg_of_no_operation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted an operation of the snapshot, got 'none'"):
        drawn(snapshot(tmp_path, Stream().generation(1, [event(10, "a")])), "none")


def test_svg_says_what_had_not_ended(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(10, "a")], at_ns=9, open=(open_span(3, "hang"),))
    assert [box[0] for box in boxes(drawn(snapshot(tmp_path, stream)))] == ["hang not ended"]


def test_svg_of_a_hostile_name_is_text(tmp_path: Path) -> None:
    records = [begin(10, "<script>alert(1)</script>\x00\x1b"), end(10_000_000, "<script>alert(1)</script>\x00\x1b")]
    picture = drawn(snapshot(tmp_path, Stream("<b>", 1).generation(1, records)))
    assert list(picture.iter(f"{SVG}script")) == []
    assert boxes(picture)[0][0].startswith("<script>alert(1)</script>\\x00\\x1b ")


def test_svg_is_bounded_and_says_what_is_left_out(tmp_path: Path) -> None:
    streams = [
        Stream("s", n).generation(
            1, [record for m in range(50) for record in (begin(m * 10**6, "tiny"), end(m * 10**6 + 1, "tiny"))]
        )
        for n in range(1, MAX_LANES + 6)
    ]
    picture = drawn(snapshot(tmp_path, *streams))
    assert boxes(picture) == []
    assert words(picture)[-1].endswith(f"{50 * MAX_LANES} bars too narrow to be seen; 5 more threads")


def test_svg_is_the_same_each_time(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, *shop())
    assert ET.tostring(drawn(opened)) == ET.tostring(drawn(opened))


def hatched(picture: ET.Element) -> list[Box]:
    [pattern] = picture.iter(f"{SVG}pattern")
    fills = [r.attrib.get("fill") for r in picture.iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None]
    return [box for box, fill in zip(boxes(picture), fills, strict=True) if fill == f"url(#{pattern.attrib['id']})"]


def test_svg_hatches_where_records_are_lost_on_the_lanes_of_who_lost_them(tmp_path: Path) -> None:
    stream = Stream("web", 1).generation(1, [begin(100, "a"), begin(100, "b", writer=2)], at_ns=50)
    stream.generation(
        2, [end(150_000, "a"), end(150_000, "b", writer=2)], at_ns=50_000, dropped={1: 3}, skip={2: 4}, overwritten=True
    )
    other = Stream("db", 2).generation(1, [begin(100, "c"), end(150_000, "c")])
    picture = drawn(snapshot(tmp_path, stream, other))
    lanes_ = {title.split()[0]: (top, bottom) for title, _, top, _, bottom in boxes(picture) if title[0] in "abc"}
    bars = {title: (left, right, top) for title, left, top, right, _ in hatched(picture)}
    assert set(bars) == {"3 records dropped", "4 records overwritten"}
    assert bars["3 records dropped"][2] == lanes_["a"][0]
    assert bars["4 records overwritten"][2] == lanes_["b"][0]
    left, right, _ = bars["3 records dropped"]
    assert right - left > 50
    # no time is between what is held before and behind: it is seen all the same
    left, right, _ = bars["4 records overwritten"]
    assert right - left == pytest.approx(4)
    assert "hatched: records are lost" in words(picture)[-1]


def test_svg_without_loss_hatches_nothing(tmp_path: Path) -> None:
    picture = drawn(snapshot(tmp_path, *shop()))
    assert hatched(picture) == []
    assert "hatched" not in words(picture)[-1]


def test_svg_hatches_are_bounded_and_counted(tmp_path: Path) -> None:
    stream = Stream("web", 1).generation(1, [begin(1, "a")], at_ns=0)
    for n in range(2, MAX_HATCHED + 9):
        stream.generation(n, [event(n * 1000, "e")], at_ns=n * 1000 - 500, dropped={1: n})
    picture = drawn(snapshot(tmp_path, stream))
    assert len(hatched(picture)) == MAX_HATCHED
    assert f"{len(stream.generations) - 1 - MAX_HATCHED} more such stretches" in words(picture)[-1]
