"""``frzmq run``: a program and its children, recorded, and a snapshot of them at the end, however that comes.

The program is a child of this process, started as the interpreter would start it, in the same terminal and process group. It, and every Python that it
starts, finds the recorder by its environment, and frzmq by a ``sitecustomize`` on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frzmq.cli.common import Subparsers, add_force, add_key, command, note

if TYPE_CHECKING:
    from frzmq.config import TracerConfig

_WITH_VALUE = frozenset(
    {
        "-o",
        "--output",
        "--service",
        "--recorder",
        "--min-age",
        "--max-bytes",
        "--calls-include",
        "--calls-exclude",
        "--key",
    }
)
_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")
_FROM_TERMINAL = ("SIGINT", "SIGQUIT")
"""These reach the program by themselves: it has the terminal too."""
SNAPSHOT_FLUSH_S = 2.0


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = "  frzmq run app.py --port 80\n  frzmq run -o crash.frz -m myservice\n  frzmq run --service worker -c 'import work; work.main()'\n  frzmq run --calls -o calls.frz app.py"
    parser = command(subparsers, "run", f"{summary}; exits with its status", examples)
    parser.usage = "frzmq run [OPTIONS] (SCRIPT | -m MODULE | -c CODE) [ARGS ...]"
    parser.add_argument(
        "--service", metavar="NAME", help="what to call it (default: $FRZMQ_SERVICE, else the program's name)"
    )
    parser.add_argument(
        "--recorder", metavar="ADDRESS", help="join this one (default: $FRZMQ_RECORDER, else one of its own)"
    )
    add_key(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="leave a snapshot there at the end, also after an exception or a signal"
    )
    parser.add_argument(
        "--min-age", metavar="DURATION", help="how long its own recorder keeps what was recorded, such as 60s"
    )
    parser.add_argument("--max-bytes", metavar="SIZE", help="how much it keeps at the most, such as 64M")
    parser.add_argument("--calls", action="store_true", help="record every call of the program's functions")
    parser.add_argument(
        "--calls-include",
        metavar="MODULES",
        help="of these modules, such as shop,shop_* (default: all but the standard library)",
    )
    parser.add_argument("--calls-exclude", metavar="MODULES", help="but not of these modules")
    add_force(parser)
    parser.add_argument("program", nargs="+", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def program_start(arguments: Sequence[str]) -> int:
    """The index at which the program begins in ``run OPTIONS PROGRAM...``."""
    at = 1
    while at < len(arguments) and arguments[at].startswith("-") and not arguments[at].startswith(("-m", "-c")):
        if arguments[at] == "--":
            return at + 1
        at += 2 if arguments[at] in _WITH_VALUE else 1
    return min(at, len(arguments))


def run(args: argparse.Namespace) -> int:
    from frzmq.config import TracerConfig, parse_duration, parse_size

    if args.output and os.path.lexists(args.output) and not args.force:
        raise FileExistsError(17, "File exists", args.output)
    program = _program(args.program)
    config = TracerConfig.from_env(os.environ).replace(service=args.service or _service(program))
    if args.recorder:
        config = config.replace(recorder=args.recorder)
    if args.key:
        config = config.replace(key=args.key)
    if args.min_age:
        config = config.replace(min_age_s=parse_duration(args.min_age, "--min-age") / 1e9)
    if args.max_bytes:
        config = config.replace(max_bytes=parse_size(args.max_bytes, "--max-bytes"))
    config = _with_calls(config, args)
    with _recorder(config) as address:
        code = _wait([sys.executable, *program], environment(config, address))
        if args.output:
            _leave_snapshot(address, config.key, args.output, args.force, code)
    return _as_it_ended(code)


def _with_calls(config: TracerConfig, args: argparse.Namespace) -> TracerConfig:
    """Raises ConfigError here, where it is seen: the program would run without."""
    from frzmq.tracer.calls import check

    for name in ("calls_include", "calls_exclude"):
        if words := getattr(args, name):
            config = config.replace(**{name: tuple(filter(None, map(str.strip, words.split(","))))})
    config = config.replace(calls=args.calls or bool(args.calls_include or args.calls_exclude) or config.calls)
    check(config)
    return config


def _program(words: list[str]) -> list[str]:
    """As the interpreter takes it: ``-mMODULE`` and ``-cCODE`` are said in two words."""
    first, *rest = words
    if first.startswith(("-m", "-c")) and len(first) > 2:
        return [first[:2], first[2:], *rest]
    if first in ("-m", "-c") and not rest:
        from frzmq.errors import ConfigError

        raise ConfigError(f"run: wanted something behind {first}, got nothing")
    return words


def _service(program: list[str]) -> str:
    if os.environ.get("FRZMQ_SERVICE"):
        return os.environ["FRZMQ_SERVICE"]
    match program:
        case ["-m", module, *_]:
            return module[:256] or "python"
        case ["-c", *_]:
            return "python"
        case [script, *_]:
            return os.path.basename(script).removesuffix(".py")[:256] or "python"
        case _:
            return "python"


def environment(config: TracerConfig, address: str) -> dict[str, str]:
    """Of the program: this one's, with the recorder and with what lets a Python find frzmq."""
    import frzmq
    from frzmq.embedded import python_path

    site = str(Path(frzmq.__file__).resolve().parent / "site")
    return {
        **os.environ,
        "FRZMQ_RECORDER": address,
        **({"FRZMQ_KEY": os.path.abspath(config.key)} if config.key else {}),
        "FRZMQ_SERVICE": config.service,
        **config.calls_environment(),
        "PYTHONPATH": python_path(site),
    }


