"""What a trigger is, as text: `FRZMQ_TRIGGERS`, the arguments of `frzmq.start` and `frzmq.trigger`, the recorder's file, and the wire all say it so.

::

    slow 500ms                          an operation that took longer
    slow p99*3 operation=GET*           longer than three times its own 99th percentile over the last minutes
    slow 50ms span=query                a span
    error                               an operation that failed, by an exception or a status of 500 and above, and an uncaught exception
    log ERROR logger=shop.*             a log record of this level or above
    signal SIGUSR2                      a signal

    when NAME                           a predicate of the program, which `frzmq.trigger` brings

Behind the condition: ``before=30s`` (only so much of the past; else all that is held), ``after=2s`` (goes on recording for so long), ``cooldown=60s``, ``per_hour=10``, and any
other ``NAME=VALUE`` as a label, which the snapshot's reason repeats. Patterns are those of a shell; quotes keep blanks together (``operation="GET /cart"``). Several
triggers in one text are separated by ``;``.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from frzmq.config import parse_count, parse_duration
from frzmq.errors import ConfigError

On: TypeAlias = Literal["slow", "error", "log", "signal", "when", "death"]
"""``death``: of the recorder itself, no text says it."""

MAX_CHARS: Final = 1024
MAX_TRIGGERS: Final = 64
_S: Final = 10**9
_LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_PERCENTILE: Final = re.compile(r"p([0-9]{1,2})(?:\*([0-9]{1,3}(?:\.[0-9]{1,3})?))?")
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")
_TARGETS: Final = {
    "slow": ("operation", "span"),
    "error": ("operation",),
    "log": ("logger",),
    "signal": (),
    "when": ("operation",),
}
_WANTED: Final = "slow DURATION, slow pNN, error, log LEVEL, or signal NAME"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One condition and what follows. Times are ns. ``text`` names it: equal texts are one trigger, also in different processes."""

    text: str
    on: On
    over_ns: int = 0
    """Of ``slow``: the limit; 0: a percentile is."""
    percentile: int = 0
    factor: float = 1.0
    level: int = 0
    """Of ``log``."""
    signal: int = 0
    target: str = ""
    """operation, span or logger, where ``pattern`` is of names; "": of all operations, or loggers."""
    pattern: str = "*"
    before_ns: int = 0
    """0: all that is held."""
    after_ns: int = 0
    cooldown_ns: int = 60 * _S
    per_hour: int = 10
    labels: tuple[tuple[str, str], ...] = field(default=())


def parse_triggers(text: str, where: str) -> tuple[Trigger, ...]:
    """Of a text with ``;`` between them. Raises ConfigError with the place: ``where`` and the number."""
    parts = [part.strip() for part in text.split(";")]
    parts = [part for part in parts if part]
    if len(parts) > MAX_TRIGGERS:
        raise ConfigError(f"{where}: wanted at most {MAX_TRIGGERS} triggers, got {len(parts)}")
    triggers = [
        parse_trigger(part, f"{where}: trigger {n}" if len(parts) > 1 else where) for n, part in enumerate(parts, 1)
    ]
    for trigger in triggers:
        if trigger.on == "when":
            raise ConfigError(f"{where}: wanted {_WANTED}, got {trigger.text!r:.80}: a predicate is frzmq.trigger's")
    return tuple(triggers)


def parse_trigger(text: str, where: str = "trigger") -> Trigger:
    """Raises ConfigError."""
    if len(text) > MAX_CHARS or not text.isprintable():
        raise ConfigError(f"{where}: wanted at most {MAX_CHARS} printable characters, got {text!r:.80}")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}, in {text!r:.80}") from None
    plain = [word for word in words if "=" not in word]
    if words[: len(plain)] != plain:
        raise ConfigError(f"{where}: wanted the condition before its options, got {text!r:.80}")
    values: dict[str, object] = {"text": text, **_condition(plain, text, where)}
    options = dict(_options(words[len(plain) :], where))
    on = str(values["on"])
    for name in ("operation", "span", "logger"):
        if name in options:
            if name not in _TARGETS[on] or "target" in values:
                wanted = " or ".join(_TARGETS[on]) or "no pattern"
                raise ConfigError(f"{where}: {on}: wanted {wanted}, got {name}={options[name]}")
            values |= {"target": name, "pattern": options.pop(name)}
    for name in ("before", "after", "cooldown"):
        if name in options:
            values[f"{name}_ns"] = parse_duration(options.pop(name), f"{where}: {name}")
    if "per_hour" in options:
        values["per_hour"] = parse_count(options.pop("per_hour"), f"{where}: per_hour")
    values["labels"] = tuple(options.items())
    return Trigger(**values)  # type: ignore[arg-type]  # each was given its type above


def _condition(words: list[str], text: str, where: str) -> dict[str, object]:
    match words:
        case ["slow", limit] if matched := _PERCENTILE.fullmatch(limit):
            percentile, factor = int(matched[1]), float(matched[2] or 1)
            if percentile == 0 or factor == 0:
                raise ConfigError(f"{where}: slow: wanted a percentile such as p99 or p99*3, got {limit!r}")
            return {"on": "slow", "percentile": percentile, "factor": factor}
        case ["slow", limit]:
            over_ns = parse_duration(limit, f"{where}: slow")
            if over_ns == 0:
                raise ConfigError(f"{where}: slow: wanted a duration above 0, got {limit!r}")
            return {"on": "slow", "over_ns": over_ns}
        case ["error"]:
            return {"on": "error"}
        case ["when", _]:
            return {"on": "when"}
        case ["log", level] if level.upper() in _LEVELS:
            return {"on": "log", "level": _LEVELS[level.upper()]}
        case ["log", level]:
            raise ConfigError(f"{where}: log: wanted one of {', '.join(_LEVELS)}, got {level!r:.80}")
        case ["signal", name]:
            number = getattr(signal.Signals, name, None)
            if number is None or number in (signal.SIGKILL, signal.SIGSTOP):
                raise ConfigError(f"{where}: signal: wanted one that can be caught, such as SIGUSR2, got {name!r:.80}")
            return {"on": "signal", "signal": int(number)}
        case _:
            raise ConfigError(f"{where}: wanted {_WANTED}, got {text!r:.80}")


def _options(words: list[str], where: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for word in words:
        name, _, value = word.partition("=")
        if not _LABEL.fullmatch(name) or not value or name in seen:
            raise ConfigError(f"{where}: wanted options NAME=VALUE, each once, got {word!r:.80}")
        seen.add(name)
        yield name, value
