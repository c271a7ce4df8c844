"""Which functions a snapshot's calls are of, and where their time went."""

from __future__ import annotations

from dataclasses import dataclass

from frzmq.reader.model import Call, CallFilter, Code
from frzmq.reader.snapshot import Snapshot


@dataclass(slots=True)
class Function:
    """The calls of one function in one process. Times are ns."""

    process: int
    code: Code
    count: int = 0
    """That were recorded."""
    errors: int = 0
    open: int = 0
    """Had not ended."""
    total_ns: int = 0
    """In it and in what it called; of a recursion that of its outermost call."""
    self_ns: int = 0
    """In it, not in other recorded calls."""
    quiet: int = 0
    """That were counted, not recorded."""
    at_least: bool = False
    """There were more, which were not even counted."""


def functions(snapshot: Snapshot) -> list[Function]:
    """That in which most time was spent first."""
    found: dict[tuple[int, Code], Function] = {}
    stacks: dict[int, list[tuple[Call, Function]]] = {}

    def function(process: int, code: Code) -> Function:
        return found.setdefault((process, code), Function(process, code))

    for call in sorted(snapshot.calls, key=lambda call: (call.begin_ns or 0, call.number)):
        mine = function(call.process, call.code)
        took_ns = snapshot.took_ns(call)
        mine.count += not call.resumed
        mine.errors += bool(call.error)
        mine.open += call.end_ns is None
        mine.self_ns += took_ns
        stack = stacks.setdefault(call.track, [])
        del stack[call.depth :]
        if stack:
            # the innermost that is still around it: an end that is lost leaves one too many
            around, theirs = stack[-1]
            if around.end_ns is None or (call.begin_ns or 0) < around.end_ns:
                theirs.self_ns -= took_ns
        if not any(outer is mine for _, outer in stack):
            mine.total_ns += took_ns
        stack.append((call, mine))
    for quiet in snapshot.quiet_calls:
        mine = function(quiet.process, quiet.code)
        mine.quiet += quiet.count
        mine.at_least |= quiet.at_least
    return sorted(found.values(), key=lambda f: (-f.self_ns, -f.quiet, f.code))


def quiet_text(function: Function) -> str:
    """How many of its calls were only counted, "" when none was."""
    if function.at_least:
        return f"{function.quiet} and more"
    return str(function.quiet) if function.quiet else ""


def filter_text(snapshot: Snapshot, each: CallFilter) -> str:
    """Which calls of a process are recorded."""
    modules = f"of {each.include}" if each.include else "of all modules but the standard library"
    without = f", without {each.exclude}" if each.exclude else ""
    limit = f"; beyond {each.limit} a second they are counted" if each.limit else ""
    return f"calls of {snapshot.processes[each.process].name}: {modules}{without}{limit}"
