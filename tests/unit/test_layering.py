"""An import only points down, and two modules on one line do not import each other: read from the source, nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import frzmq

PACKAGE = Path(frzmq.__file__).parent

# the first prefix that fits is a module's unit; units on one line do not import each other
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "clock", "config", "version", "triggers", "httpserver"),
    ("wire",),
    ("tracer.pure", "recorder.pure"),
    ("transport", "snapfile"),
    ("tracer", "recorder", "control"),
    ("reader", "flight", "embedded", "web"),
    ("export", "analysis", "view", "asgi", "wsgi"),
    ("demo", "site", "doctor"),
    ("cli",),
)
PURE = {
    "tracer.pure": {"machine", "events", "ports", "generations", "outbox", "slices"},
    "recorder.pure": {
        "ring", "machine", "known", "joining", "ends", "telling", "inputs", "stream", "streams", "tracers", "control", "events", "incidents", "ranges", "tail", "backoff", "horizon", "ledger",
    },
}  # fmt: skip
# the public names, and the start of the program: no layer of their own; only programs import the first
APART = {"", "__main__"}
IMPURE = {"time", "os", "threading", "_thread", "socket", "random", "zmq", "mmap", "select", "subprocess", "asyncio"}
# on one line, but one of the two stands on the other by its nature
ALLOWED = {
    ("flight", "embedded"),
    ("config", "errors"),
    ("triggers", "config"),
    ("config", "triggers"),
    ("triggers", "errors"),
}


@dataclass(frozen=True)
class Import:
    module: str
    """Without ``frzmq.``: the importing module."""
    target: str
    """In full."""
    line: int
    lazy: bool
    """Inside a function, or only for the type checker."""

    def __str__(self) -> str:
        return f"frzmq.{self.module}:{self.line} imports {self.target}"


def imports_of(module: str, source: str, modules: set[str]) -> Iterator[Import]:
    tree = ast.parse(source)
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    checked = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING"
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if node in checked:
            continue
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from frzmq.tracer import api` names a module; `from frzmq.errors import WireError` does not
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [name if name in modules else node.module for name in inside]
        else:
            continue
        for target in sorted(set(targets)):
            yield Import(module, target, node.lineno, node in lazy)


def modules() -> dict[str, str]:
    """``tracer.api`` and its source, for every module."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


@cache
def all_imports() -> tuple[Import, ...]:
    sources = modules()
    names = {f"frzmq.{name}" for name in sources}
    return tuple(found for name, source in sources.items() for found in imports_of(name, source, names))


def unit(module: str) -> str:
    """``tracer.machine`` is part of tracer.pure, ``tracer.api`` of tracer."""
    for pure, names in PURE.items():
        package = pure.partition(".")[0]
        if module.removeprefix(f"{package}.") in names and module.startswith(f"{package}."):
            return pure
    return module.partition(".")[0]


LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}


def faults(imports: Iterable[Import]) -> list[str]:
    """Upward imports, and those between two units of one line."""
    found = []
    for each in imports:
        if each.module in APART or each.target.partition(".")[0] != "frzmq":
            continue
        target = each.target.removeprefix("frzmq").removeprefix(".")
        here, there = unit(each.module), unit(target)
        if target in APART:
            there_layer = len(LAYERS)
            if each.module.startswith(("cli", "demo")):
                continue
        else:
            there_layer = LAYER_OF[there]
        if here == there or (here, there) in ALLOWED:
            continue
        if there_layer >= LAYER_OF[here]:
            found.append(
                f"{each}: {here} (line {LAYER_OF[here]}) may not import {there or 'frzmq'} (line {there_layer})"
            )
    return found


def test_layering_every_module_has_a_layer() -> None:
    assert [name for name in modules() if name not in APART and unit(name) not in LAYER_OF] == []


def test_layering_imports_point_down() -> None:
    assert faults(all_imports()) == []


def test_layering_seeded_faults_are_seen() -> None:
    seeded = [
        Import("wire.batch", "frzmq.recorder.ring", 1, False),
        Import("recorder.ring", "frzmq.tracer.machine", 1, False),
        Import("transport.sockets", "frzmq.snapfile.format", 1, True),
        Import("tracer.machine", "frzmq.tracer.agent", 1, False),
        Import("recorder.worker", "frzmq.control.client", 1, True),
        Import("reader.model", "frzmq", 1, False),
        Import("recorder.worker", "frzmq.recorder.machine", 1, False),
        Import("cli.status", "frzmq", 1, True),
    ]
    assert [text.split(":")[0] for text in faults(seeded)] == [f"frzmq.{each.module}" for each in seeded[:6]]


def test_layering_layers_one_and_two_are_pure() -> None:
    impure = [
        str(each)
        for each in all_imports()
        if LAYER_OF.get(unit(each.module)) in (1, 2) and each.target.partition(".")[0] in IMPURE
    ]
    assert impure == []


def users(library: str) -> set[str]:
    return {each.module for each in all_imports() if each.target.partition(".")[0] == library}


def test_layering_only_the_transport_imports_zmq() -> None:
    assert users("zmq") == {"transport.sockets"}


def test_layering_only_the_codec_imports_msgpack() -> None:
    assert users("msgpack") == {"wire.codec"}


def test_layering_rich_is_imported_by_the_command_line_and_lazily() -> None:
    rich = [each for each in all_imports() if each.target.partition(".")[0] == "rich"]
    assert [str(each) for each in rich if not each.lazy or unit(each.module) not in ("cli", "demo")] == []


def test_layering_nothing_else_is_needed_at_run_time() -> None:
    known = {*sys.stdlib_module_names, "frzmq", "zmq", "msgpack", "rich"}
    foreign = [each for each in all_imports() if each.target.partition(".")[0] not in known]
    # the demo's applications are of the frameworks that people have; metrics are an extra
    assert [str(each) for each in foreign if unit(each.module) != "demo" and each.module != "recorder.metrics"] == []
    assert all(each.lazy for each in foreign if each.module == "recorder.metrics")
