"""Looks at the place that this process runs in. Nothing is changed: a directory that is not there is not made."""

from __future__ import annotations

import os
import platform
import resource
import stat
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from frzmq.clock import monotonic_ns
from frzmq.config import TracerConfig, check_private_dir, runtime_dir
from frzmq.control.client import ControlClient
from frzmq.doctor.place import Directory, Key, Limits, Namespaces, Place, Recorder, Settings, User, Versions
from frzmq.errors import ConfigError, ControlCode, ControlError
from frzmq.tracer import choice
from frzmq.transport.addresses import Endpoints, is_loopback, parse_address
from frzmq.transport.keys import ClientKey, read_client_key
from frzmq.transport.outbound import TracerSockets
from frzmq.transport.sockets import library
from frzmq.version import __version__

ROUND_TRIPS: Final = 5
TIMEOUT_S: Final = 3.0
_FIRST: Final = {"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}
"""The inodes of the system's first namespaces (include/linux/proc_ns.h)."""
_UNLIMITED: Final = 1 << 60
"""What control groups of the first version say for no limit is a little less than 1 << 63."""


def look(address: str | None, key: str | None, processes: int, environ: Mapping[str, str]) -> Place:
    """``address``: of the recorder; None: where frzmq would go. ``key``: the path of a key file; None: that of the environment. Raises ConfigError: an address
    that is none."""
    named = address or environ.get("FRZMQ_RECORDER")
    chosen = named or runtime_dir(environ)
    where: Directory | None
    key = key or environ.get("FRZMQ_KEY") or None
    found, beyond = None, False
    try:
        endpoints = parse_address(chosen)
    except ConfigError as error:
        # a path that is too long; of an address that is none there is nothing to look at
        if "://" in chosen.removeprefix("ipc://"):
            raise
        where, recorder = Directory(chosen, str(error)), Recorder(chosen, bool(named), str(error))
    else:
        where = None if endpoints.directory is None else look_at_directory(endpoints.directory)
        beyond = not is_loopback(endpoints)
        if key is not None and endpoints.directory is None:
            found = look_at_key(key)
        usable = found is not None and not found.error
        recorder = ask(chosen, key if usable else None, asked=bool(named))
    return Place(
        settings(environ),
        versions(),
        User(os.getuid(), os.geteuid()),
        namespaces(),
        limits(),
        processes,
        where,
        recorder,
        found,
        beyond,
    )


def settings(environ: Mapping[str, str]) -> Settings:
    try:
        config = TracerConfig.from_env(environ)
    except ConfigError as error:
        return Settings(str(error))
    return Settings("", not config.enabled, config.buffer_bytes, config.max_bytes)


def versions() -> Versions:
    zmq = library()
    try:
        msgpack = version("msgpack")
    except PackageNotFoundError:
        msgpack = "?"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return Versions(__version__, python, msgpack, zmq.pyzmq, zmq.libzmq, zmq.curve, choice.missing)


def namespaces() -> Namespaces:
    own: dict[str, bool | None] = {}
    for name, first in _FIRST.items():
        inode = _inode(f"/proc/self/ns/{name}")
        own[name] = None if inode is None else inode != first
    mine, ones = _inode("/proc/self/ns/mnt"), _inode("/proc/1/ns/mnt")
    return Namespaces(own["pid"], own["user"], None if mine is None or ones is None else mine != ones)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


# --- the directory


def look_at_directory(path: str) -> Directory:
    exists = os.path.lexists(path)
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    try:
        if exists:
            check_private_dir(path)
        elif not (os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)):
            return Directory(path, f"{path}: it is not there, and cannot be made: {there} is not writable")
        size = os.statvfs(there)
        mount, kind = _mount(os.stat(there).st_dev, there)
    except ConfigError as error:
        return Directory(path, str(error), exists)
    except OSError as error:
        return Directory(path, f"{path}: {error.strerror}", exists)
    return Directory(path, "", exists, kind, mount, size.f_blocks * size.f_frsize, size.f_bavail * size.f_frsize)


