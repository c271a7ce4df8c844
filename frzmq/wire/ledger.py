"""Where the records of one stream are, or went."""

from __future__ import annotations

from dataclasses import dataclass

from frzmq.wire.fields import unsigned


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counts of records: ``recorded == open + held + evicted + late + overwritten + missing``.

    Outside of it: ``dropped`` never got an index, ``duplicate`` and ``rejected`` arrived and were not taken, ``torn`` could not be recovered whole.
    """

    recorded: int = unsigned(64, 0)
    open: int = unsigned(64, 0)
    held: int = unsigned(64, 0)
    evicted: int = unsigned(64, 0)
    overwritten: int = unsigned(64, 0)
    missing: int = unsigned(64, 0)
    late: int = unsigned(64, 0)
    dropped: int = unsigned(64, 0)
    duplicate: int = unsigned(64, 0)
    rejected: int = unsigned(64, 0)
    torn: int = unsigned(64, 0)

    @property
    def balanced(self) -> bool:
        """Each record has one place."""
        return self.recorded == self.open + self.held + self.evicted + self.late + self.overwritten + self.missing

    @property
    def lost(self) -> int:
        """Records that were made and cannot be had; the evicted are not among them: those were let go on purpose."""
        return self.overwritten + self.missing + self.late + self.dropped + self.torn
