"""Servers of several processes, asked over a unix socket; ended by their handle, and gone with all of their processes."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from support.programs import environment
from support.until import until

DEADLINE_S = 30.0
END_S = 20.0
"""Less than what any of the servers grants its workers."""


class _UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(self.host)


def ask(address: Path, path: str = "/") -> str:
    """The body of a good answer. Raises OSError and http.client.HTTPException: there is none."""
    connection = _UnixConnection(str(address))
    try:
        # the name in the request is none: the socket's path has no place there
        connection.request("GET", path, headers={"Host": "localhost", "Connection": "close"})
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise http.client.HTTPException(f"{response.status}: {body}")
    return body


class Server:
    """``python -m ARGUMENTS...`` in ``directory``, in a session of its own; what it says goes to a file there."""

    def __init__(self, directory: Path, *arguments: str, **variables: str) -> None:
        self.address = directory / "http"
        self._log = directory / "said.txt"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env=environment(**variables),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.processes():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        if error is not None:
            error.add_note(self.said())

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def processes(self) -> list[int]:
        """Those of its session, that have not ended."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                except OSError:
                    continue  # it has gone in the meantime
                if int(session) == self.process.pid and state not in "ZX":
                    found.append(int(entry.name))
        return found

    def serves(self) -> bool:
        try:
            ask(self.address, "/ready")
        except (OSError, http.client.HTTPException):
            assert self.process.poll() is None, self.said()
            return False
        return True

    def answers(self, number: int, workers: int = 1) -> Counter[int]:
        """To ``number`` requests, and to as many more as it takes until so many workers have answered: how many each. A worker that ends may refuse
        one without having looked at it."""
        until(self.serves, "a server that serves")
        answers: Counter[int] = Counter()
        deadline = time.monotonic() + DEADLINE_S
        with ThreadPoolExecutor(4) as pool:
            while answers.total() < number or len(answers) < workers:
                assert time.monotonic() < deadline, f"wanted {workers} workers, got {answers}\n{self.said()}"
                answers.update(pid for pid in pool.map(lambda _: self._answer(), range(8)) if pid)
        return answers

    def _answer(self) -> int | None:
        try:
            return int(ask(self.address))
        except (OSError, http.client.HTTPException):
            return None

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code; nothing of it is left."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(END_S)
        until(lambda: not self.processes(), "the end of all of its processes", END_S)
        return code


def write(path: Path, code: str) -> None:
    path.write_text(textwrap.dedent(code))