def _mount(device: int, path: str) -> tuple[str | None, str | None]:
    """Where the file system of ``path`` is, and of which kind: the last of those with its device, which is over the others."""
    number = f"{os.major(device)}:{os.minor(device)}"
    real = os.path.realpath(path)
    found: tuple[str | None, str | None] = (None, None)
    for line in _lines("/proc/self/mountinfo"):
        # number, parent, device, root, mount point, options, optional fields, -, kind, source, options (proc_pid_mountinfo(5))
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        if len(words) > 4 and words[2] == number and _is_in(real, point := _unescaped(words[4])):
            found = point, rest.split(" ", 1)[0]
    return found


def _is_in(path: str, point: str) -> bool:
    return os.path.commonpath((path, point)) == point


def _unescaped(text: str) -> str:
    for octal, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, plain)
    return text


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


# --- limits


def limits() -> Limits:
    soft, hard = map(_limit, resource.getrlimit(resource.RLIMIT_NOFILE))
    file_bytes = _limit(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
    memory_bytes, used_bytes = _memory(_groups(_lines("/proc/self/cgroup")))
    return Limits(soft, hard, file_bytes, memory_bytes, used_bytes)


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _groups(lines: Iterable[str]) -> Iterator[tuple[Path, str, str]]:
    """The control groups that this process is in and those around them, with their files for the limit of memory and what is used of it."""
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            root, limit, used = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, used = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for each in (group, *group.parents):
            if not each.is_relative_to(root):
                break
            yield each, limit, used


def _memory(groups: Iterable[tuple[Path, str, str]]) -> tuple[int | None, int | None]:
    """Limit and use of the group that leaves the least."""
    found = [
        (limit, _number(group / used_name) or 0)
        for group, limit_name, used_name in groups
        if (limit := _number(group / limit_name)) is not None and limit < _UNLIMITED
    ]
    return min(found, key=lambda each: each[0] - each[1], default=(None, None))


def _number(path: Path) -> int | None:
    """None: no such file, or no number in it (``max``)."""
    [text, *_] = _lines(str(path)) or [""]
    return int(text) if text.isdigit() else None


# --- the recorder


def look_at_key(path: str) -> Key:
    try:
        return Key(path, read_client_key(path).name)
    except ConfigError as error:
        return Key(path, "", str(error))


def ask(address: str, key: str | None, *, asked: bool) -> Recorder:
    """``key``: one that can be used."""
    endpoints = parse_address(address)
    if endpoints.directory is not None and not _is_socket(os.path.join(endpoints.directory, "control")):
        # no wait for what is not there
        return Recorder(address, asked, f"no recorder at {address}")
    try:
        with ControlClient(address, TIMEOUT_S, key=key) as client:
            status = client.status()
            best: tuple[int, int] | None = None
            for _ in range(ROUND_TRIPS):
                sent_ns = monotonic_ns()
                status = client.status()
                rtt_ns = max(1, monotonic_ns() - sent_ns)
                best = min(best or (rtt_ns, 0), (rtt_ns, status.now_ns - sent_ns - rtt_ns // 2))
    except ControlError as error:
        # the key of a program that only records is told no more than that
        denied = error.code is ControlCode.DENIED
        takes = denied and key is not None and _takes_records(endpoints, read_client_key(key))
        return Recorder(address, asked, str(error), denied=denied, takes_records=takes)
    assert best is not None
    return Recorder(address, asked, "", status, *best)


def _takes_records(endpoints: Endpoints, key: ClientKey) -> bool:
    sockets = TracerSockets(endpoints, key=key)
    try:
        until_ns = monotonic_ns() + round(TIMEOUT_S * 1e9)
        while not (sockets.connected or sockets.problem) and monotonic_ns() < until_ns:
            sockets.poll(10)
        return sockets.connected
    finally:
        sockets.close()


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
