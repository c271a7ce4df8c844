"""msgpack as it comes takes 155 MB for 4 MiB of empty maps, and raises what it likes: every way in has limits, and one error."""

from __future__ import annotations

import ast
import inspect
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import frzmq
from frzmq.errors import WireError
from frzmq.wire import codec
from frzmq.wire.codec import MAX_CONTAINER, MAX_MESSAGE_BYTES, unpack, unpack_values

EMPTY_MAPS = b"\x80" * (4 << 20)
LIMITS = {"max_buffer_size", "max_str_len", "max_bin_len", "max_array_len", "max_map_len", "max_ext_len"}


def peak_bytes(what: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        what()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(data: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
    with pytest.raises(WireError):
        unpack(data, max_bytes=max_bytes)


def test_msgpack_four_mib_of_empty_maps_take_memory_in_proportion() -> None:
    claims = b"\xdd" + len(EMPTY_MAPS).to_bytes(4, "big") + EMPTY_MAPS
    assert peak_bytes(lambda: refused(claims)) < 64 << 10
    # also where a section of a file may be as long: a list of so many is refused before it is made
    assert peak_bytes(lambda: refused(claims, 8 << 20)) < 2 * len(claims)
    # and a flat run is taken one by one
    run = EMPTY_MAPS[: 64 << 10]
    counted = 0

    def count() -> None:
        nonlocal counted
        counted = sum(1 for _ in unpack_values(run))

    assert peak_bytes(count) < 3 * len(run) + (64 << 10)
    assert counted == len(run)


def test_msgpack_claims_of_what_is_not_there_take_nothing() -> None:
    nested = b"\xdd\x00\x00\xff\xff" * 10_000
    assert peak_bytes(lambda: refused(nested)) < 64 * len(nested)
    for claim in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
        assert peak_bytes(lambda claim=claim: refused(claim + b"\xff" * 4)) < 64 << 10  # type: ignore[misc]  # of this loop


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x90\x01",  # a list as key: TypeError in msgpack
        b"\x81\x80\x01",
        b"\xd4\x01\x00",  # an extension
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp, the extension that msgpack reads itself
        b"\xc7\x00\x05",
        b"\xa1\xff",  # no UTF-8: ValueError
        b"\xc1",
        b"",
        b"\x92\x01",
        b"\x01\x02",
        b"\x91" * 2000 + b"\xc0",
        b"\xdc" + (MAX_CONTAINER - 1).to_bytes(2, "big"),
    ],
)
def test_msgpack_whatever_it_raises_is_a_wire_error(data: bytes) -> None:
    refused(data)


def test_msgpack_is_unpacked_in_one_place_with_every_limit() -> None:
    package = Path(frzmq.__file__).parent
    importers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "msgpack" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "msgpack")
    }
    assert importers == {"wire/codec.py"}
    calls = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(codec)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "msgpack"
    ]
    assert sorted(ast.unparse(call.func) for call in calls) == ["msgpack.Unpacker", "msgpack.packb"]
    (unpacker,) = (call for call in calls if ast.unparse(call.func) == "msgpack.Unpacker")
    assert {keyword.arg for keyword in unpacker.keywords} >= LIMITS | {"ext_hook"}
