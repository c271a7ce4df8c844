from __future__ import annotations

import pytest

from frzmq.errors import WireError
from frzmq.wire.version import OLDEST_WIRE_VERSION, WIRE_VERSION, choose_version


@pytest.mark.parametrize(
    ("oldest", "newest"), [(WIRE_VERSION, WIRE_VERSION), (0, WIRE_VERSION), (WIRE_VERSION, 255), (0, 255)]
)
def test_version_a_peer_that_knows_ours_gets_it(oldest: int, newest: int) -> None:
    assert choose_version(oldest, newest) == WIRE_VERSION


@pytest.mark.parametrize(
    ("oldest", "newest"),
    [(WIRE_VERSION + 1, 255), (0, OLDEST_WIRE_VERSION - 1), (WIRE_VERSION, OLDEST_WIRE_VERSION - 1)],
)
def test_version_no_common_one_names_both_sides(oldest: int, newest: int) -> None:
    with pytest.raises(WireError) as caught:
        choose_version(oldest, newest)
    wanted = f"{OLDEST_WIRE_VERSION}..{WIRE_VERSION}"
    assert str(caught.value) == f"no common wire version: wanted one of {wanted}, the peer speaks {oldest}..{newest}"
