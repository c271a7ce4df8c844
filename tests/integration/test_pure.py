"""Where nothing was compiled there is the buffer in pure Python: it is taken, the status says so, and who insists on the native one is told."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.programs import DEADLINE_S, Program, environment

pytestmark = pytest.mark.skipif(
    find_spec("frzmq.tracer._buffer") is not None, reason="the native buffer is here; `tox -e pure` has none"
)


@pytest.mark.parametrize("kind", ["auto", "py"])
def test_it_falls_back_and_the_status_says_so(runtime_directory: Path, tmp_path: Path, kind: str) -> None:
    program = Program(
        tmp_path / "program.py",
        """
        import sys, frzmq
        with frzmq.start(service="pure") as flight:
            frzmq.event("here")
            assert flight.flush()
            print(flight.address, flush=True)
            sys.stdin.readline()
        """,
        FRZMQ_BUFFER=kind,
    )
    address = program.line()
    status = subprocess.run(
        [sys.executable, "-m", "frzmq", "status", address, "--json"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=DEADLINE_S,
        check=True,
    )
    program.tell("end")
    program.end()
    [tracer] = json.loads(status.stdout)["tracers"]
    assert tracer["buffer_kind"].split()[0] == "py"


def test_a_native_buffer_that_is_not_to_be_had_is_an_error(runtime_directory: Path, tmp_path: Path) -> None:
    program = Program(
        tmp_path / "program.py",
        """
        import frzmq
        from frzmq.errors import ConfigError
        try:
            frzmq.start(service="pure")
        except ConfigError as error:
            print(error)
        """,
        FRZMQ_BUFFER="c",
    )
    assert "FRZMQ_BUFFER" in program.end()
