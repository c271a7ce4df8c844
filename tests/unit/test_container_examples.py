"""docs/examples/compose.yaml and kubernetes.yaml: what they say of frzmq is so. No library for YAML is at hand: these files are plain enough for lines."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from frzmq import config
from frzmq.cli import recorder

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
MOUNT = "/run/fr"


@pytest.fixture(params=["compose.yaml", "kubernetes.yaml"])
def text(request: pytest.FixtureRequest) -> str:
    return (EXAMPLES / str(request.param)).read_text()


def recorder_arguments(text: str) -> argparse.Namespace:
    [line] = re.findall(r"command: (\[.*\])$", text, re.MULTILINE)
    shell, option, script = json.loads(line)
    assert (shell, option) == ("sh", "-c")
    make, serve = script.split(" && exec frzmq recorder ")
    subparsers = argparse.ArgumentParser().add_subparsers()
    recorder.add_parser(subparsers, "serve")
    arguments = subparsers.choices["recorder"].parse_args(shlex.split(serve))
    assert make == f"mkdir -pm 0700 {arguments.listen}"
    return arguments


def test_example_lines_are_indented_by_twos_without_tabs(text: str) -> None:
    assert "\t" not in text
    lines = [line for line in text.splitlines() if line.strip()]
    assert {(len(line) - len(line.lstrip(" "))) % 2 for line in lines} == {0}
    # each is a comment, an item, or a key
    assert [line for line in lines if not re.match(r" *(#|- |[A-Za-z_]+:( |$))", line)] == []


def test_example_recorder_has_options_that_exist_and_a_directory_that_both_mount(text: str) -> None:
    arguments = recorder_arguments(text)
    assert config.parse_size(arguments.max_bytes) == 128 << 20
    assert Path(arguments.listen).parent == Path(MOUNT)
    assert len(re.findall(rf"^ *(?:- frzmq:|mountPath: ){MOUNT}$", text, re.MULTILINE)) == 2
    assert len(re.findall(rf"{arguments.snapshots}(?:$|  #)", text, re.MULTILINE)) == 1


def test_example_application_joins_that_recorder_by_variables_that_exist(text: str) -> None:
    known = set(re.findall(r"``(FRZMQ_\w+)``", config.__doc__ or ""))
    assert set(re.findall(r"FRZMQ_[A-Z_]+", text)) <= known
    [joined] = re.findall(r"FRZMQ_RECORDER(?::|\n *value:) (\S+)$", text, re.MULTILINE)
    assert joined == recorder_arguments(text).listen


def test_compose_example_runs_both_as_one_user_and_the_directory_is_in_memory() -> None:
    text = (EXAMPLES / "compose.yaml").read_text()
    assert re.findall(r"user: \"(\d+):(\d+)\"", text) == [("1000", "1000")] * 2
    assert "type: tmpfs" in text


def test_kubernetes_example_runs_both_as_one_user_and_the_directory_is_in_memory() -> None:
    text = (EXAMPLES / "kubernetes.yaml").read_text()
    # of the pod: no container has one of its own
    assert re.findall(r"^( *)runAsUser: (\d+)", text, re.MULTILINE) == [("    ", "1000")]
    assert "medium: Memory" in text
