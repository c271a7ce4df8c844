"""Values and lines of the wire's text form (see text): JSON with bytes as h'0aff', integer keys, ``inf`` and ``nan``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final, NoReturn

from frzmq.errors import WireError
from frzmq.wire.codec import Value

_MAX_DEPTH: Final = 16
_TOKEN: Final = re.compile(
    r"""(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
    |(?P<bytes>h'[0-9a-f]*')
    |(?P<number>-?(?:(?:inf|nan)\b|[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?(?![0-9a-zA-Z_])))
    |(?P<word>[a-z_]+\??)
    |(?P<mark>[\[\]{}:,=+])""",
    re.VERBOSE,
)
_HEX: Final = re.compile(r"[ \t]*hex ((?:[0-9a-f]{2})+)[ \t\r]*(?:#.*)?")
_BLANK: Final = re.compile(r"[ \t\r]*(?:\#.*)?")
_WORDS: Final[dict[str, Value]] = {"null": None, "true": True, "false": False}


def format_value(value: object, depth: int = 0) -> str:
    """One msgpack value as text. Raises WireError for what nests deeper than text does."""
    if depth > _MAX_DEPTH:
        raise WireError(f"text: wanted values nested at most {_MAX_DEPTH} deep, got more")
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case bytes():
            return f"h'{value.hex()}'"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            return (
                "{"
                + ", ".join(f"{format_value(k, depth + 1)}: {format_value(v, depth + 1)}" for k, v in value.items())
                + "}"
            )
        case list() | tuple():
            return "[" + ", ".join(format_value(item, depth + 1) for item in value) + "]"
        case _:
            return repr(value)


class Line:
    """One line and the token that comes next in it."""

    __slots__ = ("_at", "_text", "kind", "next", "number")

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self._text = text
        self._at = 0
        self.kind = self.next = ""
        self._advance()

    def _advance(self) -> None:
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None  # it matches the empty string
        self._at = blank.end()
        found = _TOKEN.match(self._text, self._at)
        if found is not None:
            self.kind, self.next, self._at = found.lastgroup or "", found.group(), found.end()
        elif self._at == len(self._text):
            self.kind = self.next = ""
        else:
            self.next = self._text[self._at : self._at + 40]
            self.fail("a word, a value or a mark")

    def fail(self, wanted: str) -> NoReturn:
        raise WireError(f"line {self.number}: wanted {wanted}, got {self.next[:40]!r}" if self.next else f"line {self.number}: wanted {wanted}, got its end")  # fmt: skip

    def take(self, kind: str, wanted: str) -> str:
        if self.kind != kind:
            self.fail(wanted)
        token = self.next
        self._advance()
        return token

    def mark(self, mark: str) -> None:
        if self.kind != "mark" or self.next != mark:
            self.fail(repr(mark))
        self._advance()

    def word(self, wanted: str) -> str:
        return self.take("word", wanted)

    def one_of(self, names: Iterable[str], wanted: str) -> str:
        if self.kind != "word" or self.next not in names:
            self.fail(wanted)
        return self.word(wanted)

    def end(self) -> None:
        if self.kind:
            self.fail("its end")

    def unsigned(self) -> int:
        if self.kind != "number" or not self.next.isdecimal():
            self.fail("an unsigned integer")
        number = self.value()
        assert isinstance(number, int)
        return number

    def value(self, depth: int = 0) -> Value:
        if depth > _MAX_DEPTH:
            self.fail(f"values nested at most {_MAX_DEPTH} deep")
        kind, token = self.kind, self.next
        if kind == "string":
            try:
                text = json.loads(token)
                text.encode()
            except ValueError:
                self.fail("a string as in JSON")
            self._advance()
            return str(text)
        if kind == "bytes":
            if len(token) % 2 == 0:
                self.fail("two digits for each byte")
            self._advance()
            return bytes.fromhex(token[2:-1])
        if kind == "number":
            return self._number()
        if kind == "word" and token in _WORDS:
            self._advance()
            return _WORDS[token]
        if (kind, token) == ("mark", "["):
            return self._list(depth)
        if (kind, token) != ("mark", "{"):
            self.fail("a value")
        return self._map(depth)

    def _number(self) -> int | float:
        token = self.next
        digits = token.removeprefix("-")
        if not digits.isdecimal():
            number: int | float = float(token)
        elif len(digits) > 20 or not -(1 << 63) <= (number := int(token)) < 1 << 64:
            self.fail("an integer of 64 bits")
        self._advance()
        return number

    def _list(self, depth: int) -> list[Value]:
        items: list[Value] = []
        self.mark("[")
        while self.next != "]":
            if items:
                self.mark(",")
            items.append(self.value(depth + 1))
        self.mark("]")
        return items

    def _map(self, depth: int) -> dict[str | int, Value]:
        items: dict[str | int, Value] = {}
        self.mark("{")
        while self.next != "}":
            if items:
                self.mark(",")
            key_token = self.next
            key = self.value(depth + 1)
            if not isinstance(key, str | int) or isinstance(key, bool) or key in items:
                raise WireError(f"line {self.number}: wanted a new string or integer as key, got {key_token[:40]}")
            self.mark(":")
            items[key] = self.value(depth + 1)
        self.mark("}")
        return items

    def pairs(self, names: Iterable[str], found: dict[str | int, Value] | None = None) -> dict[str | int, Value]:
        """``name=value`` up to the end, each name once, also among those ``found`` before."""
        found = {} if found is None else found
        while self.kind:
            name = self.next
            self.one_of([n for n in names if n not in found], f"one of {' '.join(names)}, each once")
            self.mark("=")
            found[name] = self.value()
        return found

    def hex(self) -> bytes:
        """The whole line, which is ``hex`` and digits: these are no token, they look like words and numbers."""
        found = _HEX.fullmatch(self._text)
        if found is None:
            self.fail("'hex' and an even count of digits")
        return bytes.fromhex(found.group(1))


def split_lines(text: str) -> list[Line]:
    """The lines that say something."""
    return [line for number, words in enumerate(text.split("\n"), 1) if words and (line := Line(number, words)).kind]
