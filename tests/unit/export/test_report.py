"""The page: what it says, that nothing of a snapshot gets into it as markup, and that it is bounded."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.snapshots import (
    At,
    Stream,
    begin,
    context,
    end,
    event,
    open_operation,
    operation_begin,
    operation_end,
    snapshot,
)

from frzmq.export.histogram import BOUNDS_NS, Latency, axis, histogram, latencies
from frzmq.export.report import MAX_FAILURES, MAX_GAPS, MAX_LOGS, MAX_NAMES, MAX_PICTURES, MAX_PROCESSES, write_report
from frzmq.export.slowest import slowest
from frzmq.reader.snapshot import Snapshot
from frzmq.wire.kinds import Kind

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>]]>--><!--\x00\x1b\u202e&amp;"
SAID = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>]]>--><!--\\x00\\x1b\\u202e&amp;"
VOID = {"meta"}


class Page(HTMLParser):
    """A page as a parser sees it."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(data.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self._open[-1:] == ["style"] else self.texts).append(data)

    @property
    def words(self) -> str:
        return "\n".join(self.texts)


def report(opened: Snapshot) -> bytes:
    parts: list[bytes] = []
    size_bytes = write_report(opened, parts.append)
    assert size_bytes == len(b"".join(parts))
    return b"".join(parts)


def hostile() -> Stream:
    h = HOSTILE
    stream = Stream(h, 1, host=h, program=h, python=h[:64], state="stopped", error=h)
    return stream.generation(
        1,
        [
            At(1000, Kind.OPERATION_BEGIN, (h, 5, 0, b"t" * 16, 0, {h: h})),
            context(1001, op=5),
            begin(2000, h),
            At(3000, Kind.LOG, (40, h, h, None)),
            At(4000, Kind.EXCEPTION, (h, h, "main", h)),
            end(9000, h, error=h),
            operation_end(10_000, 5, error=h),
        ],
        skip={2: 3},
    )


def test_report_says_what_happened(tmp_path: Path) -> None:
    records = [
        operation_begin(1000, "buy", 5),
        context(1001, op=5),
        begin(2000, "ask"),
        At(3000, Kind.LOG, (30, "web", "slow request", None)),
        At(4000, Kind.EXCEPTION, ("ValueError", "no plum", "thread", "shop.py:3 buy")),
        end(9000, "ask", error="KeyError"),
        operation_end(10_000, 5, error="KeyError"),
        operation_begin(20_000, "sell", 6),
    ]
    page = Page(report(snapshot(tmp_path, Stream("web", 4).generation(1, records, skip={2: 7}), reason="it was slow")))
    for said in (
        "it was slow",
        "web[4]",
        "slow request",
        "ValueError: no plum",
        "shop.py:3 buy",
        "span ask",
        "operation buy",
        "buy: 9us",
        "sell: 980us, and had not ended",
        "7 records lost",
        "15 recorded = 8 held + 7 missing",
        "thread 2\noverwritten\n7",
    ):
        assert said in page.words
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 1 + 2 + 2


def test_report_of_hostile_strings_is_text(tmp_path: Path) -> None:
    page = Page(report(snapshot(tmp_path, hostile(), reason=HOSTILE, host=HOSTILE, missing=(HOSTILE,))))
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object", "link", "base", "form"} == set()
    assert {name for _, attributes in page.tags for name in attributes} & {"style", "src", "onerror", "onload"} == set()
    assert {a["href"] for tag, a in page.tags if tag == "a"} == {"#latency", "#slowest", "#errors", "#logs", "#loss"}
    assert page.words.count(SAID) > 15
    assert not set(page.words) & {"\x00", "\x1b", "\u202e"}


def test_report_policy_allows_its_own_styles_and_nothing_else(tmp_path: Path) -> None:
    page = Page(report(snapshot(tmp_path, hostile())))
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    directives = dict(part.split(maxsplit=1) for part in policy.split("; "))
    assert directives.keys() == {"default-src", "style-src", "base-uri", "form-action"}
    assert {directives[name] for name in directives if name != "style-src"} == {"'none'"}
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in page.styles}
    assert hashes == set(directives["style-src"].split())
    assert re.search(r"url\(|@import|https?:", "".join(page.styles)) is None


def test_report_of_an_empty_snapshot_says_so(tmp_path: Path) -> None:
    words = Page(report(snapshot(tmp_path))).words
    assert "It holds no records of its 0 processes." in words
    assert "There are no operations." in words
    assert "No operation and no span ended with an exception, and none was uncaught." in words
    assert "nothing lost" in words


