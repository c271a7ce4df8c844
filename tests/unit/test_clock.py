import dataclasses
import sys
import time

import pytest

from frzmq import clock
from frzmq.clock import Clocks


def test_clocks_now_lies_between_two_readings() -> None:
    before = (time.monotonic_ns(), clock.boottime_ns())
    now = Clocks.now()
    after = (time.monotonic_ns(), clock.boottime_ns())
    assert before[0] <= now.monotonic_ns <= after[0]
    assert before[1] <= now.boottime_ns <= after[1]


def test_clocks_changed_raises() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Clocks(1, 2, 3).wall_ns = 4  # type: ignore[misc]


def test_clocks_named_fields_are_in_order() -> None:
    assert Clocks(1, 2, 3) == Clocks(monotonic_ns=1, boottime_ns=2, wall_ns=3)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is the monotonic clock")
def test_boottime_on_linux_is_that_clock() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before <= clock.boottime_ns() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
