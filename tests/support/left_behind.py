"""What a test leaves behind: processes, threads, file descriptors (sockets among them), zmq contexts and files that were not there when it began.

Processes are exact on Linux: the process of the tests is made the reaper of its descendants, so that one whose parent ends becomes its child. Files
are unambiguous beside other workers and users, because every worker has a directory for temporary ones and a runtime directory of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq

GRACE_S: Final = 15.0
"""An embedded recorder whose program is gone has 10 s for what it must write, and is to end then; libzmq closes what it has asynchronously."""
SOON_S: Final = 0.05
TERM_S: Final = 2.0
"""For a context that nobody ended. It ends at once, or waits for a socket that is still open."""
SET_CHILD_SUBREAPER: Final = 36
PROC: Final = Path("/proc/self")
LINUX: Final = sys.platform == "linux" and (PROC / f"task/{os.getpid()}/children").exists()
MEMORY: Final = Path("/dev/shm")

AnyContext = zmq.Context[Any]
Thing = tuple[str, object]
"""Its kind, and what tells it from others of that kind."""


@dataclass(frozen=True, slots=True)
class Present:
    """What there is at one time."""

    processes: frozenset[int]
    threads: dict[int, str]
    descriptors: frozenset[tuple[str, str]]
    """With what each is open on: a number alone may be another one's by now."""
    contexts: frozenset[AnyContext]
    files: frozenset[str]

    @classmethod
    def now(cls, places: Places) -> Present:
        return cls(_children(), _threads(), _descriptors(), frozenset(_contexts.open()), places.files())

    def more_than(self, before: Present) -> dict[Thing, str]:
        """A line for each thing that was not there before."""
        lines: dict[Thing, str] = {("process", pid): _command(pid) for pid in self.processes - before.processes}
        lines |= {("thread", id_): name for id_, name in self.threads.items() if id_ not in before.threads}
        lines |= {("zmq context", id(each)): _sockets_of(each) for each in self.contexts - before.contexts}
        lines |= {("file descriptor", each): " on ".join(each) for each in self.descriptors - before.descriptors}
        return lines | {("file", path): path for path in self.files - before.files}


