"""A program: ``frzmq`` whose recorder has shorter patience than anybody can configure. ``python quick_recorder.py SILENCE_S CLIENT_S IDLE_S recorder ...``

``SILENCE_S``: a tracer that was not heard for so long is silent. ``CLIENT_S``: no client takes longer for its snapshot; ``IDLE_S``: nor for any part of it.
"""

from __future__ import annotations

import dataclasses
import sys

import frzmq.cli.recorder
from frzmq.cli import main
from frzmq.recorder import spool


def hurry(silence_s: float, client_s: float, idle_s: float) -> None:
    config = frzmq.cli.recorder._config
    frzmq.cli.recorder._config = lambda args: dataclasses.replace(config(args), silence_ns=round(silence_s * 1e9))
    spool.TOTAL_NS = round(client_s * 1e9)  # type: ignore[misc]  # final but for this program
    defaults = spool.Spools.__init__.__kwdefaults__
    assert defaults is not None
    defaults["idle_ns"] = round(idle_s * 1e9)


if __name__ == "__main__":
    hurry(*map(float, sys.argv[1:4]))
    sys.exit(main(sys.argv[4:]))
