"""What a snapshot has of what there was: the certificate of completeness that its header is."""

from __future__ import annotations

from dataclasses import dataclass

from frzmq.snapfile.format import SnapshotHeader, StreamHeader

CAUSES = ("overwritten", "missing", "late", "dropped", "torn")
"""Of the ledger: what is lost, and why. `evicted` is let go on purpose, `duplicate` and `rejected` are nothing that anybody misses."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Tracers by name (``service[pid]``); times are the recorder's clock."""

    expected: tuple[str, ...]
    """They lived when it was asked for: the next three together."""
    answered: tuple[str, ...]
    read: tuple[str, ...]
    """Silent; their buffers told what they had recorded."""
    missing: tuple[str, ...]
    """Their last moments are not in it."""
    dead: tuple[str, ...]
    """They ended without a goodbye."""
    lost: dict[str, int]
    """Records by cause, those that are not 0."""
    unbalanced: tuple[str, ...]
    """Whose ledgers do not add up: a fault of the recorder."""
    horizon_ns: int
    """From when on every held stream is complete; 0: nothing is held."""

    @property
    def whole(self) -> bool:
        """Every process has its last moments in it, and nothing was ever lost."""
        return not (self.missing or self.lost or self.unbalanced)


def certificate(header: SnapshotHeader) -> Certificate:
    def names(*answers: str) -> tuple[str, ...]:
        return tuple(_name(stream) for stream in header.streams if stream.answer in answers)

    lost = {cause: sum(getattr(stream.ledger, cause) for stream in header.streams) for cause in CAUSES}
    return Certificate(
        expected=names("flushed", "read", "missing"),
        answered=names("flushed"),
        read=names("read"),
        missing=names("missing"),
        dead=tuple(_name(stream) for stream in header.streams if stream.state == "dead"),
        lost={cause: count for cause, count in lost.items() if count},
        unbalanced=tuple(_name(stream) for stream in header.streams if not stream.ledger.balanced),
        horizon_ns=header.horizon_ns,
    )


def _name(stream: StreamHeader) -> str:
    return f"{stream.service}[{stream.pid}]"
