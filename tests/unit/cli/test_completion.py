"""``frzmq completion``: what bash makes of it, and that each shell hears of every command and option."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from frzmq.cli import COMMANDS, main


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def completed(text: str, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    bash = shutil.which("bash")
    assert bash is not None
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _frzmq; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        [bash, "-c", text + ask, "bash", *words], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_first_word_offers_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert completed(script("bash", capsys), "frzmq", "") == [*COMMANDS, "--help", "--version"]


def test_bash_option_of_a_command_is_completed(capsys: pytest.CaptureFixture[str]) -> None:
    text = script("bash", capsys)
    assert completed(text, "frzmq", "snapshot", "--la") == ["--last"]
    assert completed(text, "frzmq", "status", "--la") == []


def test_bash_choice_of_an_argument_is_completed(capsys: pytest.CaptureFixture[str]) -> None:
    assert completed(script("bash", capsys), "frzmq", "completion", "z") == ["zsh"]


def test_zsh_script_is_that_of_bash_behind_its_loader(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("zsh", capsys).endswith(script("bash", capsys))


def test_fish_script_names_every_command_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    lines = script("fish", capsys).splitlines()
    for name, summary in COMMANDS.items():
        assert f"complete -c frzmq -n __fish_use_subcommand -f -a {name} -d '{summary}'" in lines
    assert "complete -c frzmq -n '__fish_seen_subcommand_from snapshot' -l last -r" in lines
    assert "complete -c frzmq -n '__fish_seen_subcommand_from completion' -x -a 'bash zsh fish'" in lines