@contextlib.contextmanager
def _recorder(config: TracerConfig) -> Iterator[str]:
    """Its address: of the one to join, or of one for as long as the program runs."""
    if config.recorder is not None:
        yield config.recorder
        return
    from frzmq.embedded import EmbeddedRecorder

    recorder = EmbeddedRecorder(config.embedded(), config.runtime_dir)
    try:
        yield recorder.address
    finally:
        recorder.close()


def _wait(command_line: list[str], variables: dict[str, str]) -> int:
    """Runs it; returns its exit code, or minus the signal that ended it."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _: object) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    old: dict[signal.Signals, Any] = {}
    for name in _FROM_TERMINAL:
        old[signal.Signals[name]] = signal.signal(signal.Signals[name], signal.SIG_IGN)
    for name in _FORWARDED:
        old[signal.Signals[name]] = signal.signal(signal.Signals[name], forward)
    try:
        # an ignored signal would stay ignored in the program
        child = subprocess.Popen(command_line, env=variables, preexec_fn=lambda: _restore(old))  # noqa: PLW1509  # this process has one thread
        for number in early:
            child.send_signal(number)
        return child.wait()
    finally:
        _restore(old)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _leave_snapshot(address: str, key: str | None, path: str, force: bool, code: int) -> None:
    """What goes wrong is said, and changes nothing about how the program ended."""
    from frzmq.control.client import ControlClient
    from frzmq.errors import FrzmqError
    from frzmq.snapfile.writer import atomic_file

    try:
        with ControlClient(address, key=key) as client, atomic_file(path, overwrite=force) as file:
            client.snapshot(file, reason=f"frzmq run: {_ended(code)}", share=True, flush_timeout_s=SNAPSHOT_FLUSH_S)
    except OSError as error:
        note(f"no snapshot: {path}: {error.strerror}")
    except FrzmqError as error:
        note(f"no snapshot: {error}")


def _ended(code: int) -> str:
    if code >= 0:
        return f"exited with {code}"
    with contextlib.suppress(ValueError):
        return f"died of {signal.Signals(-code).name}"
    return f"died of signal {-code}"


def _as_it_ended(code: int) -> int:
    """The exit code of a program; of one that died of a signal, this process dies of it too."""
    if code >= 0:
        return code
    sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        signal.signal(-code, signal.SIG_DFL)
    import resource

    # one core dump is enough
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.kill(os.getpid(), -code)
    return 128 - code
