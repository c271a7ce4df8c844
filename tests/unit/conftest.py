"""The sockets of a recorder in a directory of their own, without a loop behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from frzmq.transport.addresses import Endpoints, parse_address
from frzmq.transport.sockets import RecorderSockets


@pytest.fixture
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Endpoints:
    return parse_address(str(tmp_path_factory.mktemp("r")))


@pytest.fixture
def recorder(endpoints: Endpoints) -> Iterator[RecorderSockets]:
    sockets = RecorderSockets(endpoints)
    yield sockets
    assert sockets.close(0)
