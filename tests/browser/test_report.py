"""``frzmq report`` opened by a double click: it looks as its reader's scheme wants, runs nothing and asks for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.browser import Browser
from support.snapshots import At, Stream, begin, context, end, operation_end, snapshot

from frzmq.export.report import write_report
from frzmq.wire.kinds import Kind

HOSTILE = (
    "<script>window.executed = 1</script>",
    "\"'><img src=x onerror='window.executed = 2'>",
    "<svg onload='window.executed = 3'>",
    "</title></style></svg><iframe src=javascript:parent.executed=4>",
    "]]><!--",
    "&lt;b&gt; &amp;",
)
CONTROLS = "a\x00b\x1b[31mc\u202ed\u2066e\x85f"
INK_AND_PAPER = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
FILL = "return getComputedStyle(document.querySelector('svg rect.o')).fill"


@pytest.fixture
def page(tmp_path: Path) -> str:
    """The address of a report of strings that want more than to be read."""
    streams = []
    for number, text in enumerate((*HOSTILE, CONTROLS), 1):
        records = [
            At(1000, Kind.OPERATION_BEGIN, (text, number, 0, bytes([number]) * 16, 0, {text: text})),
            context(1001, op=number),
            begin(2000, text),
            At(3000, Kind.LOG, (40, text, text, None)),
            At(4000, Kind.EXCEPTION, (text, text, "main", text)),
            end(9000, text, error=text),
            operation_end(10_000, number, error=text),
        ]
        streams.append(Stream(text, number, host=text, program=text).generation(1, records, skip={2: 1}))
    path = tmp_path / "report.html"
    with snapshot(tmp_path, *streams, reason=" ".join(HOSTILE), host=HOSTILE[1]) as opened, path.open("wb") as file:
        write_report(opened, file.write)
    return path.as_uri()


def test_report_is_light_or_dark_as_its_reader_wants(chromium: Browser, page: str) -> None:
    chromium.open(page)
    seen = []
    for scheme in ("light", "dark"):
        chromium.scheme(scheme)
        seen.append((*chromium.run(INK_AND_PAPER), chromium.run(FILL)))
    assert seen == [
        ("rgb(31, 35, 40)", "rgb(255, 255, 255)", "rgb(142, 197, 255)"),
        ("rgb(230, 237, 243)", "rgb(13, 17, 23)", "rgb(31, 75, 122)"),
    ]


def test_report_asks_for_nothing_and_complains_of_nothing(chromium: Browser, page: str) -> None:
    chromium.open(page)
    assert chromium.console() == []
    assert chromium.requests() == [page]


def test_report_of_hostile_strings_runs_nothing_and_shows_them(chromium: Browser, page: str) -> None:
    chromium.open(page)
    words = chromium.run("return document.body.textContent")
    for text in HOSTILE:
        assert words.count(text) >= 8
    assert words.count(r"a\x00b\x1b[31mc\u202ed\u2066e\x85f") >= 8
    assert not set(words) & set("\x00\x1b\u202e\u2066\x85\ufffd")
    assert chromium.run("return window.executed ?? null") is None
    assert chromium.run("return document.querySelectorAll('script, img, iframe, b, [onload], [onerror]').length") == 0
    assert chromium.run("return document.title").startswith(HOSTILE[0])


def test_report_policy_would_hold_back_what_got_in(chromium: Browser, page: str, tmp_path: Path) -> None:
    """The second line of defence, if the first, which is that all is text, had a hole."""
    path = tmp_path / "report.html"
    path.write_text(path.read_text().replace("</h1>", f"</h1>{HOSTILE[0]}{HOSTILE[1]}<style>body{{color:red}}</style>"))
    chromium.open(page)
    assert chromium.run("return document.querySelectorAll('script, img').length") == 2
    assert chromium.run("return window.executed ?? null") is None
    assert chromium.run(INK_AND_PAPER)[0] != "rgb(255, 0, 0)"
    assert chromium.requests() == [page]
