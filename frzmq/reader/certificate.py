"""What a snapshot has of what there was: the certificate of completeness that its header is."""

from __future__ import annotations

from dataclasses import dataclass

from frzmq.snapfile.format import SnapshotHeader, StreamHeader
from frzmq.wire.ledger import LOST, writers_disagree


@dataclass(frozen=True, slots=True)
class StreamCertificate:
    """Of one tracer."""

    name: str
    state: str
    answer: str
    """flushed, read, missing, or "": it was not asked."""
    horizon_ns: int
    """From when on it is complete, recorder's clock; 0: nothing of it is held."""
    tseqs: tuple[tuple[int, int], ...]
    """Of the batches that came, as ranges [from, to)."""
    lost: dict[str, int]
    """Records by cause, those that are not 0."""


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
    """Whose ledgers do not add up, as a whole or by writer: a fault of the recorder."""
    horizon_ns: int
    """From when on every held stream is complete; 0: nothing is held."""
    streams: tuple[StreamCertificate, ...] = ()

    @property
    def whole(self) -> bool:
        """Every process has its last moments in it, and nothing was ever lost."""
        return not (self.missing or self.lost or self.unbalanced)


def certificate(header: SnapshotHeader) -> Certificate:
    streams = tuple(map(_of_stream, header.streams))

    def names(*answers: str) -> tuple[str, ...]:
        return tuple(stream.name for stream in streams if stream.answer in answers)

    lost = {cause: sum(stream.lost.get(cause, 0) for stream in streams) for cause in LOST}
    return Certificate(
        expected=names("flushed", "read", "missing"),
        answered=names("flushed"),
        read=names("read"),
        missing=names("missing"),
        dead=tuple(stream.name for stream in streams if stream.state == "dead"),
        lost={cause: count for cause, count in lost.items() if count},
        unbalanced=tuple(_name(stream) for stream in header.streams if not _adds_up(stream)),
        horizon_ns=header.horizon_ns,
        streams=streams,
    )


def _of_stream(stream: StreamHeader) -> StreamCertificate:
    return StreamCertificate(
        name=_name(stream),
        state=stream.state,
        answer=stream.answer,
        horizon_ns=stream.horizon_ns,
        tseqs=tuple(_between(stream.gaps, 1, stream.stored_through + 1)),
        lost={cause: count for cause in LOST if (count := getattr(stream.ledger, cause))},
    )


def _between(gaps: tuple[tuple[int, int], ...], start: int, end: int) -> list[tuple[int, int]]:
    """What of ``[start, end)`` is in no gap."""
    found = []
    for gap_start, gap_end in (*gaps, (end, end)):
        if start < gap_start:
            found.append((start, gap_start))
        start = max(start, gap_end)
    return found


def _adds_up(stream: StreamHeader) -> bool:
    return stream.ledger.balanced and not writers_disagree(stream.ledger, stream.writers, stream.other_writers)


def _name(stream: StreamHeader) -> str:
    return f"{stream.service}[{stream.pid}]"
