"""A snapshot as one page of HTML for people: what happened when, what was slow, what failed, what was said, what is lost.

The page needs nothing but itself: no network, no scripts, and a Content-Security-Policy that allows neither; whatever comes from the snapshot is text in it. It is
bounded, and says what it leaves out.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from frzmq.config import format_duration, format_size
from frzmq.export.functions import filter_text, functions, quiet_text
from frzmq.export.histogram import Latency, axis, histogram, latencies, scale
from frzmq.export.markup import Markup, element, html, table
from frzmq.export.slowest import slowest
from frzmq.export.svg import STYLE as PICTURE_STYLE
from frzmq.export.svg import pictures
from frzmq.export.text import clean, level_name, time_of_day, utc
from frzmq.reader.model import Gap, Operation, Process, Span
from frzmq.reader.snapshot import Snapshot

MAX_PROCESSES: Final = 100
MAX_NAMES: Final = 20
MAX_FUNCTIONS: Final = 50
MAX_PICTURES: Final = 5
MAX_PICTURE_CHARS: Final = 512 << 10
MAX_FAILURES: Final = 50
MAX_FRAMES: Final = 30
MAX_LOGS: Final = 200
MAX_GAPS: Final = 100
MAX_ATTRIBUTES: Final = 20
WARNING: Final = 30
LOSSES: Final = ("evicted", "overwritten", "missing", "late", "open", "dropped", "duplicate", "rejected", "torn")
STYLE: Final = """
:root{color-scheme:light dark;--ink:#1f2328;--pale:#656d76;--line:#d0d7de;--paper:#fff;--warn:#9a6700;--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--pale:#8d96a0;--line:#30363d;--paper:#0d1117;--warn:#d29922;--bad:#f85149}}
body{margin:2rem auto;max-width:78rem;padding:0 1rem;font:14px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem;margin:0}h2{font-size:1.2rem;margin:2.5rem 0 .5rem;border-bottom:1px solid var(--line)}h3{font-size:1rem;margin:1.5rem 0 .3rem}
p{margin:.4rem 0}nav a{margin-right:1.2em}a{color:inherit}
.note{color:var(--pale)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.t{overflow-x:auto}table{border-collapse:collapse;font-size:13px}
th,td{text-align:left;vertical-align:top;padding:.2em 1.2em .2em 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere;min-width:3em}
th{color:var(--pale);font-weight:normal;white-space:nowrap}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
code,pre{font:12px/1.45 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}pre{margin:.3em 0;white-space:pre-wrap}
svg{max-width:100%;height:auto}td svg{max-width:none;display:block}
"""
T = TypeVar("T")


@dataclass(slots=True)
class _Failure:
    """The same thing that failed in the same way, so many times."""

    what: str
    error: str
    process: str
    first_ns: int
    traceback: tuple[str, ...] = ()
    count: int = 0


def write_report(snapshot: Snapshot, write: Callable[[bytes], object]) -> int:
    """Gives the page to ``write`` piece by piece and returns its size in bytes. Times are wall times of the recorder's host, UTC."""
    written = 0
    for part in _page(snapshot):
        data = part.encode("utf-8", "backslashreplace")
        write(data)
        written += len(data)
    return written


def _page(snapshot: Snapshot) -> Iterator[str]:
    failures = _failures(snapshot)
    name = clean(os.path.basename(snapshot.path))
    title = snapshot.header.reason or name
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">'
    yield '<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">'
    yield element("title", title, " - frzmq")
    yield f"<style>{STYLE}</style></head><body>"
    yield element("h1", title)
    yield element("nav", *_contents(snapshot, failures))
    yield from _summary(snapshot, name)
    yield from _latency(snapshot)
    yield from _slowest(snapshot)
    yield from _errors(snapshot, failures)
    yield from _calls(snapshot)
    yield from _logs(snapshot)
    yield from _loss(snapshot)
    yield "</body></html>\n"


def _policy() -> str:
    """Nothing from anywhere, no script at all, and these two styles."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(s.encode()).digest()).decode()}'" for s in (STYLE, PICTURE_STYLE))
    return f"default-src 'none'; style-src {hashes}; base-uri 'none'; form-action 'none'"


def _contents(snapshot: Snapshot, failures: Sequence[_Failure]) -> Iterator[Markup]:
    lost = snapshot.ledger.lost
    yield element("a", f"{len(snapshot.operations)} operations", href="#latency")
    yield element("a", "the slowest", href="#slowest")
    yield element("a", f"{sum(each.count for each in failures)} errors", href="#errors")
    if snapshot.call_filters or snapshot.calls:
        yield element("a", f"{len(snapshot.calls)} calls", href="#calls")
    yield element("a", f"{len(snapshot.logs)} logs", href="#logs")
    yield element("a", f"{lost} records lost" if lost else "nothing lost", href="#loss")


def _section(id_: str, title: str) -> Markup:
    return element("h2", title, id=id_)


def _note(text: str) -> Markup:
    return element("p", text, class_="note")


def _bounded(items: Sequence[T], most: int, what: str) -> tuple[Sequence[T], Iterator[Markup]]:
    """The first ``most`` of them, and a line that says so when these are not all."""
    left_out = len(items) - most
    return items[:most], iter([_note(f"{left_out} more {what} are left out.")] if left_out > 0 else [])


# --- what it is


def _summary(snapshot: Snapshot, name: str) -> Iterator[Markup]:
    header, processes = snapshot.header, snapshot.processes
    size = format_size(snapshot.size_bytes)
    yield _note(
        f"{name} ({size}), made {utc(header.created_wall_ns)} on {header.host} by frzmq {header.recorder_version}"
    )
    if processes and snapshot.horizon_ns:
        begin, end = (time_of_day(snapshot.wall_ns(at))[:-6] for at in (snapshot.begin_ns, snapshot.end_ns))
        complete = format_duration(max(0, snapshot.end_ns - snapshot.horizon_ns))
        yield element(
            "p", f"From {begin} to {end}, and complete for the last {complete} of {len(processes)} processes."
        )
    else:
        yield element("p", f"It holds no records of its {len(processes)} processes.")
    shown, more = _bounded(processes, MAX_PROCESSES, "processes")
    if shown:
        headings = (
            "process",
            "program",
            "host",
            "Python",
            "state",
            "clock",
            "records",
            "lost",
            "complete for the last",
        )
        yield table(headings, (_process_row(snapshot, process) for process in shown), left=6)
    yield from more


def _process_row(snapshot: Snapshot, process: Process) -> tuple[str, ...]:
    state = f"{process.state}: {process.error}" if process.error else process.state
    clock = process.clock.source
    if clock != "same machine" and process.clock.error_ns is not None:
        clock += f" ±{format_duration(process.clock.error_ns)}"
    complete = format_duration(max(0, snapshot.end_ns - process.horizon_ns)) if process.horizon_ns else "-"
    numbers = (str(process.ledger.held), str(process.ledger.lost), complete)
    return (process.name, process.program, process.host, process.python, state, clock, *numbers)


# --- what was slow


def _latency(snapshot: Snapshot) -> Iterator[Markup]:
    yield _section("latency", "How long operations took")
    every = latencies(snapshot)
    if not every:
        yield _note("There are no operations.")
        return
    shown, more = _bounded(every, MAX_NAMES, "names of operations")
    on = axis(shown)
    headings = ("operation", scale(on), "count", "failed", "not ended", "median", "95 %", "longest")
    yield table(headings, ((each.name or "?", histogram(each, on), *_numbers(each)) for each in shown), left=2)
    yield from more


def _numbers(latency: Latency) -> Iterator[str]:
    yield str(len(latency.took_ns))
    yield str(latency.failed or "")
    yield str(latency.open or "")
    for share in (0.5, 0.95, 1.0):
        yield format_duration(latency.quantile_ns(share)) if latency.took_ns else ""


def _slowest(snapshot: Snapshot) -> Iterator[Markup]:
    yield _section("slowest", "The slowest operations")
    operations = slowest(snapshot, MAX_PICTURES)
    if not operations:
        yield _note("There are no operations whose begin is held.")
    for operation, picture in zip(operations, pictures(snapshot, operations), strict=True):
        took = format_duration(snapshot.took_ns(operation))
        ended = "" if operation.end_ns is not None else ", and had not ended"
        yield element("h3", f"{operation.name or '?'}: {took}{ended}")
        yield element("p", *_about(snapshot, operation), class_="note")
        if len(picture) <= MAX_PICTURE_CHARS:
            yield Markup(picture)
        else:
            yield _note(
                f"Its picture has too many parts for this page: frzmq export -o picture.svg --operation {operation.op} makes it."
            )


def _about(snapshot: Snapshot, operation: Operation) -> Iterator[str]:
    at = time_of_day(snapshot.wall_ns(operation.begin_ns or 0))[:-6]
    yield f"{at} in {snapshot.processes[operation.process].name}, id {operation.op}"
    if operation.error:
        yield element("span", f", failed with {operation.error}", class_="bad")
    for n, (key, value) in enumerate(operation.attributes.items()):
        if n == MAX_ATTRIBUTES:
            yield f", and {len(operation.attributes) - n} more attributes"
            break
        yield ", "
        yield element("code", clean(f"{key}={value!s:.1000}"))


# --- what failed


def _failures(snapshot: Snapshot) -> list[_Failure]:
    """Of the same kind together, the first first."""
    found: dict[tuple[str, str, str], _Failure] = {}

    def add(what: str, error: str, process: int, time_ns: int, traceback: tuple[str, ...] = ()) -> None:
        name = snapshot.processes[process].name
        failure = found.setdefault((what, error, name), _Failure(what, error, name, time_ns, traceback))
        failure.count += 1
        failure.first_ns = min(failure.first_ns, time_ns)

    for x in snapshot.exceptions:
        add(f"uncaught exception ({x.where})", f"{x.type}: {x.message}", x.process, x.time_ns, x.traceback)
    for what, items in (("operation", snapshot.operations), ("span", snapshot.spans)):
        failed: Iterable[Operation | Span] = (item for item in items if item.error)
        for item in failed:
            add(f"{what} {item.name or '?'}", item.error, item.process, item.end_ns or snapshot.end_ns)
    return sorted(found.values(), key=lambda each: each.first_ns)


def _errors(snapshot: Snapshot, failures: Sequence[_Failure]) -> Iterator[Markup]:
    yield _section("errors", "What failed")
    if not failures:
        yield _note("No operation and no span ended with an exception, and none was uncaught.")
        return
    shown, more = _bounded(failures, MAX_FAILURES, "kinds of errors")
    yield table(("first", "process", "what", "error", "times"), (_error_row(snapshot, f) for f in shown), left=4)
    yield from more


def _error_row(snapshot: Snapshot, failure: _Failure) -> tuple[str, ...]:
    error = html(failure.error)
    if failure.traceback:
        # the innermost last, as Python shows them: those are the ones to keep
        frames = failure.traceback[-MAX_FRAMES:]
        left_out = len(failure.traceback) - len(frames)
        lines = [clean(frame) for frame in frames]
        text = Markup("\n".join(html(line) for line in ([f"... {left_out} more"] if left_out else []) + lines))
        error = html(error, element("pre", text))
    at = time_of_day(snapshot.wall_ns(failure.first_ns))[:-6]
    return (at, failure.process, failure.what, error, str(failure.count))


# --- what was said


def _calls(snapshot: Snapshot) -> Iterator[Markup]:
    """Nothing, unless calls are recorded."""
    if not snapshot.call_filters and not snapshot.calls:
        return
    yield _section("calls", "Calls")
    for each in snapshot.call_filters:
        yield _note(f"Recorded: {filter_text(snapshot, each)}.")
    shown, more = _bounded(functions(snapshot), MAX_FUNCTIONS, "functions")
    headings = (
        "function",
        "where",
        "process",
        "calls",
        "not recorded",
        "failed",
        "not ended",
        "in it",
        "with what it called",
    )
    rows = (
        (
            f.code.name,
            f"{f.code.file}:{f.code.line}" if f.code.file else "",
            snapshot.processes[f.process].name,
            str(f.count),
            quiet_text(f),
            str(f.errors or ""),
            str(f.open or ""),
            format_duration(max(0, f.self_ns)),
            format_duration(f.total_ns),
        )
        for f in shown
    )
    if shown:
        yield table(headings, rows, left=3)
    yield from more


def _logs(snapshot: Snapshot) -> Iterator[Markup]:
    yield _section("logs", "Logs")
    if not snapshot.logs:
        yield _note("There are none.")
        return
    # warnings and worse before others, and of these the last
    chosen = sorted(snapshot.logs, key=lambda log: (log.level >= WARNING, log.time_ns))[-MAX_LOGS:]
    if len(chosen) < len(snapshot.logs):
        yield _note(
            f"{len(snapshot.logs) - len(chosen)} more logs are left out: here are the last {MAX_LOGS}, warnings and worse before others."
        )
    rows = []
    for log in sorted(chosen, key=lambda log: log.time_ns):
        level = level_name(log.level)
        kind = "bad" if log.level > WARNING else "warn" if log.level == WARNING else "note"
        at = time_of_day(snapshot.wall_ns(log.time_ns))[:-6]
        process = snapshot.processes[log.process].name
        rows.append((at, process, element("span", level, class_=kind), log.logger, log.message))
    yield table(("time", "process", "level", "logger", "message"), rows, left=5)


# --- what is lost


def _loss(snapshot: Snapshot) -> Iterator[Markup]:
    yield _section("loss", "What is lost")
    ledger = snapshot.ledger
    yield element("p", ledger.equation)
    for name in snapshot.header.missing[:MAX_PROCESSES]:
        yield element("p", f"Missing: the last moments of {name}", class_="warn")
    for problem in snapshot.problems:
        yield element("p", f"Problem: {problem}", class_="bad")
    causes = [cause for cause in LOSSES if getattr(ledger, cause)]
    wanting = [p for p in snapshot.processes if any(getattr(p.ledger, cause) for cause in causes)]
    shown, more = _bounded(wanting, MAX_PROCESSES, "processes")
    if shown:
        yield table(("process", *causes), ((p.name, *(str(getattr(p.ledger, c)) for c in causes)) for p in shown))
    yield from more
    gaps, more_gaps = _bounded(snapshot.gaps, MAX_GAPS, "gaps")
    if gaps:
        yield element("h3", "Gaps")
        threads = {(t.process, t.writer): t.name or f"thread {t.writer}" for t in snapshot.threads}
        rows = (_gap_row(snapshot, gap, threads) for gap in gaps)
        yield table(("from", "until", "process", "thread", "cause", "records"), rows, left=5)
    yield from more_gaps


def _gap_row(snapshot: Snapshot, gap: Gap, threads: Mapping[tuple[int, int], str]) -> tuple[str, ...]:
    begin, end = (time_of_day(snapshot.wall_ns(at))[:-6] for at in (gap.begin_ns, gap.end_ns))
    cause = f"{gap.cause}: {gap.detail}" if gap.detail else gap.cause
    count = "unknown" if gap.count is None else str(gap.count)
    thread = "all" if gap.writer is None else threads.get((gap.process, gap.writer), f"thread {gap.writer}")
    return (begin, end, snapshot.processes[gap.process].name, thread, cause, count)
