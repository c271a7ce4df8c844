"""Values as they enter a record: msgpack of exact built-in types, bounded. Nothing here runs code of the program's objects.

Encoded by hand: the msgpack package is not loaded by ``import frzmq``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from frzmq.tracer.redact import REDACTED, is_secret

MAX_NAME_BYTES: Final = 256
MAX_VALUE_BYTES: Final = 1024
MAX_ATTRIBUTES: Final = 32
OMITTED_KEY: Final = "frzmq.omitted"
"""The value of this key counts the attributes beyond MAX_ATTRIBUTES."""
NIL: Final = b"\xc0"
ZERO: Final = b"\x00"

_U32: Final = Struct(">BI").pack
_U64: Final = Struct(">BQ").pack
_I64: Final = Struct(">Bq").pack
_F64: Final = Struct(">Bd").pack
_type_name: Final = type.__dict__["__name__"].__get__
_CUT: Final = "…".encode()


def type_name(cls: type) -> str:
    """The class's own name, whatever its metaclass says."""
    name = _type_name(cls)
    return name if type(name) is str else "?"


def encode_bounded(text: str, most: int) -> bytes:
    """UTF-8 of at most ``most`` bytes; a longer one ends in an ellipsis. Lone surrogates become escapes."""
    data = text[: most + 1].encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return data
    return data[: most - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT


def bounded(text: str, most: int) -> str:
    return encode_bounded(text, most).decode()


def pack_uint(value: int) -> bytes:
    """An unsigned integer below 2**64."""
    if value < 128:
        return value.to_bytes(1, "big")
    if value < 1 << 32:
        return _U32(0xCE, value)
    return _U64(0xCF, value)


def pack_text(text: str, most: int = MAX_VALUE_BYTES) -> bytes:
    data = encode_bounded(text, most)
    size = len(data)
    if size < 32:
        return (0xA0 | size).to_bytes(1, "big") + data
    if size < 256:
        return b"\xd9" + size.to_bytes(1, "big") + data
    return b"\xda" + size.to_bytes(2, "big") + data


def pack_bytes(data: bytes, most: int = MAX_VALUE_BYTES) -> bytes:
    data = data[:most]
    size = len(data)
    if size < 256:
        return b"\xc4" + size.to_bytes(1, "big") + data
    return b"\xc5" + size.to_bytes(2, "big") + data


def pack_value(value: object) -> bytes:
    """A scalar; anything but an exact int, float, bool, str, bytes or None becomes the name of its type."""
    cls = type(value)
    if cls is int:
        number: int = value  # type: ignore[assignment]  # narrowed by the exact type
        if 0 <= number < 1 << 64:
            return pack_uint(number)
        if -(1 << 63) <= number < 0:
            return _I64(0xD3, number)
        return pack_text("int")
    if cls is str:
        return pack_text(value)  # type: ignore[arg-type]
    if cls is float:
        return _F64(0xCB, value)
    if value is None:
        return NIL
    if value is True:
        return b"\xc3"
    if value is False:
        return b"\xc2"
    if cls is bytes:
        return pack_bytes(value)  # type: ignore[arg-type]
    return pack_text(type_name(cls))


_REDACTED: Final = pack_text(REDACTED)


def pack_attributes(attributes: Mapping[str, object], intern: Callable[[str], bytes]) -> bytes:
    """A map of string refs to scalars, nil when empty. Values of secret names are replaced."""
    if not attributes:
        return NIL
    count = min(len(attributes), MAX_ATTRIBUTES)
    parts: list[bytes] = []
    for name, value in attributes.items():
        if len(parts) == 2 * count:
            parts += (intern(OMITTED_KEY), pack_uint(len(attributes) - count))
            break
        if type(name) is not str:
            name = type_name(type(name))
        parts += (intern(name), _REDACTED if is_secret(name) else pack_value(value))
    pairs = len(parts) // 2
    head = (0x80 | pairs).to_bytes(1, "big") if pairs < 16 else b"\xde" + pairs.to_bytes(2, "big")
    return head + b"".join(parts)
