"""docs/running.md names every variable and every option, with the defaults that they have."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from frzmq import config
from frzmq.cli import recorder

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
