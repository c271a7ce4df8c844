"""The recorder's file of triggers, in TOML.

::

    [snapshots]
    directory = "/var/lib/frzmq"
    keep-count = 50
    keep-age = "7d"
    keep-bytes = "1G"

    [[trigger]]
    on = "slow 500ms"
    operation = "GET *"
    after = "2s"
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from frzmq.config import parse_duration, parse_size
from frzmq.errors import ConfigError
from frzmq.triggers import parse_triggers

MAX_FILE_BYTES: Final = 1 << 20
_STORE: Final = ("directory", "keep-count", "keep-age", "keep-bytes")


def read_file(path: str) -> dict[str, Any]:
    """``{"triggers": [text, ...], "store": {argument of StoreConfig: value}}``. Raises ConfigError with the place."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        tables = tomllib.loads(data[:MAX_FILE_BYTES].decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: wanted at most {MAX_FILE_BYTES} bytes, got more")
    _only(tables, ("snapshots", "trigger"), path)
    triggers = tables.get("trigger", [])
    if not isinstance(triggers, list):
        raise ConfigError(f"{path}: wanted [[trigger]], got [trigger]")
    store = tables.get("snapshots", {})
    if not isinstance(store, dict):
        raise ConfigError(f"{path}: wanted [snapshots], got {type(store).__name__}")
    return {
        "triggers": [_trigger(table, f"{path}: trigger {n}") for n, table in enumerate(triggers, 1)],
        "store": _store(store, f"{path}: snapshots"),
    }


def _trigger(table: object, where: str) -> str:
    if not isinstance(table, dict) or not isinstance(table.get("on"), str):
        raise ConfigError(f'{where}: wanted on = "CONDITION"')
    options = {name: value for name, value in table.items() if name != "on"}
    for name, value in options.items():
        if not isinstance(value, (str, int, float)) or isinstance(value, bool) or ";" in str(value):
            raise ConfigError(f"{where}: {name}: wanted a text without a semicolon, or a number, got {value!r:.80}")
    text = " ".join([table["on"], *(f"{name}={shlex.quote(str(value))}" for name, value in options.items())])
    parse_triggers(text, where)
    return text


def _store(table: Mapping[str, object], where: str) -> dict[str, Any]:
    _only(table, _STORE, where)
    values: dict[str, Any] = {}
    for name, value in table.items():
        wanted = int if name == "keep-count" else str
        if type(value) is not wanted:
            raise ConfigError(f"{where}: {name}: wanted {wanted.__name__}, got {value!r:.80}")
        match name:
            case "keep-age":
                values["keep_age_s"] = parse_duration(str(value), f"{where}: keep-age") / 1e9
            case "keep-bytes":
                values["keep_bytes"] = parse_size(str(value), f"{where}: keep-bytes")
            case _:
                values[name.replace("-", "_")] = value
    return values


def _only(table: Mapping[str, object], names: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in names:
            raise ConfigError(f"{where}: wanted {', '.join(names)}, got {name!r:.80}")
