"""What `frzmq doctor` has looked at: plain values, with None where the system does not tell. Sizes in bytes, times in ns."""

from __future__ import annotations

from dataclasses import dataclass

from frzmq.wire.messages import Status


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the environment's variables."""

    error: str = ""
    """One that cannot be read, or ""."""
    disabled: bool = False
    buffer_bytes: int = 4 << 20
    max_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Versions:
    frzmq: str
    python: str
    msgpack: str
    pyzmq: str
    libzmq: str
    curve: bool
    """libzmq can encrypt, and tell who is who."""
    no_native: str = ""
    """Why there is no native buffer; "": there is."""


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    euid: int


@dataclass(frozen=True, slots=True)
class Namespaces:
    """True: one of its own, not that of the system's first process."""

    pid: bool | None
    user: bool | None
    mount: bool | None


@dataclass(frozen=True, slots=True)
class Directory:
    """The runtime directory, or of one that is not there yet the nearest that is."""

    path: str
    error: str = ""
    """Why it cannot be used, or ""."""
    exists: bool = False
    kind: str | None = None
    """Of its file system, such as ``tmpfs``."""
    mount: str | None = None
    """Where that is."""
    total_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """None: none, or not known."""

    files_soft: int | None
    files_hard: int | None
    file_bytes: int | None
    memory_bytes: int | None
    """Of the control group, the tightest on the way up."""
    memory_used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Key:
    """The key file for a recorder on tcp."""

    path: str
    name: str = ""
    error: str = ""
    """Why it cannot be used, or ""."""


@dataclass(frozen=True, slots=True)
class Recorder:
    address: str
    asked: bool
    """Somebody named it: it is to be there."""
    error: str = ""
    """Why it did not answer, or ""."""
    status: Status | None = None
    rtt_ns: int = 0
    """Of the fastest of some round trips"""
    offset_ns: int = 0
    """and the recorder's monotonic clock minus this one's, by that: half of the round trip off at the most."""
    denied: bool = False
    """It is there, and does not take this key, or none."""
    takes_records: bool = False
    """Known of one on tcp only: its link has taken this peer, and its key if there is one."""


@dataclass(frozen=True, slots=True)
class Place:
    settings: Settings
    versions: Versions
    user: User
    namespaces: Namespaces
    limits: Limits
    processes: int
    """That are to record."""
    directory: Directory | None
    """None: the recorder is reached by tcp."""
    recorder: Recorder
    key: Key | None = None
    beyond: bool = False
    """The recorder is on another host."""
