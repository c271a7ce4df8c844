"""Exits with 1 unless the installed frzmq has the native buffer: of wheels, whose extension is optional.

python scripts/check_native.py
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    try:
        native = importlib.import_module("frzmq.tracer._buffer")
    except ImportError as error:
        sys.exit(f"wanted the native buffer, got none: {error}")
    print(native.__file__)


if __name__ == "__main__":
    main()
