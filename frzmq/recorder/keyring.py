"""A recorder's directory of keys: ``recorder.key``, its own pair, and ``clients.toml``, the public keys of those it admits.

The secrets of clients are not kept: each is written once, to a file that goes to the client's host. The directory has mode 0700, ``recorder.key`` 0600.
A recorder that runs looks at ``clients.toml`` every quarter of a heartbeat.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from frzmq.config import ensure_private_dir
from frzmq.errors import ConfigError
from frzmq.recorder.access import Access, Client, Role
from frzmq.snapfile.writer import atomic_file
from frzmq.transport.keys import (
    MAX_KEY_BYTES,
    ClientKey,
    KeyPair,
    check_name,
    format_client_key,
    key_of,
    name_of,
    pair_of,
    read_toml,
)
from frzmq.transport.zap import Domain
from frzmq.wire.codec import shown

MAX_CLIENTS: Final = 4096
MAX_LIST_BYTES: Final = 1 << 20
VERSION: Final = 1
"""Of ``clients.toml``. A file without it is none: an editor's first step may be to make it empty, and that revokes nobody."""


class KeyDirectory:
    """Everything raises ConfigError: a directory or a file that others may enter or read, or that is none."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._pair_file = os.path.join(self.path, "recorder.key")
        self._clients_file = os.path.join(self.path, "clients.toml")

    def init(self, new_pair: Callable[[], KeyPair]) -> str:
        """Makes it, with a new pair and no clients. Returns the public key. ConfigError: there is one."""
        ensure_private_dir(self.path)
        with self._changing():
            if os.path.lexists(self._pair_file):
                raise ConfigError(f"{self.path}: wanted no keys here yet, got {self._pair_file}")
            pair = new_pair()
            _write(self._clients_file, _format(()))
            _write(self._pair_file, f'public = "{pair.public}"\nsecret = "{pair.secret}"\n')
        return pair.public

    def pair(self) -> KeyPair:
        """The recorder's own."""
        if not os.path.isdir(self.path):
            raise ConfigError(f"{self.path}: no directory of keys (frzmq keys init)")
        ensure_private_dir(self.path)
        return pair_of(read_toml(self._pair_file, MAX_KEY_BYTES, secret=True), self._pair_file)

    def clients(self) -> tuple[Client, ...]:
        values = read_toml(self._clients_file, MAX_LIST_BYTES, secret=False)
        if (type(values.get("version")), values.get("version")) != (int, VERSION):
            raise ConfigError(f"{self._clients_file}: wanted version = {VERSION}, got {shown(values.get('version'))}")
        entries = values.get("client", [])
        if not isinstance(entries, list) or len(entries) > MAX_CLIENTS:
            raise ConfigError(
                f"{self._clients_file}: wanted up to {MAX_CLIENTS} tables [[client]], got {shown(entries)}"
            )
        clients = tuple(_client(entry, f"{self._clients_file}: client {n}") for n, entry in enumerate(entries, 1))
        for what, found in (("name", [c.name for c in clients]), ("key", [c.public for c in clients])):
            if len(set(found)) < len(found):
                raise ConfigError(f"{self._clients_file}: wanted each {what} once, got one twice")
        return clients

    def add(self, name: str, roles: Iterable[Role], file: str, new_pair: Callable[[], KeyPair]) -> None:
        """Admits a new key under ``name`` and writes it to ``file``, which must not be there, mode 0600. ConfigError: the name is taken."""
        check_name(name, "name")
        with self._changing():
            clients = self.clients()
            if any(client.name == name for client in clients):
                raise ConfigError(f"{self.path}: wanted a name that is free, got {shown(name)}: revoke that first")
            key = ClientKey(name, new_pair(), self.pair().public)
            _write(file, format_client_key(key), overwrite=False)
            _write(self._clients_file, _format([*clients, Client(name, frozenset(roles), key.pair.public)]))

    def revoke(self, name: str) -> None:
        """ConfigError: no such name."""
        with self._changing():
            clients = self.clients()
            rest = [client for client in clients if client.name != name]
            if len(rest) == len(clients):
                raise ConfigError(f"{self.path}: wanted the name of a client, got {shown(name)}")
            _write(self._clients_file, _format(rest))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One at a time: each writes anew what it has read."""
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"{self.path}: no directory of keys: {error.strerror} (frzmq keys init)") from None
        try:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"{self.path}: another process is changing these keys") from None
            yield
        finally:
            os.close(directory)


class WatchedKeys:
    """The clients of a directory as they are now, for a recorder that runs. Raises ConfigError when they cannot be read at its start."""

    def __init__(self, path: str) -> None:
        self._directory = KeyDirectory(path)
        self._file = Path(self._directory.path, "clients.toml")
        self.pair = self._directory.pair()
        self._seen = self._complained = self._signature()
        self.access = Access(self._directory.clients())

    def admits(self, domain: Domain, public: str) -> bool:
        return self.access.admits(domain, public)

    def refresh(self) -> Access | None:
        """The access as it was before, when the file has changed since. Raises ConfigError, once for each change, when it cannot be read: then all stays as it
        was, and it is tried again the next time."""
        seen = self._signature()
        if seen == self._seen:
            return None
        try:
            access = Access(self._directory.clients())
        except ConfigError:
            if seen == self._complained:
                return None
            self._complained = seen
            raise
        self._seen = self._complained = seen
        before, self.access = self.access, access
        return before

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def parse_roles(texts: Iterable[str], where: str) -> frozenset[Role]:
    """Raises ConfigError: none, or another word."""
    words = list(texts)
    try:
        roles = frozenset(Role(word) for word in words)
    except (ValueError, TypeError):
        roles = frozenset()
    if not roles:
        raise ConfigError(f"{where}: wanted roles, of {', '.join(role.value for role in Role)}, got {shown(words)}")
    return roles


def _client(entry: Any, where: str) -> Client:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: wanted a table, got {shown(entry)}")
    roles = entry.get("roles")
    if not isinstance(roles, list):
        raise ConfigError(f"{where}: wanted a list of roles, got {shown(roles)}")
    return Client(name_of(entry, where), parse_roles(roles, where), key_of(entry, "public", where))


def _words(roles: Iterable[Role]) -> str:
    return ", ".join(sorted(f'"{role.value}"' for role in roles))


def _format(clients: Iterable[Client]) -> str:
    tables = [
        f'[[client]]\nname = "{client.name}"\nroles = [{_words(client.roles)}]\npublic = "{client.public}"\n'
        for client in clients
    ]
    return "\n".join([f"# who may talk to this recorder; frzmq keys writes it anew\nversion = {VERSION}\n", *tables])


def _write(path: str, text: str, *, overwrite: bool = True) -> None:
    try:
        with atomic_file(path, overwrite=overwrite) as file:
            file.write(text.encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot write this key file: {error.strerror}") from None
