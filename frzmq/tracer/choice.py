"""The native buffer, where it was built and is wanted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

native: ModuleType | None = None
"""`frzmq.tracer._buffer`, or None."""
missing = ""
"""Why there is none."""

if os.environ.get("FRZMQ_BUFFER") == "py":
    missing = "FRZMQ_BUFFER is py"
else:
    try:
        from frzmq.tracer import _buffer
    except ImportError as error:
        missing = str(error)
    else:
        native = _buffer
