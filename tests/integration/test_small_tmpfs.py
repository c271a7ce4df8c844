"""Shared memory that is nearly full: a real tmpfs of 1 MiB. Buffers shrink, then are private; nothing dies of SIGBUS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs import DEADLINE_S, Program, environment
from support.recorder_process import recorder_process

from frzmq.control.client import ControlClient
from frzmq.tracer import choice
from frzmq.tracer.buffer import make_buffer
from frzmq.wire.chunk import MIN_BUFFER_BYTES

KIND = "py" if choice.native is None else "c"
PROGRAM = """
import sys
import frzmq
frzmq.start(service="small", recorder=sys.argv[1])
for n in range(5000):
    frzmq.event("e", n=n)
print(frzmq.flush(20), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs wants root")
    with tempfile.TemporaryDirectory(prefix="fz") as name:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", name]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"this system does not let root mount a tmpfs: {mounted.stderr.strip()}")
        try:
            yield Path(name)
        finally:
            # lazily: a mapping of this process may still be there
            subprocess.run(["umount", "--lazy", name], check=True)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_buffer_on_a_small_tmpfs_takes_half_and_half_again_then_private_memory(
    tmpfs: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call != "posix_fallocate":
        monkeypatch.delattr(os, "posix_fallocate")
    (tmpfs / "filler").write_bytes(bytes(100 << 10))
    buffers = [make_buffer("", bytes([n]) * 16, 1, str(tmpfs), 4 << 20) for n in range(4)]
    assert [(b.path is not None, b.size_bytes) for b in buffers] == [
        (True, 512 << 10), (True, MIN_BUFFER_BYTES), (False, 4 << 20), (False, 4 << 20),
    ]  # fmt: skip
    for buffer in buffers:
        # every page is really there: to touch them all does not kill the process
        for _ in range(100_000):
            buffer.writer().append(5, b"\xa0\xc0")
        buffer.close()
    assert sorted(path.name for path in tmpfs.iterdir()) == ["filler"]


def test_programs_on_a_small_tmpfs_record_and_status_says_how(tmpfs: Path, tmp_path: Path) -> None:
    with recorder_process(str(tmpfs)) as recorder, ControlClient(recorder.address) as client:
        programs = [Program(tmp_path / f"p{n}.py", PROGRAM, recorder.address) for n in range(3)]
        for program in programs:
            assert program.line() == "True"
        tracers = client.status().tracers
        assert sorted((t.buffer_kind, t.buffer_bytes) for t in tracers) == [
            (KIND, MIN_BUFFER_BYTES), (KIND, 512 << 10), (f"{KIND} private", 4 << 20),
        ]  # fmt: skip
        assert all(t.records >= 5000 for t in tracers)
        for program in programs:
            program.tell("end")
            program.end()


def test_full_tmpfs_does_not_kill_a_program(tmpfs: Path, tmp_path: Path) -> None:
    with recorder_process(str(tmpfs)) as recorder:
        program = Program(tmp_path / "p.py", PROGRAM, recorder.address)
        assert program.line() == "True"
        fill = "import sys\nwith open(sys.argv[1], 'wb', 0) as file:\n    while True: file.write(bytes(4096))"
        filled = subprocess.run(
            [sys.executable, "-c", fill, str(tmpfs / "filler")],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
            env=environment(),
        )
        assert "No space left" in filled.stderr
        assert program.process.poll() not in {-signal.SIGBUS, -signal.SIGSEGV}
        program.tell("end")
        program.end()
