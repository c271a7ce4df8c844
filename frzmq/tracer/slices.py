"""What a buffer hands to the agent."""

from __future__ import annotations

from dataclasses import dataclass

from frzmq.wire.batch import WriterEnd


@dataclass(frozen=True, slots=True)
class Slice:
    """Published bytes of one chunk, all of one writer and one generation: the body of a RECORDS batch.

    Without records (``count`` 0, no body) it only says that the chunk ends where the slice before it ended.
    """

    chunk: int
    serial: int
    """The use of the chunk; another one is in there when it differs."""
    offset: int
    """In the chunk."""
    size: int
    writer: int
    first_index: int
    count: int
    base_ns: int
    """The time to which the first record's delta is added."""
    last_ns: int
    body: bytes
    final: bool
    """Ends a sealed chunk: acknowledged, the chunk may be released."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of a generation."""

    slices: list[Slice]
    """What was not yet taken of it."""
    writers: tuple[WriterEnd, ...]
    """Of the writers that have news: records, drops, or something overwritten."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Records since the buffer was made."""

    recorded: int
    dropped: int
    overwritten: int
