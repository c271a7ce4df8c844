"""docs/running.md names every variable and every option, with the defaults that they have."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from support import bounds
from support.bounds import MIB

from frzmq import config
from frzmq.cli import recorder
from frzmq.config import RecorderConfig
from frzmq.tracer._api_py import MAX_NAMES
from frzmq.tracer.machine import WINDOW_BYTES

RUNNING = (Path(__file__).resolve().parents[2] / "docs" / "running.md").read_text()
VARIABLES = set(re.findall(r"``(FRZMQ_\w+)``", config.__doc__ or ""))
HIDDEN = {"--help", "--embedded", "--remove-dir"}
"""For a program that brings its own recorder."""


def test_running_document_has_every_variable() -> None:
    assert len(VARIABLES) == 20
    assert set(re.findall(r"^\| `(FRZMQ_\w+)`", RUNNING, re.MULTILINE)) == VARIABLES
    assert set(re.findall(r"FRZMQ_[A-Z_]+", RUNNING)) == VARIABLES


def test_running_document_has_the_recorders_options_and_their_defaults() -> None:
    subparsers = argparse.ArgumentParser().add_subparsers()
    recorder.add_parser(subparsers, "serve")
    actions = subparsers.choices["recorder"]._actions
    said = dict(re.findall(r"^\| `(--[a-z-]+)[^|]*\|([^|]*)\|", RUNNING, re.MULTILINE))
    named = {action.option_strings[-1]: action for action in actions}
    assert set(said) == set(named) - HIDDEN
    for option in ("--min-age", "--max-bytes"):
        assert said[option].strip() == f"`{named[option].default}`"


def test_running_document_has_the_memory_that_is_tested() -> None:
    memory = dict(
        re.findall(
            r"^\| ([^|`]*?) \| (.*) \|$", RUNNING.partition("## Memory")[2].partition("## With")[0], re.MULTILINE
        )
    )
    assert {name: re.findall(r"[\d.]+(?= MiB| times)", said) for name, said in memory.items()} == {
        "the ring": [f"{cap_share():g}"],
        "while a snapshot is written": [],
        "for each process": [mib(bounds.FRAMES_BYTES)],
        "for each client that does not read": [mib(bounds.CLIENT_BYTES)],
        "for each process that died, while it is read": [],
        "what the allocator keeps": [mib(bounds.OWN_BYTES // 2)],
        "its buffer": [mib(config.TracerConfig().buffer_bytes)],
        "the begin of a generation": [],
        "what is sent and not acknowledged": [mib(WINDOW_BYTES), mib(bounds.FRAMES_BYTES)],
        "names": [mib(MAX_NAMES * bounds.SPAN_BYTES)],
    }
    assert f"| what the allocator keeps | {mib(bounds.OWN_BYTES)} MiB |" in RUNNING
    assert f"{bounds.NAME_BYTES} bytes for each different one" in memory["names"]


def test_running_document_has_a_memory_limit_that_holds() -> None:
    assert "2.5 times `--max-bytes` and 64M, and 2.25M for each process" in RUNNING
    for megabytes in (1, 16, 64, 256, 4096):
        settings = RecorderConfig(max_bytes=megabytes * MIB)
        most = bounds.recorder_bounds(settings, tracers=10, clients=2, snapshots=1).resident_bytes
        assert most + IDLE_BYTES <= 2.5 * settings.max_bytes + (64 + 10 * 2.25) * MIB
    assert "--max-bytes 256M" in RUNNING
    assert "MemoryMax=768M" in RUNNING


IDLE_BYTES = 30 * 10**6


def cap_share() -> float:
    settings = RecorderConfig()
    return 1 + 2 * settings.max_generation_bytes / settings.max_bytes


def mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:g}"
