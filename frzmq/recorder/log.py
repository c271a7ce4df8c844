"""What the recorder says on standard error."""

from __future__ import annotations

import contextlib
import sys


def log(line: str) -> None:
    """One line on standard error, if there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"frzmq recorder: {line}\n")
        sys.stderr.flush()
