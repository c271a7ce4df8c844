"""Fields of dataclasses that travel as msgpack maps: each with what it accepts, so that decoding checks every value."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from frzmq.errors import WireError
from frzmq.wire.codec import Value, shown

REQUIRED: Final = dataclasses.MISSING

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    wanted: str
    decode: Callable[[Any], Any]
    """The checked value; raises ValueError."""
    encode: Callable[[Any], Value]


def _plain(wanted: str, ok: Callable[[Any], bool]) -> Check:
    def decode(value: Any) -> Any:
        if not ok(value):
            raise ValueError
        return value

    return Check(wanted, decode, lambda value: cast(Value, value))


def _field(check: Check, default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"check": check})


def unsigned(bits: int = 64, default: Any = REQUIRED) -> Any:
    return _field(
        _plain(f"an unsigned integer of {bits} bits", lambda v: type(v) is int and 0 <= v < 1 << bits), default
    )


def signed(default: Any = REQUIRED) -> Any:
    return _field(_plain("an integer of 64 bits", lambda v: type(v) is int and -(1 << 63) <= v < 1 << 63), default)


def text(most: int = 256, default: Any = REQUIRED) -> Any:
    return _field(
        _plain(f"a string of at most {most} characters", lambda v: type(v) is str and len(v) <= most), default
    )


def fixed_bytes(size: int, default: Any = REQUIRED) -> Any:
    return _field(_plain(f"{size} bytes", lambda v: type(v) is bytes and len(v) == size), default)


def data_field(most: int, default: Any = REQUIRED) -> Any:
    return _field(_plain(f"at most {most} bytes", lambda v: type(v) is bytes and len(v) <= most), default)


def flag(default: Any = REQUIRED) -> Any:
    return _field(_plain("true or false", lambda v: type(v) is bool), default)


def nested(cls: type, default: Any = REQUIRED) -> Any:
    return _field(nested_check(cls), default)


def nested_check(cls: type) -> Check:
    return Check(f"a map ({cls.__name__})", lambda value: from_map(cls, value, cls.__name__), to_map)


def row_check(cls: type) -> Check:
    """A dataclass of unsigned integers as a list, in the order of its fields; more of them, of a newer peer, are ignored."""
    names = [f.name for f in dataclasses.fields(cls)]

    def decode(value: Any) -> Any:
        if not isinstance(value, list) or len(value) < len(names):
            raise ValueError
        return cls(
            *(check.decode(each) for (_, check, _), each in zip(_fields_of(cast(Any, cls)), value, strict=False))
        )

    return Check(f"a list ({cls.__name__})", decode, lambda row: [getattr(row, name) for name in names])


def many(check: Check, most: int, default: Any = ()) -> Any:
    def decode(value: Any) -> Any:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError
        return tuple(map(check.decode, value))

    lists = Check(f"a list of at most {most}: {check.wanted}", decode, lambda values: [check.encode(v) for v in values])
    return _field(lists, default)


def names(most: int = 1024) -> Any:
    return many(_plain("a string", lambda v: type(v) is str and len(v) <= 256), most)


def _is_range(value: Any) -> Any:
    match value:
        case [int(start), int(end)] if 0 <= start < end < 1 << 64:
            return (start, end)
        case _:
            raise ValueError


def ranges(most: int) -> Any:
    return many(Check("a range [from, to)", _is_range, list), most)


@functools.cache
def _fields_of(cls: Any) -> tuple[tuple[str, Check, bool], ...]:
    """Name, check, and whether it must be there: looked up once, for a message is encoded for every acknowledgement."""
    fields = dataclasses.fields(cls)
    return tuple((f.name, cast(Check, f.metadata["check"]), f.default is dataclasses.MISSING) for f in fields)


def to_map(value: Any) -> dict[str | int, Value]:
    """The fields of a dataclass, each by its check."""
    return {name: check.encode(getattr(value, name)) for name, check, _ in _fields_of(cast(Any, type(value)))}


def from_map(cls: type[T], value: object, what: str) -> T:
    """A ``cls`` out of a map. Raises WireError, which calls it ``what``; ValueError when it is no map at all."""
    if not isinstance(value, dict):
        raise ValueError(f"{what}: wanted a map, got {type(value).__name__}")
    arguments = {}
    for name, check, required in _fields_of(cast(Any, cls)):
        if name in value:
            try:
                arguments[name] = check.decode(value[name])
            except ValueError:
                raise WireError(f"{what}.{name}: wanted {check.wanted}, got {shown(value[name])}") from None
        elif required:
            raise WireError(f"{what}.{name}: wanted {check.wanted}, got nothing")
    return cls(**arguments)
