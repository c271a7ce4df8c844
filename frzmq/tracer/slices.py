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

    def begin_ns(self, at_ns: int, *, carry: bool) -> int:
        """When the new generation begins: ``at_ns``, or before the first record that is carried into it."""
        return min([at_ns, *(piece.base_ns for piece in self.slices if piece.count)]) if carry else at_ns

    def moments(self, at_ns: int, *, carry: bool) -> dict[int, int]:
        """By writer: the moment whose open items the new generation has, where it is not ``at_ns``, which is just before the cut. A thread may record until
        the cut; with ``carry`` the slices are of the new generation themselves, and what they begin is not open yet."""
        moments: dict[int, int] = {}
        for piece in self.slices:
            if not piece.count:
                continue
            if carry:
                moments.setdefault(piece.writer, piece.base_ns + 1)
            else:
                moments[piece.writer] = max(at_ns, piece.last_ns + 1)
        return moments


@dataclass(frozen=True, slots=True)
class Totals:
    """Records since the buffer was made."""

    recorded: int
    dropped: int
    overwritten: int
