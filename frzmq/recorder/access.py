"""Who may do what on tcp: roles, and the keys that have them.

==========  ====================================================
role        may
==========  ====================================================
tracer      record, each process as itself only
viewer      ask for status, flushes and snapshots
operator    do what a viewer may; start and stop the recording
==========  ====================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from frzmq.transport.zap import Domain
from frzmq.wire.messages import (
    Cancel,
    Credit,
    FlushRequest,
    Request,
    SnapshotRequest,
    StartRequest,
    StatusRequest,
    StopRequest,
)


class Role(Enum):
    """The values are what key files carry."""

    TRACER = "tracer"
    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Client:
    name: str
    roles: frozenset[Role]
    public: str


_OF_DOMAIN: Final = {
    Domain.RECORD: frozenset({Role.TRACER}),
    Domain.CONTROL: frozenset({Role.VIEWER, Role.OPERATOR}),
}


class Access:
    """Some clients, by their public keys. Never changed: another list is another `Access`."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = {client.public: client for client in clients}

    def admits(self, domain: Domain, public: str) -> bool:
        client = self._clients.get(public)
        return client is not None and not client.roles.isdisjoint(_OF_DOMAIN[domain])

    def recording_as(self, public: str) -> str:
        """The name of the client that this key is; "": it may not record."""
        client = self._clients.get(public)
        return client.name if client is not None and Role.TRACER in client.roles else ""

    def denial(self, public: str, request: Request) -> str:
        """Why the holder of this key may not ask this; "": it may."""
        client = self._clients.get(public)
        if client is None:
            return "its key was revoked"
        wanted = _wanted(request)
        if not client.roles.isdisjoint(wanted):
            return ""
        roles = " or ".join(role.value for role in Role if role in wanted)
        return f"wanted a key of role {roles}, got {client.name!r}, {', '.join(sorted(r.value for r in client.roles))}"

    def lost_since(self, before: Access) -> tuple[frozenset[str], frozenset[str]]:
        """Of the keys of ``before`` that can do less now: the names under which nobody may record any more as then, and the public keys."""
        less = [c for c in before._clients.values() if not c.roles <= self._roles(c.public)]
        names = {c.name for c in less if Role.TRACER in c.roles and Role.TRACER not in self._roles(c.public)}
        return frozenset(names), frozenset(c.public for c in less)

    def _roles(self, public: str) -> frozenset[Role]:
        client = self._clients.get(public)
        return client.roles if client is not None else frozenset()


def _wanted(request: Request) -> frozenset[Role]:
    match request:
        case StatusRequest() | FlushRequest() | SnapshotRequest() | Credit() | Cancel():
            return frozenset({Role.VIEWER, Role.OPERATOR})
        case StartRequest() | StopRequest():
            return frozenset({Role.OPERATOR})
        case _:
            assert_never(request)
