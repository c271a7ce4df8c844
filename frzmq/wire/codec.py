"""msgpack with limits: the only place that imports it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgpack

from frzmq.errors import WireError

Scalar: TypeAlias = bool | int | float | str | bytes | None
Value: TypeAlias = "Scalar | list[Value] | dict[str | int, Value]"

MAX_MESSAGE_BYTES: Final = 1 << 20
MAX_STRING_BYTES: Final = 64 << 10
MAX_BINARY_BYTES: Final = 256 << 10
"""A chunk of a snapshot is the largest there is."""
MAX_CONTAINER: Final = 64 << 10
"""The most elements of one list or map. An empty map costs 64 bytes in memory for one on the wire: hence this and the byte limit."""

MAX_FLAT_LIST: Final = 16
"""The most elements of a list inside a flat run: no field of a record is one."""

_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:
            # the interpreter converts no more than some thousand digits
            return f"<an integer of {x.bit_length()} bits>"


_REPR = _Short()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 60


def shown(value: object) -> str:
    """A value of a peer's for a message: at most 60 characters, however large or deep the value is (``repr`` alone ends in RecursionError)."""
    return _REPR.repr(value)[:60]


def pack(value: Value) -> bytes:
    """``value`` as msgpack."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _no_extensions(code: int, data: bytes) -> None:  # noqa: ARG001  # what msgpack calls it with
    raise ValueError(f"an extension value (type {code}) is not allowed here")


def _unpacker(size_bytes: int, max_list: int) -> msgpack.Unpacker:
    return msgpack.Unpacker(
        raw=False,
        strict_map_key=False,
        ext_hook=_no_extensions,
        max_buffer_size=max(size_bytes, 1),
        max_str_len=min(size_bytes, MAX_STRING_BYTES),
        max_bin_len=min(size_bytes, MAX_BINARY_BYTES),
        max_array_len=min(size_bytes, max_list),
        max_map_len=min(size_bytes, MAX_CONTAINER),
        max_ext_len=0,
        # never calls back into Python for a key: keys are str or int
        use_list=True,
    )


def _scan(data: bytes | memoryview) -> None:
    """Walks over the value without making it: a list takes its memory at its claim, and claims nest, so first what is claimed must be there."""
    unpacker = _unpacker(len(data), MAX_CONTAINER)
    unpacker.feed(data)
    unpacker.skip()


def unpack(data: bytes | memoryview, what: str = "message", max_bytes: int = MAX_MESSAGE_BYTES) -> Value:
    """The one value in ``data``. Raises WireError: too long, cut short, with bytes behind it, or not msgpack as frzmq uses it."""
    if len(data) > max_bytes:
        raise WireError(f"{what}: wanted at most {max_bytes} bytes, got {len(data)}")
    try:
        _scan(data)
        unpacker = _unpacker(len(data), MAX_CONTAINER)
        unpacker.feed(data)
        value: Value = unpacker.unpack()
        rest = len(data) - unpacker.tell()
    except _ERRORS as error:
        raise WireError(
            f"{what}: wanted one msgpack value, got {len(data)} bytes that are not: {str(error) or type(error).__name__}"
        ) from None
    if rest:
        raise WireError(f"{what}: wanted one msgpack value, got {rest} more bytes behind it")
    return value


def unpack_values(data: bytes | memoryview, what: str = "body") -> Iterator[Value]:
    """The values of a flat run of msgpack, one at a time. Raises WireError at the first that is cut short or no msgpack."""
    for value, _ in unpack_with_ends(data, what):
        yield value


def unpack_with_ends(data: bytes | memoryview, what: str = "body") -> Iterator[tuple[Value, int]]:
    """As `unpack_values`, each with the offset behind it."""
    unpacker = _unpacker(len(data), MAX_FLAT_LIST)
    size_bytes = len(data)
    try:
        unpacker.feed(data)
        while unpacker.tell() < size_bytes:
            yield unpacker.unpack(), unpacker.tell()
    except _ERRORS as error:
        raise WireError(
            f"{what}: not msgpack at byte {unpacker.tell()} of {size_bytes}: {str(error) or type(error).__name__}"
        ) from None
