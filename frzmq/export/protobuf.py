"""Protocol Buffers, the writing half: a message is the concatenation of its fields.

Encoding as in the Protocol Buffers documentation: a field is a tag, ``number << 3 | wire type``, and a varint, or 8 bytes, or a size and as many bytes.
"""

from __future__ import annotations

import struct
from typing import Final

_VARINT: Final = 0
_FIXED64: Final = 1
_SIZED: Final = 2
_double: Final = struct.Struct("<d").pack
_MASK: Final = (1 << 64) - 1


def varint(value: int) -> bytes:
    """Seven bits a byte, the low ones first; a negative int as its 64-bit two's complement."""
    value &= _MASK
    if value < 0x80:
        return value.to_bytes(1, "little")
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def integer(number: int, value: int) -> bytes:
    """A field of type int, uint, bool or enum."""
    return varint(number << 3 | _VARINT) + varint(value)


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | _FIXED64) + _double(value)


def data(number: int, value: bytes) -> bytes:
    """A field of type bytes, or a message."""
    return varint(number << 3 | _SIZED) + varint(len(value)) + value


def text(number: int, value: str) -> bytes:
    return data(number, value.encode("utf-8", "backslashreplace"))
