"""Where the records of one stream are, or went: of all its writers together, and of each. The one place that says what adds up to what.

Of those that were recorded while the recorder was on, as far as it knows of them, each is in one place::

    recorded == open + held + evicted + overwritten + missing + late

``recorded`` is counted by the writers' indices, the places by what came, so that the two can differ: then the recorder is wrong, and `Places.balanced` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from frzmq.wire.fields import unsigned

PLACES: Final = ("open", "held", "evicted", "overwritten", "missing", "late")
"""Each recorded record is in one of these."""
LOST: Final = ("overwritten", "missing", "late", "dropped", "torn")
"""Made, and not to be had; one that was dropped or torn never got an index, and is beside the identity. The evicted are none of these: they were let go on purpose."""


@dataclass(frozen=True, slots=True)
class Places:
    """Counts of records."""

    recorded: int = unsigned(64, 0)
    open: int = unsigned(64, 0)
    """In generations that are not sealed."""
    held: int = unsigned(64, 0)
    """In the ring."""
    evicted: int = unsigned(64, 0)
    """They were in the ring."""
    overwritten: int = unsigned(64, 0)
    """The tracer lost them before they had arrived, for want of memory or as it was stopped, and said so."""
    missing: int = unsigned(64, 0)
    """They did not arrive, and nobody says why."""
    late: int = unsigned(64, 0)
    """They arrived when their generation was sealed, and were not kept."""

    @property
    def placed(self) -> int:
        return sum(getattr(self, name) for name in PLACES)

    @property
    def balanced(self) -> bool:
        """Each record has one place."""
        return self.recorded == self.placed

    @property
    def equation(self) -> str:
        """For people: ``9 recorded = 4 held + 5 evicted``; ``!=`` where it is not so."""
        places = [f"{count} {name}" for name in _SHOWN if (count := getattr(self, name))]
        return f"{self.recorded} recorded {'=' if self.balanced else '!='} {' + '.join(places) or '0'}"


_SHOWN: Final = ("held", "evicted", "open", "overwritten", "missing", "late")


@dataclass(frozen=True, slots=True)
class Ledger(Places):
    """Of a stream."""

    dropped: int = unsigned(64, 0)
    """Never got an index: the buffer was full, or a record was made while another one was. By the tracer's own count, since it began."""
    duplicate: int = unsigned(64, 0)
    rejected: int = unsigned(64, 0)
    torn: int = unsigned(64, 0)
    """They were being written when their process died."""

    @property
    def lost(self) -> int:
        return sum(getattr(self, name) for name in LOST)


@dataclass(frozen=True, slots=True)
class WriterLedger(Places):
    """Of one writer of a stream."""

    writer: int = unsigned(64, 0)
    dropped: int = unsigned(64, 0)
    """As its last end mark counted them."""


def total(ledgers: list[Ledger]) -> Ledger:
    return Ledger(*(sum(getattr(ledger, field.name) for ledger in ledgers) for field in fields(Ledger)))


def writers_disagree(stream: Places, writers: tuple[WriterLedger, ...], others: int) -> str:
    """What is wrong with the rows of a stream's writers, of which ``others`` are not among them; "": nothing. Rows and no others add up to the stream;
    with others they are at the most that. No rows at all: an older file does not have them."""
    for row in writers:
        if not row.balanced:
            return f"writer {row.writer}: {row.equation}"
    for name in ("recorded", *PLACES) if writers else ():
        mine, of_all = sum(getattr(row, name) for row in writers), getattr(stream, name)
        if mine > of_all or (mine < of_all and not others):
            return f"{of_all} records {name}, those of its writers are {mine}"
    return ""
