"""``frzmq completion``: what a shell needs to complete the command line."""

from __future__ import annotations

import argparse
import importlib
import shlex
from collections.abc import Iterator

from frzmq.cli.common import Subparsers, command

BASH = """\
_frzmq() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={commands}
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _frzmq frzmq
"""
ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = (
        '  eval "$(frzmq completion bash)"             (in ~/.bashrc)\n'
        '  eval "$(frzmq completion zsh)"              (in ~/.zshrc)\n'
        "  frzmq completion fish > ~/.config/fish/completions/frzmq.fish"
    )
    parser = command(subparsers, "completion", summary, examples)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    parsers = _parsers()
    if args.shell == "fish":
        print("\n".join(_fish(parsers)))
    else:
        print((ZSH if args.shell == "zsh" else "") + _bash(parsers), end="")
    return 0


def _parsers() -> dict[str, argparse.ArgumentParser]:
    from frzmq.cli import COMMANDS

    subparsers = argparse.ArgumentParser(prog="frzmq").add_subparsers()
    for name, summary in COMMANDS.items():
        importlib.import_module(f"frzmq.cli.{name}").add_parser(subparsers, summary)
    return subparsers.choices


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options and arguments that ``--help`` shows; argparse has no public name for them."""
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _bash(parsers: dict[str, argparse.ArgumentParser]) -> str:
    cases = []
    for name, parser in parsers.items():
        words = [option for action in _shown(parser) for option in action.option_strings]
        words += [str(c) for action in _shown(parser) if not action.option_strings for c in action.choices or ()]
        cases.append(f"            {name}) words={shlex.quote(' '.join(words))} ;;")
    return BASH.format(commands=shlex.quote(" ".join([*parsers, "--help", "--version"])), cases="\n".join(cases))


def _fish(parsers: dict[str, argparse.ArgumentParser]) -> Iterator[str]:
    from frzmq.cli import COMMANDS

    for name, parser in parsers.items():
        yield f"complete -c frzmq -n __fish_use_subcommand -f -a {name} -d {_fish_quote(COMMANDS[name])}"
        for action in _shown(parser):
            line = f"complete -c frzmq -n '__fish_seen_subcommand_from {name}'"
            for option in action.option_strings:
                line += f" -l {option[2:]}" if option.startswith("--") else f" -s {option[1:]}"
            if action.choices:
                line += f" -x -a {_fish_quote(' '.join(map(str, action.choices)))}"
            elif not action.option_strings:
                continue
            elif action.nargs != 0:
                line += " -r"
            yield line


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
