"""Reads code for waits without a deadline: what may wait for ever for another thread, process, peer or file, by its form alone.

A wait is found by the name that is called, whatever it is called on: what is meant otherwise is one more entry in the table of exceptions, and what is missed
would be one wait more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Call = ast.Call


@dataclass(frozen=True, slots=True, order=True)
class Wait:
    file: str
    where: str
    """The function that it is in, ``Class.method``; "" for the module."""
    what: str
    """``join()``, ``with _lock``."""

    def __str__(self) -> str:
        return f"{self.file} {self.where or '-'} {self.what}"


def waits_in(root: Path) -> list[Wait]:
    """Of all modules below ``root``, in order."""
    trees = {path.relative_to(root).as_posix(): ast.parse(path.read_text()) for path in sorted(root.rglob("*.py"))}
    locks = {name for tree in trees.values() for name in _made_by(tree, _LOCKS)}
    contexts = {name for tree in trees.values() for name in _made_by(tree, ("ContextVar",))}
    return sorted(wait for file, tree in trees.items() for wait in _Reader(file, tree, locks, contexts).found())


def waits_of(code: str) -> list[str]:
    """``what`` of each wait of one module."""
    tree = ast.parse(code)
    found = _Reader("", tree, set(_made_by(tree, _LOCKS)), set(_made_by(tree, ("ContextVar",)))).found()
    return [wait.what for wait in found]


_LOCKS: Final = ("Lock", "RLock", "allocate_lock", "Condition", "Semaphore", "BoundedSemaphore")
_PIPES: Final = re.compile(r"\bstd(in|out|err)\b")
_FLAGS: Final = re.compile(r"\b(DONTWAIT|NOBLOCK|MSG_DONTWAIT)\b")
_NO_FIFO: Final = re.compile(r"\b(O_NONBLOCK|O_EXCL|O_DIRECTORY|devnull)\b")


def _made_by(tree: ast.AST, makers: tuple[str, ...]) -> Iterator[str]:
    """The names, of variables and attributes, that are given what one of the makers returns."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=ast.Call(func=func)) if _name(func) in makers:
                yield from map(_name, targets)
            case ast.AnnAssign(target=target, value=ast.Call(func=func)) if _name(func) in makers:
                yield _name(target)


def _name(node: ast.expr) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def _given(call: Call, position: int, *names: str) -> bool:
    """An argument is there, by its position or its name, and is not None."""
    values = [k.value for k in call.keywords if k.arg in names] + call.args[position : position + 1]
    return any(not (isinstance(value, ast.Constant) and value.value is None) for value in values)


def _acquires(call: Call) -> bool:
    first = [k.value for k in call.keywords if k.arg == "blocking"] + call.args[:1]
    no_wait = any(isinstance(value, ast.Constant) and value.value is False for value in first)
    return not (no_wait or _given(call, 1, "timeout"))


def _without(position: int, *names: str) -> Callable[[Call], bool]:
    return lambda call: not _given(call, position, *(names or ("timeout",)))


def _always(_: Call) -> bool:
    return True


def _lacks(pattern: re.Pattern[str]) -> Callable[[Call], bool]:
    return lambda call: not pattern.search(ast.unparse(call))


