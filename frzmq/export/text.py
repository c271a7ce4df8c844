"""A snapshot as lines of text: one for each record, in the order of time, all processes together.

::

    12:30:05.123456789  gateway[4711]  MainThread  span_begin  ask orders  item=apple
    12:30:05.131902115  gateway[4711]  MainThread  span_end  ask orders  8.446ms

What was open already when the first generation of a process began comes first, and where something is known to be lost a line says so. The records by which
a writer says that it goes on in another task or operation are left out: each line has its task.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Iterator
from typing import Any, TextIO, assert_never

from frzmq.config import format_duration
from frzmq.reader.calls import code_of
from frzmq.reader.model import Gap, Record
from frzmq.reader.order import Lost, Opened
from frzmq.reader.snapshot import Snapshot
from frzmq.wire.codec import Value
from frzmq.wire.kinds import Kind

MAX_VALUE_CHARS = 200
MAX_INDENT = 30
_ID_FIELDS = frozenset({"op", "parent", "remote", "id"})
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""What makes text run from right to left: a message could seem to say something else."""
_PLAIN = str.maketrans(
    {c: f"\\x{c:02x}" for c in [*range(32), *range(127, 160)]}
    | {c: f"\\u{c:04x}" for c in [0x2028, 0x2029, *_DIRECTIONS]}
)


def write_text(snapshot: Snapshot, out: TextIO) -> int:
    """Writes it line by line, without holding it, and returns the number of records. Times are wall times of the recorder's host, UTC."""
    out.writelines(line + "\n" for line in _heading(snapshot))
    places = _Places(snapshot)
    count = 0
    for entry in snapshot.entries():
        match entry:
            case Record():
                count += 1
                if (line := places.line(entry)) is not None:
                    out.write(line + "\n")
            case Opened():
                out.writelines(line + "\n" for line in places.opened(entry))
            case Lost(_, gap):
                out.write(places.gap(gap) + "\n")
            case _:
                assert_never(entry)
    out.writelines(f"# problem: {clean(problem)}\n" for problem in snapshot.problems)
    return count


def _heading(snapshot: Snapshot) -> Iterator[str]:
    header = snapshot.header
    yield f"# snapshot of {utc(header.created_wall_ns)}, {len(header.streams)} processes{_because(header.reason)}"
    for name in header.missing:
        yield f"# missing: the last moments of {clean(name)}"


def _because(reason: str) -> str:
    return f": {clean(reason)}" if reason else ""


class _Places:
    """Names of processes and threads, as they become known."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._processes = [f"{clean(s.service)}[{s.pid}]" for s in snapshot.header.streams]
        self._threads: dict[tuple[int, int], str] = {}
        self._tasks: dict[tuple[int, int], str] = {}
        self._seen: set[int] = set()
        self._begun: dict[tuple[int, int, str | int], list[int]] = {}
        """Begin of what is open, by process, track and name, an operation's by its id."""
        self._operations: dict[tuple[int, int], str] = {}
        self._calls = _CallDepths()

    def opened(self, entry: Opened) -> Iterator[str]:
        for info in entry.opening.writers:
            self._threads[entry.process, info.writer] = clean(info.name)
        if entry.process in self._seen:
            return
        self._seen.add(entry.process)
        offset_ns = entry.time_ns - entry.opening.monotonic_ns
        for item in sorted(entry.opening.open, key=lambda item: item.begin_ns):
            name, begin_ns = entry.strings.resolve(item.name), item.begin_ns + offset_ns
            what, key = ("operation", item.op) if item.kind == Kind.OPERATION_BEGIN else ("span", name)
            self._begin(entry.process, item.writer, item.track, key, begin_ns)
            if isinstance(key, int):
                self._operations[entry.process, key] = name
            place = self._place(entry.process, item.writer, item.track)
            age = format_duration(max(0, entry.time_ns - begin_ns))
            yield f"{self._time(entry.time_ns)}  {self._processes[entry.process]}  {place}  open {what}  {clean(name)}  since {self._time(begin_ns)} ({age})"

    def _begin(self, process: int, writer: int, track: int, name: str | int, time_ns: int) -> None:
        self._begun.setdefault(_key(process, writer, track, name), []).append(time_ns)

    def _end(self, process: int, writer: int, track: int, name: str | int, time_ns: int) -> str:
        """How long it took, "" when its begin is not known."""
        key = _key(process, writer, track, name)
        begun = self._begun.get(key)
        if not begun:
            return ""
        begin_ns = begun.pop()
        if not begun:
            del self._begun[key]
        return format_duration(max(0, time_ns - begin_ns))

    def line(self, record: Record) -> str | None:
        if record.name == "thread_begin":
            self._threads[record.process, record.writer] = clean(str(record.fields.get("name", "")))
        elif record.name == "context":
            if record.track:
                self._tasks[record.process, record.track] = clean(str(record.fields.get("label", "")))
            return None
        place = self._place(record.process, record.writer, record.track)
        parts = [self._time(record.time_ns), self._processes[record.process], place, record.name]
        fields: dict[str, Any] = dict(record.fields)
        at = (record.process, record.writer, record.track)
        took = ""
        match record.name:
            case "span_begin":
                self._begin(*at, fields["name"], record.time_ns)
            case "operation_begin":
                self._begin(*at, fields["op"], record.time_ns)
                self._operations[record.process, fields["op"]] = fields["name"]
            case "span_end":
                took = self._end(*at, fields["name"], record.time_ns)
            case "call_begin" | "call_resume":
                fields["name"] = self._calls.begin(at, fields.pop("code"), record.time_ns)
            case "call_end" | "call_suspend" | "call_fail":
                fields["name"], took = self._calls.end(at, fields.pop("code"), record.time_ns)
            case "call_open":
                at = (record.process, record.writer, fields.pop("track"))
                parts[2] = self._place(*at)
                age_ns = fields.pop("age")
                fields["name"] = self._calls.open(at, fields.pop("code"), record.time_ns - age_ns)
                fields["since"] = f"{self._time(record.time_ns - age_ns)} ({format_duration(age_ns)})"
            case "call_quiet":
                fields["name"] = code_of(fields.pop("code")).name
                fields["over"] = format_duration(fields.pop("ns"))
            case "operation_end":
                took = self._end(*at, fields["op"], record.time_ns)
                fields["name"] = self._operations.pop((record.process, fields["op"]), None)
            case _:
                pass
        if (name := fields.pop("name", None)) is not None:
            parts.append(clean(str(name)))
        if took:
            parts.append(took)
        attributes = fields.pop("attributes", None)
        parts += [f"{key}={_value(key, value)}" for key, value in fields.items() if _says(key, value)]
        if isinstance(attributes, dict):
            parts += [f"{clean(str(key))}={_value('', value)}" for key, value in attributes.items()]
        return "  ".join(parts)

    def gap(self, gap: Gap) -> str:
        who = "" if gap.writer is None else f"  {self._thread(gap.process, gap.writer)}"
        detail = f"  ({clean(gap.detail)})" if gap.detail else ""
        return f"{self._time(gap.begin_ns)}  {self._processes[gap.process]}{who}  lost: {lost_text(gap)}, until {self._time(gap.end_ns)}{detail}"

    def _time(self, time_ns: int) -> str:
        return time_of_day(self._snapshot.wall_ns(time_ns))

    def _thread(self, process: int, writer: int) -> str:
        return self._threads.get((process, writer)) or f"thread {writer}"

    def _place(self, process: int, writer: int, track: int) -> str:
        return (self._tasks.get((process, track)) or f"task {track}") if track else self._thread(process, writer)


