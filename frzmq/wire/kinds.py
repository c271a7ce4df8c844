"""The table of record kinds: the one place that says which records exist and what each carries.

A record is a flat run of msgpack values ``kind, delta, args...``: ``delta`` is the time in ns since the record before it in its batch
(since the batch's ``base_ns`` for the first), and the kind fixes how many args follow. The table is append-only; each generation opens
with the part of it that the tracer uses, so that a reader needs to know no kind beforehand to skip it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from frzmq.errors import WireError
from frzmq.wire.codec import shown


class Kind(IntEnum):
    SPAN_BEGIN = 1
    SPAN_END = 2
    OPERATION_BEGIN = 3
    OPERATION_END = 4
    EVENT = 5
    GAUGE = 6
    LOG = 7
    EXCEPTION = 8
    CONTEXT = 9
    THREAD_BEGIN = 10
    THREAD_END = 11
    PROCESS_BEGIN = 12
    PROCESS_END = 13
    INJECT = 14
    EXTRACT = 15
    OPERATION_UPDATE = 16
    LOG_SUPPRESSED = 17
    CALL_BEGIN = 18
    CALL_END = 19
    CALL_FAIL = 20
    CALL_RESUME = 21
    CALL_SUSPEND = 22
    CALL_OPEN = 23
    CALL_QUIET = 24
    CALLS = 25


@dataclass(frozen=True, slots=True)
class KindSpec:
    """One row of the table.

    ``fields`` are written ``name:type``. Types: ``s`` a string (the id of one in the stream's string table, or an inline str, or nil),
    ``u`` an unsigned integer, ``v`` a scalar value (nil, bool, int, float, str, bytes), ``b`` bytes or nil, ``m`` a map of string
    (``s``) to scalar (``v``), or nil.
    """

    kind: int
    name: str
    fields: tuple[str, ...]

    @property
    def arity(self) -> int:
        return len(self.fields)


_TABLE: tuple[KindSpec, ...] = (
    # a span ends the innermost open span of its name on the same track
    KindSpec(Kind.SPAN_BEGIN, "span_begin", ("name:s", "attributes:m")),
    KindSpec(Kind.SPAN_END, "span_end", ("name:s", "error:s")),
    # op: this operation's id, the W3C span id, not 0; parent: op of the enclosing one in this process, or 0;
    # trace: 16 bytes; remote: the parent id of the traceparent that it continues, or 0
    KindSpec(
        Kind.OPERATION_BEGIN,
        "operation_begin",
        ("name:s", "op:u", "parent:u", "trace:b", "remote:u", "attributes:m"),
    ),
    KindSpec(Kind.OPERATION_END, "operation_end", ("op:u", "error:s")),
    KindSpec(Kind.EVENT, "event", ("name:s", "attributes:m")),
    KindSpec(Kind.GAUGE, "gauge", ("name:s", "value:v")),
    KindSpec(Kind.LOG, "log", ("level:u", "logger:s", "message:s", "attributes:m")),
    # where: "main", "thread", "asyncio"; traceback: lines "file:line function", innermost last
    KindSpec(Kind.EXCEPTION, "exception", ("type:s", "message:s", "where:s", "traceback:s")),
    # the records of this writer that follow belong to this track (0: the thread itself, else an asyncio task) and operation (or 0)
    KindSpec(Kind.CONTEXT, "context", ("track:u", "label:s", "op:u")),
    KindSpec(Kind.THREAD_BEGIN, "thread_begin", ("name:s", "native_id:u")),
    KindSpec(Kind.THREAD_END, "thread_end", ()),
    KindSpec(Kind.PROCESS_BEGIN, "process_begin", ("pid:u", "parent_pid:u")),
    KindSpec(Kind.PROCESS_END, "process_end", ("reason:s",)),
    # id: the parent id put into the traceparent; an extract of the same trace and id is the flow's other end
    KindSpec(Kind.INJECT, "inject", ("op:u", "trace:b", "id:u")),
    KindSpec(Kind.EXTRACT, "extract", ("op:u", "trace:b", "id:u")),
    # name: its new one, or nil; attributes: added to those of its begin
    KindSpec(Kind.OPERATION_UPDATE, "operation_update", ("op:u", "name:s", "attributes:m")),
    # a logging call below the enabled level, not formatted; args: by position ("0", "1", ...), or by the names of a mapping
    KindSpec(Kind.LOG_SUPPRESSED, "log_suppressed", ("level:u", "logger:s", "template:s", "args:m")),
    # code: "module.qualname (file:line)"; an end ends the innermost open call of its code on the same track, and what is open inside of it
    KindSpec(Kind.CALL_BEGIN, "call_begin", ("code:s",)),
    KindSpec(Kind.CALL_END, "call_end", ("code:s",)),
    KindSpec(Kind.CALL_FAIL, "call_fail", ("code:s", "error:s")),
    # a generator or coroutine goes on, which begins a call; it yields or awaits, which ends it
    KindSpec(Kind.CALL_RESUME, "call_resume", ("code:s",)),
    KindSpec(Kind.CALL_SUSPEND, "call_suspend", ("code:s",)),
    # as a generation begins: this call of this writer has been open for `age` ns, on this track; the outermost first
    KindSpec(Kind.CALL_OPEN, "call_open", ("code:s", "age:u", "track:u")),
    # code that is called too often: so many calls of the last `ns` were counted, not recorded; state: "quiet": and so on; "uncounted": there were more;
    # "calm": they are recorded again
    KindSpec(Kind.CALL_QUIET, "call_quiet", ("code:s", "count:u", "ns:u", "state:s")),
    # every call is recorded from here on, of modules by these patterns, unless its code begins more than `limit` (0: no limit) times a second
    KindSpec(Kind.CALLS, "calls", ("include:s", "exclude:s", "limit:u")),
)

KINDS: dict[int, KindSpec] = {spec.kind: spec for spec in _TABLE}
"""Every kind of this version, by number."""

FIELD_TYPES = "suvbm"
MAX_KINDS = 256
MAX_ARITY = 16


def kinds_to_wire(kinds: dict[int, KindSpec]) -> list[list[object]]:
    """The table as an opening batch carries it: ``[[kind, name, [field, ...]], ...]``."""
    return [[spec.kind, spec.name, list(spec.fields)] for spec in kinds.values()]


def kinds_from_wire(rows: object) -> dict[int, KindSpec]:
    """The table out of an opening batch. Raises WireError when it is not one."""
    if not isinstance(rows, list) or len(rows) > MAX_KINDS:
        raise WireError(f"kind table: wanted a list of at most {MAX_KINDS} rows, got {type(rows).__name__}")
    table: dict[int, KindSpec] = {}
    for row in rows:
        match row:
            case [int(kind), str(name), [*fields]] if 0 < kind < 2**16 and len(fields) <= MAX_ARITY:
                for field in fields:
                    if not isinstance(field, str) or field[-2:-1] != ":" or field[-1] not in FIELD_TYPES:
                        raise WireError(f"kind table: kind {kind}: wanted fields like 'name:s', got {shown(field)}")
                table[kind] = KindSpec(kind, name, tuple(fields))
            case _:
                raise WireError(f"kind table: wanted rows [kind, name, fields], got {shown(row)}")
    return table