class Places:
    """Where files may be left: the runtime directory and the one for temporary files, which belong to this process, and the current one."""

    def __init__(self) -> None:
        # short, as a socket's path must be
        self.temporary = Path(tempfile.mkdtemp(prefix="fz"))
        self.runtime = Path(tempfile.mkdtemp(prefix="fz", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self._current = Path.cwd()

    def files(self) -> frozenset[str]:
        found = [f"{self.temporary}/{name}" for name in os.listdir(self.temporary)]
        found += [f"{self._current}/{name}" for name in os.listdir(self._current) if not name.startswith(".")]
        for name in os.listdir(self.runtime):
            path = f"{self.runtime}/{name}"
            # the user's own directory stays, and is empty
            found += [f"{path}/{inner}" for inner in os.listdir(path)] if name == "frzmq" else [path]
        return frozenset(found)

    def remove(self) -> None:
        shutil.rmtree(self.temporary)
        shutil.rmtree(self.runtime)


class _Contexts:
    """Those of this process. Held here, so that none is collected, and then waits for its sockets, while a test runs."""

    def __init__(self) -> None:
        self._made: list[AnyContext] = []
        self._ending: set[int] = set()

    def watch(self) -> None:
        make, term = zmq.Context.__init__, zmq.Context.term

        def made(context: AnyContext, *args: Any, **options: Any) -> None:
            make(context, *args, **options)
            if not context._shadow:
                self._made.append(context)

        def ending(context: AnyContext) -> None:
            self._ending.add(id(context))
            term(context)

        zmq.Context.__init__ = made  # type: ignore[assignment, method-assign]
        zmq.Context.term = ending  # type: ignore[assignment, method-assign]

    def open(self) -> list[AnyContext]:
        self._ending -= {id(context) for context in self._made if context.closed}
        self._made = [context for context in self._made if not context.closed]
        return self._made

    def end(self, context: AnyContext) -> bool:
        """False: it did not end in time."""
        if id(context) not in self._ending:
            threading.Thread(target=context.term, name="term", daemon=True).start()
        return _until(lambda: context.closed, TERM_S)


class _Children:
    """Those that this process itself has started: for them somebody has to wait."""

    def __init__(self) -> None:
        self._started: dict[int, str] = {}
        """When each pid began: a long run has the same one again, for another."""

    def watch(self) -> None:
        fork, popen = os.fork, subprocess.Popen.__init__

        def forked() -> int:
            pid = fork()
            if pid:
                self._started[pid] = _begin(pid)
            return pid

        def opened(process: subprocess.Popen[Any], *args: Any, **options: Any) -> None:
            popen(process, *args, **options)
            self._started[process.pid] = _begin(process.pid)

        os.fork = forked
        subprocess.Popen.__init__ = opened  # type: ignore[assignment, method-assign]

    def reap(self, pid: int) -> bool:
        """True for one that was adopted and has ended; its parent was to wait for it."""
        if self._started.get(pid) == _begin(pid):
            return False
        with contextlib.suppress(ChildProcessError):
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        return True


_contexts = _Contexts()
_started = _Children()
_told: set[Thing] = set()
"""By the test that left it: not once more by its module or the session."""
_shared: set[Thing] = set()
"""Of fixtures of a wider scope that a test was the first to ask for: theirs to end, and the session's to look for."""


def watch() -> None:
    """Once, before the first test."""
    _contexts.watch()
    _started.watch()
    if LINUX:
        assert ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


@contextlib.contextmanager
def shared(places: Places) -> Iterator[None]:
    """What comes here, and stays, is no test's."""
    before = Present.now(places)
    yield
    _shared.update(Present.now(places).more_than(before))


@contextlib.contextmanager
def nothing_left(
    places: Places, failed: Callable[[], bool] = lambda: False, *, of_a_test: bool = True
) -> Iterator[None]:
    """Raises AssertionError at the end, with all that was left. What can be ended then is ended, so that the next test has its peace.

    ``failed``: the test has, and says so itself; its traceback holds what it had.
    """
    before = Present.now(places)
    yield
    passed_over = _told | _shared if of_a_test else _told

    def left() -> dict[Thing, str]:
        lines = Present.now(places).more_than(before)
        return {thing: line for thing, line in lines.items() if thing not in passed_over}

    if not _until(lambda: not left(), SOON_S) and not failed():
        # what is only waiting to be collected says so itself, by a ResourceWarning
        gc.collect()
        _until(lambda: not left(), GRACE_S)
    lines = left()
    _told.update(lines)
    _end(Present.now(places), before, lines)
    assert not lines or failed(), "left behind: " + "; ".join(f"a {kind}: {line}" for (kind, _), line in lines.items())


def _end(found: Present, before: Present, left: Container[Thing]) -> None:
    alone = found.threads.keys() <= before.threads.keys() | _libzmq(found.threads)
    for context in found.contexts - before.contexts:
        if ("zmq context", id(context)) in left and not _contexts.end(context) and alone:
            # nobody uses them any more: then `term`, which waits for them aside, ends
            for socket in list(context._sockets):
                socket.close(linger=0)
    for pid in found.processes - before.processes:
        if ("process", pid) not in left:
            continue
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _libzmq(threads: dict[int, str]) -> set[int]:
    return {id_ for id_, name in threads.items() if name.startswith("ZMQbg")}


def _until(reached: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.005)
    return True


def _children() -> frozenset[int]:
    """Of this process, and zombies too when it is up to it to wait for them."""
    if not LINUX:
        return frozenset()
    found: set[int] = set()
    for task in os.listdir(PROC / "task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(pid) for pid in (PROC / f"task/{task}/children").read_text().split()}
    return frozenset(pid for pid in found if not _started.reap(pid))


def _begin(pid: int) -> str:
    """Its process's, in ticks since the boot; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _command(pid: int) -> str:
    """What it runs, and whether it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return f"{pid}, {' '.join(words)[:200].strip() or 'ended, and nobody has waited for it'}"
    except OSError:
        return f"{pid}, ended"


def _threads() -> dict[int, str]:
    found = {thread.native_id or 0: thread.name for thread in threading.enumerate()}
    if LINUX:
        for task in os.listdir(PROC / "task"):
            if int(task) not in found:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    found[int(task)] = (PROC / f"task/{task}/comm").read_text().strip()
    return found


def _descriptors() -> frozenset[tuple[str, str]]:
    found = []
    for fd in os.listdir(PROC / "fd") if LINUX else ():
        with contextlib.suppress(FileNotFoundError):  # the one of the listing itself
            found.append((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return frozenset(found)


def _sockets_of(context: AnyContext) -> str:
    sockets = [socket for socket in context._sockets if not socket.closed]
    return f"with {len(sockets)} open sockets, which it waits for when it is ended"
