"""A still picture of a snapshot, or of one operation over all processes that it touched: for a README or an incident ticket.

One lane for each thread or task, its bars nested as in a timeline; flows as arrows; warnings, errors and exceptions as marks; hatched where records are lost. In the picture of one
operation what else ran long meanwhile is dimmed beside it, but for operations of the same name. It follows the reader's light or dark scheme, and has no scripts and no fonts of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from frzmq.config import format_duration
from frzmq.errors import ConfigError
from frzmq.export.lanes import OPEN_NS, Bar, Lane, lanes
from frzmq.export.text import clean, lost_text
from frzmq.reader.model import Operation, QuietCalls
from frzmq.reader.snapshot import Snapshot

LABEL_PX: Final = 210
ROW_PX: Final = 20
AXIS_PX: Final = 30
MARGIN_PX: Final = 8
MAX_LANES: Final = 60
MAX_DIMMED: Final = 6
MAX_HATCHED: Final = 500
"""Stretches of lanes."""
LEAST_HATCHED_PX: Final = 4
MAX_DEPTH: Final = 40
"""Of the bars of one lane: a recursion may be thousands deep."""
LEAST_PX: Final = 0.5
"""A bar that is narrower is left out, and counted."""
CHAR_PX: Final = 6.4
WARNING: Final = 30
STYLE: Final = """
text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#1f2328}
.a{fill:#656d76}.g{stroke:#d0d7de;stroke-width:1}.l{fill:#f6f8fa}.b{fill:#fff}
.o{fill:#8ec5ff;stroke:#0969da}.s{fill:#b6e3c6;stroke:#1a7f37}.c{fill:#eadcff;stroke:#8250df}.e{fill:#ffc1ba;stroke:#cf222e}.d{opacity:.45}
.f{fill:none;stroke:#8250df;stroke-width:1.2}.w{fill:#bf8700}.x{fill:#cf222e}.h{stroke:#cf222e;stroke-width:1.5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.a{fill:#8d96a0}.g{stroke:#30363d}.l{fill:#161b22}.b{fill:#0d1117}
.o{fill:#1f4b7a;stroke:#4493f8}.s{fill:#1d4d2b;stroke:#3fb950}.c{fill:#3b2660;stroke:#a371f7}.e{fill:#6b1f1c;stroke:#f85149}.f{stroke:#a371f7}.w{fill:#d29922}.x{fill:#f85149}.h{stroke:#f85149}}
"""


@dataclass(frozen=True, slots=True)
class _Row:
    """One lane of the picture."""

    lane: Lane
    label: str
    bars: tuple[Bar, ...]
    base_depth: int
    """Of the outermost bar that is shown."""
    dimmed: bool

    @property
    def height_px(self) -> int:
        depth = max(bar.depth for bar in self.bars) - self.base_depth
        return (min(depth, MAX_DEPTH - 1) + 1) * ROW_PX + MARGIN_PX


def write_svg(
    snapshot: Snapshot, write: Callable[[bytes], object], *, operation: str | None = None, width: int = 1200
) -> int:
    """Gives the picture, ``width`` pixels wide, to ``write`` and returns its size in bytes.

    ``operation``: the id of one, or a name, of which the slowest is taken. Raises ConfigError when there is none.
    """
    found = None if operation is None else find_operation(snapshot, operation)
    data = "".join(_Picture(snapshot, found, width, lanes(snapshot)).parts()).encode("utf-8", "xmlcharrefreplace")
    write(data)
    return len(data)


def pictures(snapshot: Snapshot, operations: Iterable[Operation], width: int = 1200) -> Iterator[str]:
    """One of each operation; each has the style `STYLE` in it."""
    every = lanes(snapshot)
    for operation in operations:
        yield "".join(_Picture(snapshot, operation, width, every).parts())


def find_operation(snapshot: Snapshot, wanted: str) -> Operation:
    found = [o for o in snapshot.operations if wanted in {o.name, o.op} and o.begin_ns is not None]
    if not found:
        raise ConfigError(f"export: wanted an operation of the snapshot, got {wanted!r:.80}")
    return max(found, key=snapshot.took_ns)


class _Picture:
    def __init__(self, snapshot: Snapshot, operation: Operation | None, width: int, every: list[Lane]) -> None:
        self._snapshot = snapshot
        self._operation = operation
        self._width = width
        self._narrow = self._deep = self._hatched = 0
        self._pattern = "lost" if operation is None else f"lost-{operation.op}"
        """Its id: pictures of one page have each their own."""
        if operation is None:
            self._begin_ns, self._end_ns = snapshot.begin_ns, snapshot.end_ns
            self._mine: set[int] = set()
            self._alike: set[int] = set()
        else:
            self._begin_ns, self._end_ns = operation.begin_ns or 0, operation.end_ns or snapshot.end_ns
            self._mine = {o.number for o in snapshot.operations if o.trace == operation.trace}
            # others of its name suffer as it does: they explain nothing
            traces = {o.trace for o in snapshot.operations if o.name == operation.name}
            self._alike = {o.number for o in snapshot.operations if o.trace in traces}
        self._end_ns = max(self._end_ns, self._begin_ns + 1)
        rows = list(self._rows(every, dimmed=False))
        if operation is not None:
            rows += sorted(self._rows(every, dimmed=True), key=self._overlap_ns, reverse=True)[:MAX_DIMMED]
        self._left_out = max(0, len(rows) - MAX_LANES)
        self._shown = rows[:MAX_LANES]

    # --- what is in it

    def _rows(self, every: list[Lane], *, dimmed: bool) -> Iterator[_Row]:
        for lane in every:
            bars = tuple(bar for bar in lane.bars if self._fits(bar) and self._belongs(bar, dimmed))
            if bars:
                yield _Row(lane, self._label(lane), bars, min(bar.depth for bar in bars), dimmed)

    def _fits(self, bar: Bar) -> bool:
        return bar.begin_ns < self._end_ns and bar.end_ns > self._begin_ns

    def _belongs(self, bar: Bar, dimmed: bool) -> bool:
        if self._operation is None:
            return True
        number = bar.item.number if isinstance(bar.item, Operation) else bar.item.operation
        if not dimmed:
            return number in self._mine
        overlap_ns = min(bar.end_ns, self._end_ns) - max(bar.begin_ns, self._begin_ns)
        return number not in self._alike and overlap_ns * 5 >= self._end_ns - self._begin_ns

    def _in_time(self, quiet: QuietCalls) -> bool:
        return quiet.begin_ns < self._end_ns and quiet.end_ns > self._begin_ns

    def _overlap_ns(self, row: _Row) -> int:
        return max(min(bar.end_ns, self._end_ns) - max(bar.begin_ns, self._begin_ns) for bar in row.bars)

    def _label(self, lane: Lane) -> str:
        track = self._snapshot.tracks[lane.track]
        more = f" ({lane.number + 1})" if lane.number else ""
        return clean(f"{self._snapshot.processes[track.process].name} {track.label}{more}")

    # --- how it looks

    def _x(self, time_ns: int) -> float:
        share = (min(max(time_ns, self._begin_ns), self._end_ns) - self._begin_ns) / (self._end_ns - self._begin_ns)
        return round(LABEL_PX + share * (self._width - LABEL_PX - MARGIN_PX), 2)

    def parts(self) -> Iterator[str]:
        tops: dict[tuple[int, int], int] = {}
        y = AXIS_PX
        for row in self._shown:
            tops[row.lane.track, row.lane.number] = y
            y += row.height_px
        height = y + ROW_PX
        title = "a snapshot" if self._operation is None else self._operation.name
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self._width} {height}" width="{self._width}" height="{height}" role="img">'
        yield f"<title>{escape(clean(title))}</title><style>{STYLE}</style>"
        yield f'<defs><pattern id="{self._pattern}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        yield '<line class="h" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>'
        yield f'<rect class="b" width="{self._width}" height="{height}"/>'
        yield from self._axis(y)
        for row in self._shown:
            yield from self._row(row, tops[row.lane.track, row.lane.number])
        for row in self._shown:
            yield from self._gaps(row, tops[row.lane.track, row.lane.number])
        yield from self._flows(tops)
        yield from self._marks(tops)
        yield f'<text class="a" x="{MARGIN_PX}" y="{height - 6}">{self._footer()}</text></svg>\n'

    def _axis(self, bottom: int) -> Iterator[str]:
        span_ns = self._end_ns - self._begin_ns
        step_ns = next(s * 10**e for e in range(19) for s in (1, 2, 5) if s * 10**e * 8 >= span_ns)
        for n in range(span_ns // step_ns + 1):
            x = self._x(self._begin_ns + n * step_ns)
            yield f'<line class="g" x1="{x}" x2="{x}" y1="{AXIS_PX - 8}" y2="{bottom}"/>'
            yield f'<text class="a" x="{x + 3}" y="{AXIS_PX - 12}">{format_duration(n * step_ns) if n else "0"}</text>'

    def _row(self, row: _Row, top: int) -> Iterator[str]:
        label = row.label if len(row.label) <= 32 else row.label[:31] + "…"
        yield f'<g class="{"d" if row.dimmed else "r"}"><text x="{MARGIN_PX}" y="{top + 14}">{escape(label)}</text>'
        for bar in row.bars:
            left, right = self._x(bar.begin_ns), self._x(bar.end_ns)
            if bar.depth - row.base_depth >= MAX_DEPTH:
                self._deep += 1
                continue
            if right - left < LEAST_PX:
                self._narrow += 1
                continue
            y = top + (bar.depth - row.base_depth) * ROW_PX
            kind = "e" if bar.item.error else bar.kind[0]
            took = "not ended" if bar.end_ns == OPEN_NS else format_duration(bar.end_ns - bar.begin_ns)
            name = clean(bar.item.name or "?")
            width = round(right - left, 2)
            yield f'<rect class="{kind}" x="{left}" y="{y}" width="{width}" height="{ROW_PX - 3}" rx="2">'
            yield f"<title>{escape(name)} {took}</title></rect>"
            room = int((width - 8) / CHAR_PX)
            text = f"{name} {took}"
            if room >= 4:
                text = text if len(text) <= room else name[: room - 1] + "…" if len(name) > room else name
                yield f'<text x="{left + 4}" y="{y + 13}">{escape(text)}</text>'
        yield "</g>"

    def _gaps(self, row: _Row, top: int) -> Iterator[str]:
        """What its thread lost, or all of its process."""
        track = self._snapshot.tracks[row.lane.track]
        writer = self._snapshot.threads[track.thread].writer
        for gap in self._snapshot.gaps:
            mine = gap.process == track.process and (gap.writer is None or gap.writer == writer)
            if not mine or gap.begin_ns > self._end_ns or gap.end_ns < self._begin_ns:
                continue
            self._hatched += 1
            if self._hatched > MAX_HATCHED:
                continue
            right = max(self._x(gap.end_ns), LABEL_PX + LEAST_HATCHED_PX)
            left = min(self._x(gap.begin_ns), right - LEAST_HATCHED_PX)
            yield f'<rect x="{left}" y="{top}" width="{round(right - left, 2)}" height="{row.height_px - MARGIN_PX}" fill="url(#{self._pattern})">'
            yield f"<title>{escape(clean(lost_text(gap)))}</title></rect>"

    def _flows(self, tops: dict[tuple[int, int], int]) -> Iterator[str]:
        for flow in self._snapshot.flows:
            source, target = tops.get((flow.from_track, 0)), tops.get((flow.to_track, 0))
            shown = self._operation is None or (flow.from_operation in self._mine and flow.to_operation in self._mine)
            inside = self._begin_ns <= flow.from_ns <= self._end_ns and self._begin_ns <= flow.to_ns <= self._end_ns
            if source is None or target is None or source == target or not shown or not inside:
                continue
            x1, x2, y1, y2 = self._x(flow.from_ns), self._x(flow.to_ns), source + ROW_PX, target
            yield f'<path class="f" d="M{x1} {y1}C{x1} {(y1 + y2) / 2} {x2} {(y1 + y2) / 2} {x2} {y2}"/>'

    def _marks(self, tops: dict[tuple[int, int], int]) -> Iterator[str]:
        marks = [
            (log.time_ns, log.track, log.operation, "w", log.message)
            for log in self._snapshot.logs
            if log.level >= WARNING
        ]
        marks += [(x.time_ns, x.track, x.operation, "x", f"{x.type}: {x.message}") for x in self._snapshot.exceptions]
        for time_ns, track, number, kind, message in marks:
            top = tops.get((track, 0))
            mine = self._operation is None or number in self._mine
            if top is None or not mine or not self._begin_ns <= time_ns <= self._end_ns:
                continue
            x = self._x(time_ns)
            yield f'<path class="{kind}" d="M{x} {top - 2}l4 -7h-8z"><title>{escape(clean(message))}</title></path>'

    def _footer(self) -> str:
        notes = [f"{format_duration(self._end_ns - self._begin_ns)}"]
        if any(row.dimmed for row in self._shown):
            notes.append("dimmed: what else ran meanwhile")
        if self._hatched:
            notes.append("hatched: records are lost")
        if self._hatched > MAX_HATCHED:
            notes.append(f"{self._hatched - MAX_HATCHED} more such stretches")
        if self._narrow:
            notes.append(f"{self._narrow} bars too narrow to be seen")
        if self._deep:
            notes.append(f"{self._deep} bars nested too deep")
        if self._left_out:
            notes.append(f"{self._left_out} more threads")
        quiet = len({(each.process, each.code) for each in self._snapshot.quiet_calls if self._in_time(each)})
        if quiet:
            notes.append(f"calls of {quiet} functions were too frequent to be recorded")
        return escape("; ".join(notes))
