"""Records while the interpreter ends: nothing of frzmq is to be seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.programs import Program

PROGRAM = """
import frzmq, sys

class Late:
    event = frzmq.event
    gauge = frzmq.gauge

    def __del__(self):
        # raised here it would be told on standard error
        Late.event("late")
        Late.event("late", of="the end")
        Late.gauge("late", 1)

# a module that ends after all others
sys.late = Late()
"""


@pytest.mark.parametrize("buffer", ["auto", "py"])
def test_first_record_while_the_interpreter_ends_is_not_kept_and_raises_nothing(
    tmp_path: Path, runtime_directory: Path, buffer: str
) -> None:
    program = Program(
        tmp_path / "p.py", PROGRAM, FRZMQ_RECORDER=str(runtime_directory), FRZMQ_BUFFER=buffer, FRZMQ_THREADS="0"
    )
    program.end(stderr="")
