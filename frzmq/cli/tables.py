"""Tables and trees for people, by rich: plain where they do not go to a terminal, cut to the width where they do."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from frzmq.analysis.meanwhile import meanwhile
from frzmq.analysis.trees import Forest, Item, Node, walk
from frzmq.config import format_duration
from frzmq.export.text import clean
from frzmq.reader.deaths import touched
from frzmq.reader.model import Operation
from frzmq.reader.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 400
"""Of what goes to no terminal: nothing is cut."""
PADDING = 2
MAX_LINES = 200
"""Of one tree."""


def console() -> Console:
    """On standard output; NO_COLOR, COLUMNS and what the terminal can are rich's to respect."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def show_table(out: Console, headings: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> None:
    """The first ``left`` columns are flush left, and are the ones that a narrow terminal cuts."""
    from rich.table import Table
    from rich.text import Text

    rows = [*rows]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, PADDING, 0, 0))
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    # a number that is cut is a wrong one: of the columns to the left the widest give way
    while sum(widths) + PADDING * (len(widths) - 1) > out.width and max(widths[:left]) > 1:
        widths[widths.index(max(widths[:left]))] -= 1
    for n, heading in enumerate(headings):
        justify: Literal["left", "right"] = "left" if n < left else "right"
        table.add_column(heading, no_wrap=True, overflow="ellipsis", justify=justify, width=widths[n])
    for row in rows:
        table.add_row(*row)
    out.print(table)


def show_tree(out: Console, snapshot: Snapshot, root: Node, *, critical: bool = False) -> None:
    """One line for each operation and span, those on the critical path marked if asked."""
    from rich.text import Text

    rows: list[tuple[Any, ...]] = []
    died = touched(snapshot)
    more = 0
    for depth, node in walk(root):
        more += node.left_out
        if len(rows) >= MAX_LINES:
            more += 1
            continue
        mark = ("* " if node.critical else "  ") if critical else ""
        style = "bold" if critical and node.critical else "red" if node.item.error else ""
        name = clean(_label(node.item))
        where = Text(f"{mark}{'  ' * depth}{name}", style)
        notes = [f"failed: {clean(node.item.error)}"] if node.item.error else []
        if not node.ended:
            notes.append("had not ended")
        if isinstance(node.item, Operation) and node.item.number in died:
            notes.append(f"of a trace that {clean(died[node.item.number])} died in")
        process = clean(snapshot.processes[node.process].name)
        rows.append((where, process, format_duration(node.took_ns), format_duration(node.self_ns), ", ".join(notes)))
    headings: tuple[str, ...] = ("* critical path" if critical else "", "process", "took", "self", "")
    if not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    show_table(out, headings, rows, left=2)
    if more:
        out.print(f"... and {more} more")


def _label(item: Item) -> str:
    """A request that has not ended is called by its method only: its path says more."""
    path = item.attributes.get("path")
    if isinstance(item, Operation) and isinstance(path, str) and item.name and " " not in item.name:
        return f"{item.name} {path}"
    return item.name or "?"


def show_meanwhile(out: Console, forest: Forest, root: Node) -> None:
    """What else went on, if anything did."""
    for found in meanwhile(forest, root):
        where = clean(forest.snapshot.processes[found.item.process].name)
        during = f"{format_duration(found.overlap_ns)} of {clean(found.waited.item.name)}"
        out.print(f"meanwhile, for {during}: {clean(found.name)} in {where}")


def node_facts(snapshot: Snapshot, root: Node) -> list[dict[str, Any]]:
    """As JSON has it: a parent before its children, each with its depth, for nested trees may be deeper than a JSON reader goes."""
    return [
        {
            "depth": depth,
            "kind": "operation" if isinstance(node.item, Operation) else "span",
            "name": node.item.name,
            "process": snapshot.processes[node.process].name,
            "begin_ns": snapshot.wall_ns(node.begin_ns),
            "took_ns": node.took_ns,
            "self_ns": node.self_ns,
            "ended": node.ended,
            "error": node.item.error,
            "critical": node.critical,
            "attributes": dict(node.item.attributes),
            "left_out": node.left_out,
        }
        for depth, node in walk(root)
    ]
