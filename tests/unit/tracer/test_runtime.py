"""The process's one tracer, as far as one process shows it; forks and ends are in the integration tests."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from support.fake_recorder import FakeRecorder

from frzmq.config import TracerConfig
from frzmq.errors import ConfigError, StateError
from frzmq.tracer import api, hub, runtime


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="fz") as directory:
        yield directory
        runtime.stop()


def test_runtime_configure_starts_nothing_before_the_first_record(address: str) -> None:
    runtime.configure(TracerConfig(recorder=address))
    assert (runtime.recording(), runtime.stats(), runtime.flush(1)) == (True, None, True)
    api.event("first")
    stats = runtime.stats()
    assert stats is not None
    assert stats.recorded > 0
    assert stats.dropped == 0


def test_runtime_configure_without_a_recorder_or_disabled_records_nothing(address: str) -> None:
    for config in (TracerConfig(), TracerConfig(recorder=address, enabled=False)):
        runtime.configure(config)
        api.event("nothing")
        assert (runtime.recording(), runtime.stats(), runtime.address()) == (False, None, None)


def test_runtime_start_twice_is_an_error(address: str) -> None:
    runtime.start(TracerConfig(recorder=address))
    with pytest.raises(StateError, match="got one that does"):
        runtime.start(TracerConfig(recorder=address))
    with pytest.raises(StateError, match="got one that does"):
        runtime.configure(TracerConfig(recorder=address))


def test_runtime_start_with_no_address_is_an_error(address: str) -> None:
    with pytest.raises(StateError, match="wanted the address"):
        runtime.start(TracerConfig())
    with pytest.raises(ConfigError):
        runtime.start(TracerConfig(recorder="gopher://" + address))
    assert runtime.stats() is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"recorder": "gopher://here"}, ConfigError),
        ({"calls": True, "buffer_kind": "py"}, ConfigError),
        ({"triggers": "slow soon"}, ConfigError),
        ({"triggers": "error", "calls": True, "buffer_kind": "py"}, ConfigError),
    ],
)
def test_runtime_start_that_fails_leaves_the_program_as_it_was(
    address: str, wrong: dict[str, object], error: type[Exception]
) -> None:
    def hooked() -> tuple[object, ...]:
        return logging.Logger.callHandlers, sys.excepthook, threading.excepthook, os._exit, hub.on_span, hub.on_log

    before = hooked()
    with pytest.raises(error):
        runtime.start(TracerConfig(**{"recorder": address, **wrong}))  # type: ignore[arg-type]  # each is right
    assert hooked() == before
    assert (runtime.recording(), runtime.stats(), runtime.address()) == (False, None, None)
    assert os.listdir(address) == []


def test_runtime_start_flush_stop_ships_all(address: str) -> None:
    with FakeRecorder(address) as recorder:
        runtime.start(TracerConfig(recorder=address))
        assert runtime.address() == address
        api.event("one")
        assert runtime.flush(20)
        tracer = recorder.wait_tracer()
        assert tracer.events == 1
        assert runtime.stop() == ""
        recorder.wait(lambda: tracer.said_goodbye)
        assert (runtime.recording(), runtime.stats(), runtime.address()) == (False, None, None)


def test_runtime_in_the_fork_server_starts_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "from multiprocessing.forkserver import main; main(1, 2, [], **{})"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", line])
    runtime.configure(TracerConfig(recorder=address))
    api.event("nothing")
    assert (runtime.recording(), runtime.stats()) == (False, None)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["py", "auto"])
def test_runtime_stop_gives_the_buffer_back(address: str, kind: Literal["py", "auto"]) -> None:
    def shared() -> list[str]:
        gc.collect()
        return [line for line in Path("/proc/self/maps").read_text().splitlines() if address in line]

    runtime.start(TracerConfig(recorder=address, buffer_kind=kind, triggers="slow 1s"))
    api.event("one")
    assert len(shared()) == 1
    runtime.stop()
    assert shared() == []
