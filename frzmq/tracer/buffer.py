"""Picks the buffer's implementation: ``FRZMQ_BUFFER`` or the argument, ``py`` being the only one that this build has."""

from __future__ import annotations

from frzmq.errors import ConfigError
from frzmq.tracer._buffer_py import Buffer
from frzmq.tracer.slices import Cut, Slice, Totals

__all__ = ["Buffer", "Cut", "Slice", "Totals", "make_buffer"]


def make_buffer(kind: str, uuid: bytes, incarnation: int, directory: str | None, size_bytes: int) -> Buffer:
    """``kind``: "" or "auto" for the best there is, or "py". Raises ConfigError for another."""
    if kind not in ("", "auto", "py"):
        raise ConfigError(f"FRZMQ_BUFFER: wanted auto or py, got {kind!r:.40}")
    return Buffer(uuid, incarnation, directory, size_bytes)