CALLS: Final[dict[str, Callable[[Call], bool]]] = {
    # threads and futures
    "join": _without(0),
    "wait": _without(0),
    "wait_for": _without(1),
    "acquire": _acquires,
    "result": _without(0),
    "Thread": lambda call: (
        _given(call, 99, "target") and "daemon=True" not in ast.unparse(call)
    ),  # the end of the interpreter waits for it
    "ThreadPoolExecutor": _always,
    "ProcessPoolExecutor": _always,
    "Queue": _always,
    "LifoQueue": _always,
    "PriorityQueue": _always,
    # processes
    "communicate": _without(1),
    "run": lambda call: _name_of_owner(call) == "subprocess" and not _given(call, 99, "timeout"),
    "call": lambda call: _name_of_owner(call) == "subprocess" and not _given(call, 99, "timeout"),
    "check_call": _without(99),
    "check_output": _without(99),
    "getoutput": _always,
    "system": lambda call: _name_of_owner(call) == "os",
    "waitpid": lambda call: "WNOHANG" not in ast.unparse(call),
    "waitid": lambda call: "WNOHANG" not in ast.unparse(call),
    "wait3": lambda call: "WNOHANG" not in ast.unparse(call),
    "wait4": lambda call: "WNOHANG" not in ast.unparse(call),
    "pause": _always,
    "sigwait": _always,
    "sigwaitinfo": _always,
    # descriptors, sockets, files
    "poll": _without(0),
    "select": lambda call: _name_of_owner(call) == "select" and not _given(call, 3),
    "term": _always,
    "destroy": _always,
    "lockf": _lacks(re.compile(r"\bLOCK_(NB|UN)\b")),
    "flock": _lacks(re.compile(r"\bLOCK_(NB|UN)\b")),
    "urlopen": _without(2),
    "create_connection": _without(1),
    "HTTPConnection": _without(99),
    "HTTPSConnection": _without(99),
    "serve_forever": _always,
    "shutdown": _always,
    "start_http_server": _always,
    "input": lambda call: isinstance(call.func, ast.Name),
}


def _name_of_owner(call: Call) -> str:
    return _name(call.func.value) if isinstance(call.func, ast.Attribute) else ""


class _Reader(ast.NodeVisitor):
    def __init__(self, file: str, tree: ast.Module, locks: set[str], contexts: set[str]) -> None:
        self._file, self._tree, self._locks, self._contexts = file, tree, locks, contexts
        self._scope: list[str] = []
        self._found: list[Wait] = []
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        self._sockets = bool(imported & {"zmq", "socket"})
        self._constants = {
            _name(node.target): ast.unparse(node.value)
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and node.value is not None
        }

    def found(self) -> list[Wait]:
        self.visit(self._tree)
        return self._found

    def _wait(self, what: str) -> None:
        self._found.append(Wait(self._file, ".".join(self._scope), what))

    def _inside(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._scope.append(node.name)
        self.generic_visit(node)
        self._scope.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        handler = any(_name(base).endswith("RequestHandler") for base in node.bases)
        names = {_name(t) for n in node.body if isinstance(n, ast.Assign) for t in n.targets}
        names |= {_name(n.target) for n in node.body if isinstance(n, ast.AnnAssign)}
        if handler and "timeout" not in names:
            self._wait(f"class {node.name}")
        self._inside(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._inside(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            if _name(item.context_expr) in self._locks:
                self._wait(f"with {_name(item.context_expr)}")
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Not called, but handed on: to be called elsewhere."""
        if node.attr in ("term", "serve_forever") or (self._sockets and node.attr.startswith("recv")):
            self._wait(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name, owner = _name(node.func), _name_of_owner(node)
        if self._waits(node, name, owner):
            self._wait(f"{name}()")
        for child in ast.iter_child_nodes(node):
            if child is node.func and isinstance(child, ast.Attribute):
                self.visit(child.value)
            else:
                self.visit(child)

    def _waits(self, node: ast.Call, name: str, owner: str) -> bool:
        match name:
            case "get":
                return not (node.args or node.keywords or owner in self._contexts)
            case "read" | "readline" | "readlines" if _PIPES.search(ast.unparse(node.func)):
                return True
            case "read" | "write" if owner == "os":
                return True
            case "open" if owner == "os":
                said = " ".join(self._constants.get(word, word) for word in re.findall(r"\w+", ast.unparse(node)))
                return not _NO_FIFO.search(said)
            case _ if self._sockets and re.match(r"(recv|send(_multipart|all|to)?$)", name):
                return not _FLAGS.search(ast.unparse(node))
            case _:
                rule = CALLS.get(name)
                return rule is not None and rule(node)