def lost_text(gap: Gap) -> str:
    """``4 records overwritten``"""
    return f"{'records' if gap.count is None else f'{gap.count} records'} {gap.cause}"


class _CallDepths:
    """The calls that are open on each track: their lines are indented as they nest."""

    def __init__(self) -> None:
        self._stacks: dict[tuple[int, int], list[tuple[str, int]]] = {}

    def begin(self, at: tuple[int, int, int], code: str, time_ns: int) -> str:
        stack = self._stack(at)
        stack.append((code, time_ns))
        return _indented(len(stack) - 1, code)

    def open(self, at: tuple[int, int, int], code: str, begin_ns: int) -> str:
        """One that a generation says to be open."""
        stack = self._stack(at)
        if (code, begin_ns) not in stack:
            insort(stack, (code, begin_ns), key=lambda call: call[1])
        return _indented(stack.index((code, begin_ns)), code)

    def end(self, at: tuple[int, int, int], code: str, time_ns: int) -> tuple[str, str]:
        """With how long it took, "" when its begin is not known."""
        stack = self._stack(at)
        depth = next((n for n in range(len(stack) - 1, -1, -1) if stack[n][0] == code), None)
        if depth is None:
            return _indented(len(stack), code), ""
        took = format_duration(max(0, time_ns - stack[depth][1]))
        del stack[depth:]
        return _indented(depth, code), took

    def _stack(self, at: tuple[int, int, int]) -> list[tuple[str, int]]:
        process, writer, track = at
        return self._stacks.setdefault((process, track or -writer - 1), [])


def _indented(depth: int, code: str) -> str:
    return "  " * min(depth, MAX_INDENT) + code_of(code).name


def _key(process: int, writer: int, track: int, name: str | int) -> tuple[int, int, str | int]:
    """What a begin and its end have in common: a span its place and name, an operation its id."""
    return process, 0 if isinstance(name, int) else track or -writer - 1, name


def _says(name: str, value: Value) -> bool:
    """An id of 0 and an empty text stand for none."""
    return value not in ("", b"", None) and not (name in _ID_FIELDS and value == 0)


def _value(name: str, value: Value) -> str:
    if name in _ID_FIELDS and type(value) is int:
        return f"{value:016x}"
    if isinstance(value, bytes):
        return value.hex() if len(value) <= MAX_VALUE_CHARS // 2 else f"{value[: MAX_VALUE_CHARS // 2].hex()}…"
    text: Any = value
    return clean(str(text))


def utc(wall_ns: int) -> str:
    """A wall time to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall_ns // 10**9))


def time_of_day(wall_ns: int) -> str:
    """A wall time to the nanosecond, without its date."""
    seconds, ns = divmod(wall_ns, 10**9)
    return f"{time.strftime('%H:%M:%S', time.gmtime(max(seconds, 0) % 86_400))}.{ns:09d}"


def level_name(level: int) -> str:
    """In a word, also of one between two that have names."""
    names = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"), (10, "debug"))
    return next((name for least, name in names if level >= least), "log")


def clean(text: str, most_chars: int = MAX_VALUE_CHARS) -> str:
    """On one line, at most ``most_chars`` long, nothing in it that a terminal obeys."""
    text = text[: most_chars + 1].translate(_PLAIN)
    return text if len(text) <= most_chars else f"{text[:most_chars]}…"
