"""Waiting for what others do: looked at again and again, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_S = 30.0


def until(condition: Callable[[], object], what: str = "", seconds: float = DEADLINE_S) -> None:
    """``what``: for people, what is wrong when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
