"""A recorder on tcp with keys, and the key files of those that it admits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from frzmq.recorder.access import Role
from frzmq.recorder.keyring import KeyDirectory
from frzmq.transport.keys import ClientKey, read_client_key
from frzmq.transport.sockets import new_pair
from support.recorder_process import RecorderProcess, recorder_process

TRACER, VIEWER, OPERATOR = (frozenset({role}) for role in (Role.TRACER, Role.VIEWER, Role.OPERATOR))


@dataclass(frozen=True)
class Keyed:
    recorder: RecorderProcess
    directory: KeyDirectory
    files: Path

    @property
    def address(self) -> str:
        return self.recorder.address

    def add(self, name: str, roles: frozenset[Role]) -> str:
        """The path of its key file. The recorder sees it within a quarter of a heartbeat."""
        path = self.files / f"{name}.key"
        self.directory.add(name, roles, str(path), new_pair)
        return str(path)

    def key(self, name: str) -> ClientKey:
        return read_client_key(str(self.files / f"{name}.key"))


@contextmanager
def keyed_recorder(directory: Path, *arguments: str) -> Iterator[Keyed]:
    """Admits ``checkout`` and ``stock`` (tracers), ``grafana`` (viewer) and ``ann`` (operator)."""
    keys = KeyDirectory(str(directory / "keys"))
    keys.init(new_pair)
    for name, roles in (("checkout", TRACER), ("stock", TRACER), ("grafana", VIEWER), ("ann", OPERATOR)):
        keys.add(name, roles, str(directory / f"{name}.key"), new_pair)
    with recorder_process("tcp", "--keys", keys.path, *arguments) as recorder:
        yield Keyed(recorder, keys, directory)
