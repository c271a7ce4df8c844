"""Picks the buffer's implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frzmq.errors import ConfigError
from frzmq.tracer import _buffer_py, choice
from frzmq.tracer.slices import Cut, Slice, Totals

if TYPE_CHECKING:
    from frzmq.tracer import _buffer, _writer_py

    Buffer = _buffer_py.Buffer | _buffer.Buffer
    Writer = _writer_py.Writer | _buffer.Writer

__all__ = ["Cut", "Slice", "Totals", "make_buffer"]


def make_buffer(kind: str, uuid: bytes, incarnation: int, directory: str | None, size_bytes: int) -> Buffer:
    """``kind``: "" or "auto" for the best there is, "c" or "py". Raises ConfigError: another one, or the native one is not to be had."""
    if kind not in ("", "auto", "c", "py"):
        raise ConfigError(f"FRZMQ_BUFFER: wanted auto, py or c, got {kind!r:.40}")
    if kind == "c" and choice.native is None:
        raise ConfigError(f"FRZMQ_BUFFER: wanted the native buffer, which there is none of: {choice.missing}")
    if kind == "py" or choice.native is None:
        return _buffer_py.Buffer(uuid, incarnation, directory, size_bytes)
    made: _buffer.Buffer = choice.native.Buffer(uuid, incarnation, directory, size_bytes)
    return made
