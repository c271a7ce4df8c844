"""Versions of the wire protocol."""

from __future__ import annotations

from frzmq.errors import WireError

WIRE_VERSION = 1
OLDEST_WIRE_VERSION = 1
"""A recorder speaks its own version and the one before; version 1 has none before it."""


def choose_version(oldest: int, newest: int) -> int:
    """The newest version that both this side and a peer that speaks ``oldest..newest`` know. Raises WireError if there is none."""
    chosen = min(newest, WIRE_VERSION)
    if chosen < max(oldest, OLDEST_WIRE_VERSION):
        raise WireError(
            f"no common wire version: wanted one of {OLDEST_WIRE_VERSION}..{WIRE_VERSION}, the peer speaks {oldest}..{newest}"
        )
    return chosen
