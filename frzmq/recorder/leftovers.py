"""What tracers have left in a runtime directory whose recorder died too: their buffers, made into a snapshot, and removed. Never those of a live process."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from frzmq.config import StoreConfig
from frzmq.errors import ConfigError, WireError
from frzmq.recorder.events import RingView, Seal, State, StreamView, WriteSnapshot
from frzmq.recorder.liveness import DirectoryLock, is_free
from frzmq.recorder.recovery import read_buffer
from frzmq.recorder.snapshots import write_view
from frzmq.recorder.store import SnapshotStore
from frzmq.recorder.strays import left_hello
from frzmq.recorder.stream import Stream
from frzmq.recorder.tail import Tail
from frzmq.recorder.tracers import Tracer, whole_horizon_ns
from frzmq.wire.messages import Hello

MAX_LEFTOVERS: Final = 4096
MAX_STRINGS_BYTES: Final = 64 << 20
PREFIX: Final = "r"
"""Of the directories of embedded recorders."""
YOUNG_S: Final = 300.0
"""A directory of this age may be that of one that is about to start."""
UNNAMED: Final = "unknown"
"""The service of a tracer that died before it said its first hello."""


@dataclass(frozen=True, slots=True)
class Leftover:
    path: Path
    """Of the buffer; the lock file, if there is one, is beside it."""
    hello: Hello
    tail: Tail

    def remove(self) -> None:
        for path in (self.path, self.path.with_suffix(".lock")):
            with contextlib.suppress(OSError):
                path.unlink()


@dataclass(frozen=True, slots=True)
class Found:
    leftovers: tuple[Leftover, ...]
    problems: tuple[str, ...]
    """A buffer that cannot be read costs its own tail, and stays where it is."""


def left_buffers(directory: str) -> list[Path]:
    """Of tracers that are dead. The caller holds the directory's lock: no recorder is about to read them."""
    return [path for path in sorted(Path(directory).glob("*.buf"))[:MAX_LEFTOVERS] if _is_left(path)]


def _is_left(path: Path) -> bool:
    try:
        fd = os.open(path.with_suffix(".lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return not _is_young(path)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and is_free(fd)
    finally:
        os.close(fd)


def _is_young(path: Path) -> bool:
    """Its process, which has no lock yet, lives; or another that has its pid, and then it stays a little longer."""
    with contextlib.suppress(OSError, ValueError, WireError):
        os.kill(read_buffer(path, bytes.fromhex(path.stem), {}, released=True).header.pid, 0)
        return True
    return False


def read_leftovers(paths: list[Path]) -> Found:
    leftovers, problems = [], []
    for path in paths:
        try:
            tail = read_buffer(path, bytes.fromhex(path.stem), {}, released=True)
        except (OSError, ValueError, WireError) as error:
            problems.append(f"{path.name}: {error}")
            continue
        problems += [f"{path.name}: {problem}" for problem in tail.problems]
        leftovers.append(Leftover(path, _hello(path, tail), tail))
    return Found(tuple(leftovers), tuple(problems))


def _hello(path: Path, tail: Tail) -> Hello:
    """What the tracer wrote into its lock file, if it is its own."""
    header = tail.header
    found = left_hello(str(path.with_suffix(".lock")), header.uuid)
    if found is not None and found.pid == header.pid:
        return found
    return Hello(header.uuid, header.incarnation, 1, 1, header.pid, UNNAMED, 0)


def snapshot_of(leftovers: tuple[Leftover, ...], reason: str) -> WriteSnapshot:
    now_ns = time.monotonic_ns()
    parts = []
    for number, left in enumerate(leftovers, 1):
        stream = Stream(asked=1, young=False, max_strings_bytes=MAX_STRINGS_BYTES)
        stream.recover(left.tail, left.hello, 0)
        tracer = Tracer(number, left.hello, b"", 0, stream, now_ns, now_ns, now_ns, 0, State.DEAD, "it died: unknown")
        parts.append((tracer, tuple(tracer.kept(sealed, now_ns) for sealed in stream.close(Seal.DEATH))))
    streams: tuple[StreamView, ...] = tuple(tracer.view(kept) for tracer, kept in parts)
    return WriteSnapshot(0, (), RingView(streams, 0, 0, whole_horizon_ns(parts)), reason, ())


def recover(
    directory: str, open_file: Callable[[], contextlib.AbstractContextManager[BinaryIO]], machine: str
) -> Found:
    """Writes what is left in ``directory`` to a file, if there is anything, and removes it. Raises ConfigError: a recorder runs there; OSError."""
    lock = DirectoryLock(directory)
    try:
        found = read_leftovers(left_buffers(directory))
        if found.leftovers:
            with open_file() as file:
                write_view(file.write, snapshot_of(found.leftovers, reason_for(found)), machine)
        for left in found.leftovers:
            left.remove()
    finally:
        lock.release()
    return found


def reason_for(found: Found) -> str:
    names = [f"{left.hello.service}[{left.hello.pid}]" for left in found.leftovers]
    more = f" and {len(names) - 16} more" if len(names) > 16 else ""
    return f"recovered: {', '.join(names[:16])}{more}"[:1024]


def store_leftovers(paths: list[Path], config: StoreConfig, machine: str) -> str:
    """The same, into the directory of a recorder that begins: the file's path; "" when there was nothing."""
    import tempfile

    found = read_leftovers(paths)
    path = ""
    if found.leftovers:
        with tempfile.TemporaryFile() as file:
            write_view(file.write, snapshot_of(found.leftovers, reason_for(found)), machine)
            path = SnapshotStore(config).keep(file, found.leftovers[0].hello.service, "recovered")
    for left in found.leftovers:
        left.remove()
    return path


def store_directories(parent: Path, config: StoreConfig, machine: str) -> None:
    """The directories of embedded recorders that were killed: what tracers left in them is stored, and they are removed."""
    for path in sorted(parent.glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError, ConfigError):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and time.time() - status.st_mtime > YOUNG_S:
                # a recorder that runs there holds it
                lock = DirectoryLock(str(path))
                try:
                    store_leftovers(left_buffers(str(path)), config, machine)
                finally:
                    shutil.rmtree(path, ignore_errors=True)
                    lock.release()
