"""A recorder as a process of its own, ended by its handle."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from frzmq.control.client import ControlClient
from frzmq.errors import ConfigError
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate
from support.programs import PACKAGE_PARENT
from support.until import until

DEADLINE_S = 20.0
T = TypeVar("T")


FRZMQ = ("-m", "frzmq")


class RecorderProcess:
    """``frzmq recorder --listen ADDRESS ARGUMENTS...``, serving once made. ``program``: what stands in for ``frzmq``, as arguments of Python."""

    def __init__(
        self, address: str, *arguments: str, stdin: int = subprocess.DEVNULL, program: Sequence[str] = FRZMQ
    ) -> None:
        self.address = address
        self.process = start(address, *arguments, stdin=stdin, program=program)
        line = self._first_line()
        if not line.startswith(b"ready "):
            self.process.kill()
            raise AssertionError(f"wanted 'ready', got {line!r}, {self.process.communicate()[1]!r}")

    def _first_line(self) -> bytes:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], DEADLINE_S)[0], "it said nothing"
        line: bytes = self.process.stdout.readline()
        return line

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and standard error."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said.decode()

    def rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def cpu_s(self) -> float:
        """Of all its threads, so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(
    address: str, *arguments: str, stdin: int = subprocess.DEVNULL, program: Sequence[str] = FRZMQ
) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (PACKAGE_PARENT, os.environ.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        [sys.executable, "-P", *program, "recorder", "--listen", address, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


@contextlib.contextmanager
def recorder_process(address: str, *arguments: str, program: Sequence[str] = FRZMQ) -> Iterator[RecorderProcess]:
    """``address``: ``tcp`` stands for three ports of the system's choice."""
    if address == "tcp":
        recorder = on_tcp(lambda served: RecorderProcess(served, *arguments, program=program))
    else:
        recorder = RecorderProcess(address, *arguments, program=program)
    try:
        yield recorder
    finally:
        if recorder.process.poll() is None:
            code, said = recorder.end()
            assert (code, [line for line in said.splitlines() if "what dead processes left is in" not in line]) == (
                0,
                [],
            )
        for stream in (recorder.process.stdout, recorder.process.stderr):
            if stream is not None:
                stream.close()


def taken(recorder: RecorderProcess, path: Path) -> Snapshot:
    """A snapshot of all that it holds, in a new file, without an error in it."""
    with path.open("xb") as file, ControlClient(recorder.address) as client:
        client.snapshot(file)
    opened = open_snapshot(path)
    assert [str(finding) for finding in validate(opened) if finding.level is Level.ERROR] == []
    return opened


def on_tcp(serve: Callable[[str], T]) -> T:
    """What ``serve`` makes at an address with three ports of the system's choice. Tries again when somebody was given one of them in the meantime."""
    for _ in range(20):
        try:
            return serve(f"tcp://127.0.0.1:{_free_ports()}")
        except (AssertionError, ConfigError) as error:
            if "Address already in use" not in str(error):
                raise
    raise AssertionError("no three free ports in a row")


def _free_ports() -> int:
    """The first of three that were free a moment ago."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            return port


def until_gone(path: Path) -> None:
    until(lambda: not path.exists(), f"{path} is still there", DEADLINE_S)


def until_ended(pid: int) -> None:
    """Of a process that is somebody else's to wait for, and may not have done so yet."""
    until(lambda: not _runs(pid), f"{pid} still runs", DEADLINE_S)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
