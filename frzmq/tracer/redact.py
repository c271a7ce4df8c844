"""Names that look like secrets: the values of such attributes never enter the buffer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

REDACTED: Final = "[redacted]"
SECRET_WORDS: Final = (
    "password", "passwd", "passphrase", "secret", "token", "apikey", "accesskey", "privatekey", "authorization", "credential", "cookie",
    "session", "signature", "bearer", "jwt",
)  # fmt: skip
_SHORT_WORDS: Final = frozenset({"auth", "pwd", "pin", "otp", "cvv", "cvc", "ssn", "pass"})
"""Too short to be looked for inside of other words: they count only as a whole part of a name."""

_extra: tuple[str, ...] = ()


def configure(words: Iterable[str]) -> None:
    """More words that make a name a secret one, wherever they are in it, in any case."""
    global _extra
    _extra = tuple(plain for word in words if (plain := _plain(word)))
    is_secret.cache_clear()


@lru_cache(4096)
def is_secret(name: str) -> bool:
    """Whether a value of this name is to be replaced; ``-``, ``_``, ``.``, blanks and case do not matter."""
    plain = _plain(name)
    if any(word in plain for word in SECRET_WORDS) or any(word in plain for word in _extra):
        return True
    parts = name.lower().translate(_TO_BLANKS).split()
    return not _SHORT_WORDS.isdisjoint(parts)


_TO_BLANKS: Final = str.maketrans("-_./:", "     ")


def _plain(name: str) -> str:
    return name.lower().translate(_TO_BLANKS).replace(" ", "")
