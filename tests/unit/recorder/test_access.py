from __future__ import annotations

import pytest

from frzmq.recorder.access import Access, Client, Role
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

TRACER = Client("checkout", frozenset({Role.TRACER}), "t" * 40)
VIEWER = Client("grafana", frozenset({Role.VIEWER}), "v" * 40)
OPERATOR = Client("ann", frozenset({Role.OPERATOR}), "o" * 40)
BOTH = Client("shop", frozenset({Role.TRACER, Role.VIEWER}), "b" * 40)
ALL = (TRACER, VIEWER, OPERATOR, BOTH)
ACCESS = Access(ALL)


def test_access_admits_each_role_where_it_belongs() -> None:
    admitted = {(c.name, domain) for c in ALL for domain in Domain if ACCESS.admits(domain, c.public)}
    assert admitted == {
        ("checkout", Domain.RECORD),
        ("grafana", Domain.CONTROL),
        ("ann", Domain.CONTROL),
        ("shop", Domain.RECORD),
        ("shop", Domain.CONTROL),
    }
    assert not any(ACCESS.admits(domain, "x" * 40) for domain in Domain)


def test_access_names_those_who_may_record() -> None:
    names = [ACCESS.recording_as(public) for public in (*(c.public for c in ALL), "x" * 40)]
    assert names == ["checkout", "", "", "shop", ""]


@pytest.mark.parametrize(
    ("request_", "may"),
    [
        (StatusRequest(1), {"grafana", "ann", "shop"}),
        (FlushRequest(1), {"grafana", "ann", "shop"}),
        (SnapshotRequest(1), {"grafana", "ann", "shop"}),
        (Credit(1, 1), {"grafana", "ann", "shop"}),
        (Cancel(1), {"grafana", "ann", "shop"}),
        (StartRequest(1), {"ann"}),
        (StopRequest(1), {"ann"}),
    ],
)
def test_access_denial_is_by_the_role_that_a_request_needs(request_: Request, may: set[str]) -> None:
    assert {c.name for c in ALL if not ACCESS.denial(c.public, request_)} == may


def test_access_denial_says_what_was_wanted_and_who_asked() -> None:
    assert ACCESS.denial(BOTH.public, StopRequest(1)) == "wanted a key of role operator, got 'shop', tracer, viewer"
    assert (
        ACCESS.denial(TRACER.public, StatusRequest(1))
        == "wanted a key of role viewer or operator, got 'checkout', tracer"
    )
    assert ACCESS.denial("x" * 40, StatusRequest(1)) == "its key was revoked"


def lost(*clients: Client) -> tuple[set[str], set[str]]:
    names, publics = Access(clients).lost_since(ACCESS)
    return set(names), set(publics)


def test_lost_since_tells_who_can_do_less() -> None:
    assert lost(*ALL) == (set(), set())
    assert lost(*ALL, Client("new", frozenset({Role.VIEWER}), "n" * 40)) == (set(), set())
    assert lost(VIEWER, OPERATOR, BOTH) == ({"checkout"}, {TRACER.public})
    demoted = Client("shop", frozenset({Role.VIEWER}), BOTH.public)
    assert lost(TRACER, VIEWER, OPERATOR, demoted) == ({"shop"}, {BOTH.public})
    renewed = Client("checkout", frozenset({Role.TRACER}), "z" * 40)
    assert lost(renewed, VIEWER, OPERATOR, BOTH) == ({"checkout"}, {TRACER.public})
    watching_only = Client("shop", frozenset({Role.TRACER}), BOTH.public)
    assert lost(TRACER, VIEWER, OPERATOR, watching_only) == (set(), {BOTH.public})
