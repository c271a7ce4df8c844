"""The embedded recorder: a worker process of this program's own.

It is a fresh interpreter (``python -m frzmq recorder``), in its own session, and no child of this process: a short-lived shell starts it, so that a
program that reaps its children with ``os.wait()`` never meets it. The program's end of its standard input is what keeps it alive: when
that closes, by `EmbeddedRecorder.close` or by the program's death, it finishes and goes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from frzmq.config import RecorderConfig, ensure_private_dir, runtime_dir
from frzmq.errors import StateError

READY_TIMEOUT_S = 20.0
"""An interpreter on a loaded machine takes seconds to start."""
CLOSE_TIMEOUT_S = 12.0
"""It has 10 s to write what it must."""
KILLED_S = 2.0
"""Until a process that was killed has ended; one that hangs in the kernel does not."""
PREFIX = "r"
"""Of the directories of embedded recorders."""


class EmbeddedRecorder:
    """Starts the worker and waits until it serves. Raises StateError when it does not."""

    def __init__(self, config: RecorderConfig, directory: str | None = None) -> None:
        if not sys.executable:
            raise StateError(
                "embedded recorder: wanted a Python interpreter in sys.executable, got none; join a running one instead"
            )
        parent = ensure_private_dir(directory or runtime_dir())
        self.directory = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        self.address = f"ipc://{self.directory}"
        self._owner_pid = os.getpid()
        try:
            self._spawn(config)
            self._await_ready()
        except BaseException:
            self.close(0.0)
            raise

    def _spawn(self, config: RecorderConfig) -> None:
        command = [
            sys.executable,
            "-P",
            "-m",
            "frzmq",
            "recorder",
            "--embedded",
            "--remove-dir",
            "--listen",
            self.address,
        ]
        command += ["--min-age", f"{config.min_age_ns}ns", "--max-bytes", str(config.max_bytes)]
        command += ["--snapshots", config.store.directory]
        if not config.on_death:
            command.append("--no-death-snapshots")
        # by way of 3: a shell gives a command in the background an empty standard input first, and `<&0` would be that one (dash)
        shell = ["/bin/sh", "-c", 'trap "" INT; exec 3<&0; "$@" <&3 3<&- & echo pid $!', "sh", *command]
        stdin_read, self._stdin = os.pipe()
        self._stdout, stdout_write = os.pipe()
        try:
            with open(os.path.join(self.directory, "log"), "ab") as log:
                launcher = subprocess.Popen(
                    shell,
                    stdin=stdin_read,
                    stdout=stdout_write,
                    stderr=log,
                    start_new_session=True,
                    cwd="/",
                    env=_environment(),
                )
            try:
                launcher.wait(READY_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                launcher.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    launcher.wait(KILLED_S)
                raise StateError(f"embedded recorder: its shell did not end within {READY_TIMEOUT_S:g} s") from None
        finally:
            os.close(stdin_read)
            os.close(stdout_write)

    def _await_ready(self) -> None:
        """Reads the shell's line (``pid N``) and the worker's (``ready ADDRESS``); others are of what the interpreter loads at its start."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        said = b""
        while True:
            lines = [line.split() for line in said.split(b"\n")[:-1]]
            pids = [int(words[1]) for words in lines if words[:1] == [b"pid"]]
            if pids:
                self.pid = pids[0]
            if pids and any(words[:1] == [b"ready"] for words in lines):
                return
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._stdout], [], [], left)[0]:
                raise StateError(
                    f"embedded recorder: wanted it to serve within {READY_TIMEOUT_S:g} s, got {said!r:.80}"
                )
            data = os.read(self._stdout, 4096)
            if not data:
                raise StateError(f"embedded recorder: it ended before it served: {self._last_words()}")
            said += data

    def _last_words(self) -> str:
        try:
            lines = Path(self.directory, "log").read_text(errors="replace").split("\n")
        except OSError as error:
            return str(error)
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:400]

    @property
    def mine(self) -> bool:
        """This process started it, and is not a fork of the one that did."""
        return os.getpid() == self._owner_pid

    def forget(self) -> None:
        """In a forked child: the recorder is the parent's, and must not live on because a child holds its pipe."""
        for name in ("_stdin", "_stdout"):
            fd = self.__dict__.pop(name, -1)
            if fd >= 0:
                os.close(fd)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Lets it finish and go. True when it went by itself in time; else it is killed."""
        if not self.mine:
            self.forget()
            return True
        stdin = self.__dict__.pop("_stdin", -1)
        stdout = self.__dict__.pop("_stdout", -1)
        if stdin >= 0:
            os.close(stdin)
        ended = stdout < 0 or _wait_end(stdout, timeout_s)
        if not ended and hasattr(self, "pid"):
            # its end of the pipe is still open: the pid is still its own
            os.kill(self.pid, signal.SIGKILL)
        if stdout >= 0:
            os.close(stdout)
        shutil.rmtree(self.directory, ignore_errors=True)
        return ended


def _wait_end(fd: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not os.read(fd, 4096):
            return True
    return False


def _environment() -> dict[str, str]:
    """The program's, without what would make the worker record itself, and so that it finds this very package."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("FRZMQ_") and key != "PYTHONSTARTUP"
    }
    if path := python_path():
        environment["PYTHONPATH"] = path
    return environment


def python_path(*first: str) -> str:
    """This process's PYTHONPATH, behind ``first`` and, where that does not find it by itself, what makes a Python find this very package."""
    parent = Path(__file__).resolve().parent.parent
    package = [] if parent.name in ("site-packages", "dist-packages") else [str(parent)]
    return os.pathsep.join(filter(None, [*first, *package, os.environ.get("PYTHONPATH", "")]))
