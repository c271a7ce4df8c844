"""Places that are short of something, as prefixes: commands that become the one that follows them, in that place."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.programs import Program, environment
from support.recorder_process import DEADLINE_S, RecorderProcess


def wants_root(why: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(why)


def wants_tools(*names: str) -> None:
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def with_limit(**limits: int) -> Sequence[str]:
    """Soft and hard limits by the names of ``prlimit``: ``nofile=64``."""
    wants_tools("prlimit")
    return ("prlimit", *(f"--{name}={limit}:{limit}" for name, limit in limits.items()), "--")


def with_mounts(*mounts: str) -> Sequence[str]:
    """In a mount namespace of its own, in which these arguments of ``mount`` are carried out: nothing is to be cleaned up."""
    wants_root("a mount namespace wants root")
    wants_tools("unshare", "mount")
    script = " && ".join([*(f"mount {shlex.join(shlex.split(mount))}" for mount in mounts), 'exec "$@"'])
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this system does not let root mount: {tried.stderr.strip()}")
    return prefix


class PlacedRecorder(RecorderProcess):
    """As a `RecorderProcess`, in a place; ``variables`` are of its environment."""

    def __init__(self, prefix: Sequence[str], address: str, *arguments: str, **variables: str) -> None:
        self.address = address
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-P", "-m", "frzmq", "recorder", "--listen", address, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**variables),
            start_new_session=True,
        )
        line = self._first_line()
        if not line.startswith(b"ready "):
            self.process.kill()
            raise AssertionError(f"wanted 'ready', got {line!r}, {self.process.communicate()[1]!r}")


@contextlib.contextmanager
def placed_recorder(
    prefix: Sequence[str], address: str, *arguments: str, said: Sequence[str] = (), **variables: str
) -> Iterator[PlacedRecorder]:
    """Ends well, and says nothing but lines that begin with one of ``said`` (after its name)."""
    recorder = PlacedRecorder(prefix, address, *arguments, **variables)
    try:
        yield recorder
        code, err = recorder.end()
        assert code == 0, (code, err)
        known = tuple(f"frzmq recorder: {line}" for line in said)
        assert [line for line in err.splitlines() if not line.startswith(known)] == []
    finally:
        ended(recorder.process)


@contextlib.contextmanager
def started(path: Path, code: str, *arguments: str, prefix: Sequence[str] = (), **variables: str) -> Iterator[Program]:
    """A `Program` that is gone in the end, however the test ends."""
    program = Program(path, code, *arguments, prefix=prefix, **variables)
    try:
        yield program
    finally:
        ended(program.process)


def ended(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(DEADLINE_S)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def frzmq(*arguments: str, prefix: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """``frzmq ARGUMENTS...``, as people call it."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "frzmq", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        stdin=subprocess.DEVNULL,
        env=environment(**variables),
    )
