"""Whether a tracer that no recorder has heard of may leave its buffer behind."""

from __future__ import annotations

import os
from typing import Final

from frzmq.transport.addresses import Endpoints
from frzmq.transport.outbound import is_listening

MOST_BUFFERS: Final = 64
"""In the directory, this one with it: while a recorder is stopped nobody removes them, and each is memory of the machine."""


def is_awaited(endpoints: Endpoints) -> bool:
    """A recorder serves in the directory, stopped as it may be, which will find what is left there; and not too much is there already."""
    if endpoints.directory is None or not is_listening(endpoints.link):
        return False
    try:
        names = os.listdir(endpoints.directory)
    except OSError:
        return False
    return sum(name.endswith(".buf") for name in names) <= MOST_BUFFERS
