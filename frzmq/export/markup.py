"""HTML in which whatever is not made here is text: no string gets into a page as markup unless it says that it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from frzmq.export.text import clean

MAX_TEXT_CHARS = 1000


class Markup(str):
    """Already HTML."""

    __slots__ = ()


def html(*parts: str) -> Markup:
    """Each part as it is if it is `Markup`, else as text."""
    return Markup("".join(part if isinstance(part, Markup) else escape(clean(part, MAX_TEXT_CHARS)) for part in parts))


def element(name: str, *parts: str, **attributes: str) -> Markup:
    """``class_`` is class: the word is Python's."""
    quoted = "".join(f' {key.rstrip("_")}="{html(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{quoted}>{html(*parts)}</{name}>")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Markup:
    """The first ``left`` columns to the left, the others, which are numbers, to the right."""

    def cells(name: str, values: Sequence[str]) -> Markup:
        placed = [
            element(name, value) if n < left else element(name, value, class_="n") for n, value in enumerate(values)
        ]
        return element("tr", *placed)

    body = [cells("td", row) for row in rows]
    return element(
        "div",
        element("table", element("thead", cells("th", headings)), element("tbody", *body)),
        class_="t",
    )
