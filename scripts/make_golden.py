#!/usr/bin/env python3
"""Makes the bytes of tests/golden/*.txt from their text, in place; with ``--check`` only says which files would change.

A byte that changed means that the wire changed: see docs/protocol.md before committing it.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.golden import GOLDEN_DIR, with_bytes  # noqa: E402  # of the checkout


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: make_golden.py [--check]", file=sys.stderr)
        return 2
    changed = 0
    for path in sorted(GOLDEN_DIR.glob("*.txt")):
        old = path.read_text(encoding="utf-8")
        new = with_bytes(old)
        if new == old:
            continue
        changed += 1
        print(f"{path.relative_to(ROOT)}: changed")
        if not arguments:
            path.write_text(new, encoding="utf-8")
    return 1 if changed and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