@pytest.mark.timeout(120)
def test_report_is_bounded_and_says_what_is_left_out(tmp_path: Path) -> None:
    long = "<&>" * 500
    records = []
    for n in range(3 * MAX_LOGS):
        at = n * 100
        records += [
            At(
                at,
                Kind.OPERATION_BEGIN,
                (f"{n} {long}", n + 1, 0, b"t" * 16, 0, {f"{m} {long}": long for m in range(3)}),
            ),
            At(at + 1, Kind.LOG, (30, long, f"{n} {long}", None)),
            At(at + 2, Kind.EXCEPTION, (f"{n} {long}", long, "main", "\n".join([long[:300]] * 100))),
            operation_end(at + 10, n + 1, error=f"{n}"),
        ]
    crowd = [
        Stream("s", n).generation(1, [event(1000 * n + m, "e") for m in range(3)], skip={2: 1})
        for n in range(2, MAX_PROCESSES + 20)
    ]
    data = report(snapshot(tmp_path, Stream("web", 1).generation(1, records, batch_of=20), *crowd))
    words = Page(data).words
    assert len(data) < 5 << 20
    count = 3 * MAX_LOGS
    assert f"{2 * count - MAX_FAILURES} more kinds of errors are left out." in words
    assert f"{count - MAX_NAMES} more names of operations are left out." in words
    assert f"{count - MAX_LOGS} more logs are left out" in words
    assert f"{len(crowd) - MAX_GAPS} more gaps are left out." in words
    assert f"{len(crowd) + 1 - MAX_PROCESSES} more processes are left out." in words


def test_report_picture_of_too_many_parts_is_left_out(tmp_path: Path) -> None:
    records = [operation_begin(0, "busy", 5), context(1, op=5)]
    records += [At(10 + n * 2, Kind.LOG, (30, "l", "a warning of some length", None)) for n in range(10_000)]
    words = Page(report(snapshot(tmp_path, Stream().generation(1, records)))).words
    assert f"too many parts for this page: frzmq export -o picture.svg --operation {5:016x} makes it" in words


def test_report_prefers_warnings_to_later_logs(tmp_path: Path) -> None:
    records = [At(1, Kind.LOG, (40, "l", "the cause", None))]
    records += [At(10 + n, Kind.LOG, (20, "l", f"then {n}.", None)) for n in range(MAX_LOGS)]
    words = Page(report(snapshot(tmp_path, Stream().generation(1, records)))).words
    assert "the cause" in words
    assert "then 0." not in words
    assert "then 1." in words


def test_report_is_the_same_each_time(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, hostile())
    assert report(opened) == report(opened)


def test_slowest_is_without_what_another_one_of_the_snapshot_asked_for(tmp_path: Path) -> None:
    inject, extract = At(150, Kind.INJECT, (5, b"t" * 16, 77)), At(201, Kind.EXTRACT, (6, b"t" * 16, 77))
    web = Stream("web", 1).generation(
        1, [operation_begin(100, "ask", 5, remote=99), context(101, op=5), inject, operation_end(900, 5)]
    )
    db = Stream("db", 2).generation(
        1,
        [
            operation_begin(200, "answer", 6, remote=77),
            extract,
            operation_end(800, 6),
            operation_begin(810, "alone", 7, remote=98),
            operation_end(820, 7),
        ],
    )
    assert [o.name for o in slowest(snapshot(tmp_path, web, db))] == ["ask", "alone"]


def test_slowest_counts_what_had_not_ended(tmp_path: Path) -> None:
    stream = Stream().generation(1, [event(10, "a")], at_ns=9, open=(open_operation(3, "hang", 4),))
    assert [o.name for o in slowest(snapshot(tmp_path, stream))] == ["hang"]
    assert MAX_PICTURES >= 1


def test_histogram_has_each_operation_in_its_class(tmp_path: Path) -> None:
    took = (1, 9, 10, 14, 15, 150, 10**9, 1 << 62)
    latency = Latency("a", took, 0, 0)
    on = axis([latency])
    titles = re.findall("<title>(.*?)</title>", histogram(latency, on))
    assert sum(int(title.split()[0]) for title in titles) == len(took)
    assert "1 of 15ns to 20ns" in titles
    assert on.first == 0
    assert list(BOUNDS_NS) == sorted(set(BOUNDS_NS))


@pytest.mark.parametrize(("share", "ns"), [(0.5, 50), (0.95, 95), (1.0, 100)])
def test_latency_quantile_is_what_so_many_did_not_exceed(share: float, ns: int) -> None:
    assert Latency("a", tuple(range(1, 101)), 0, 0).quantile_ns(share) == ns
    assert Latency("a", (7,), 0, 0).quantile_ns(share) == 7


def test_latencies_count_what_failed_and_what_had_not_ended(tmp_path: Path) -> None:
    records = [
        operation_begin(10, "a", 1),
        operation_end(20, 1, error="E"),
        operation_begin(30, "a", 2),
        operation_begin(40, "b", 3),
        operation_end(90, 3),
    ]
    found = latencies(snapshot(tmp_path, Stream().generation(1, records)))
    assert [(each.name, each.took_ns, each.failed, each.open) for each in found] == [
        ("b", (50,), 0, 0),
        ("a", (10,), 1, 1),
    ]
