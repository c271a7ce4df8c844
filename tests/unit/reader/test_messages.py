from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frzmq.reader.messages import format_message
from frzmq.wire.codec import Value


@pytest.mark.parametrize(
    ("template", "args", "wanted"),
    [
        ("plain 100%", {}, "plain 100%"),
        ("%s has %d of %5.1f%%", {"0": "it", "1": 3, "2": 2.55}, "it has 3 of   2.5%"),
        ("%(a)s and %(b)r", {"a": "x", "b": "y"}, "x and 'y'"),
        ("%08x|%-5s|%+d", {"0": 255, "1": "ab", "2": 7}, "000000ff|ab   |+7"),
        ("%d of an object", {"0": "Thing"}, "Thing of an object"),
        ("%s and %s", {"0": "only one"}, "%s and %s"),
        ("%(missing)s", {"a": 1}, "%(missing)s"),
        ("%999999999d", {"0": 1}, "%999999999d"),
        ("%.999999999f", {"0": 1.0}, "%.999999999f"),
        ("%y", {"0": 1}, "%y"),
    ],
)
def test_format_message_is_what_logging_would_have_said(template: str, args: dict[str, Value], wanted: str) -> None:
    assert format_message(template, args) == wanted


@given(
    st.text(alphabet="%(a0)s-d.5*9 ", max_size=60),
    st.dictionaries(st.sampled_from(["0", "1", "a"]), st.integers() | st.text()),
)
def test_format_message_of_anything_is_a_short_text(template: str, args: dict[str, Value]) -> None:
    longest = max([len(str(value)) for value in args.values()], default=0)
    assert len(format_message(template, args)) <= len(template) * (300 + 2 * longest) + 1


def test_format_message_of_many_percents_takes_no_time() -> None:
    begin = time.monotonic()
    format_message("%" * 200_000, {"0": 1})
    format_message("%(" * 100_000, {"0": 1})
    assert time.monotonic() - begin < 5
