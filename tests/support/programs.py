"""Python programs in processes of their own, which find the package where this one found it; ended by their handle."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import frzmq

DEADLINE_S = 30.0
PACKAGE_PARENT = str(Path(frzmq.__file__).resolve().parent.parent)


def environment(**variables: str) -> dict[str, str]:
    """This process's, without what concerns frzmq or Python, and with ``variables``."""
    plain = {
        key: value
        for key, value in os.environ.items()
        # which buffer is tested holds for the programs too
        if key == "FRZMQ_BUFFER" or not key.startswith(("FRZMQ_", "PYTHON"))
    }
    return {**plain, "PYTHONPATH": PACKAGE_PARENT, **variables}


class Program:
    """``python SCRIPT ARGUMENTS...`` with the text ``code`` in SCRIPT. Deprecation warnings are errors in it. ``prefix``: a command that becomes it, such as ``nsenter``."""

    def __init__(self, path: Path, code: str, *arguments: str, prefix: Sequence[str] = (), **variables: str) -> None:
        path.write_text(textwrap.dedent(code))
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-W", "error::DeprecationWarning", str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
            cwd=path.parent,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, code: int = 0, stderr: str = "") -> str:
        """Waits for its end, and returns what it said."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        assert (self.process.returncode, err) == (code, stderr), f"{self.process.returncode}, {err}"
        return out
