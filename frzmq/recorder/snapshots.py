"""A frozen view of the ring as a snapshot file."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from frzmq.recorder.events import RingView, SealedGeneration, StreamView, WriteSnapshot
from frzmq.recorder.tracers import ROW_BYTES, bounded_rows
from frzmq.snapfile.format import MAX_HEADER_BYTES, Generation, GenerationInfo, SnapshotHeader, StreamBody, StreamHeader
from frzmq.snapfile.writer import write_snapshot
from frzmq.version import __version__

MAX_ROWS: Final = MAX_HEADER_BYTES // 4 // ROW_BYTES
"""Ledgers of writers in one header, of all streams."""


def write_view(write: Callable[[bytes], object], instruction: WriteSnapshot, machine: str) -> int:
    """Gives it to ``write`` and returns its size in bytes; ``machine``: the id of the recorder's."""
    return write_snapshot(write, _header(instruction, machine), (_body(stream) for stream in instruction.view.streams))


def _header(instruction: WriteSnapshot, machine: str) -> SnapshotHeader:
    view: RingView = instruction.view
    return SnapshotHeader(
        recorder_version=__version__,
        created_wall_ns=time.time_ns(),
        created_monotonic_ns=time.monotonic_ns(),
        reason=instruction.reason,
        min_age_ns=view.min_age_ns,
        max_bytes=view.max_bytes,
        host=socket.gethostname()[:256],
        machine=machine,
        horizon_ns=view.horizon_ns,
        missing=instruction.missing,
        streams=tuple(_stream(stream, MAX_ROWS // len(view.streams)) for stream in view.streams),
    )


def _stream(stream: StreamView, most_rows: int) -> StreamHeader:
    hello = stream.hello
    writers, other_writers = bounded_rows((stream.writers, stream.other_writers), most_rows)
    return StreamHeader(
        uuid=hello.uuid,
        incarnation=hello.incarnation,
        service=hello.service,
        pid=hello.pid,
        parent_pid=hello.parent_pid,
        host=hello.host,
        machine=hello.machine,
        program=hello.program,
        python=hello.python,
        buffer_kind=hello.buffer_kind,
        buffer_bytes=hello.buffer_bytes,
        state=stream.state.value,
        error=stream.error,
        ledger=stream.ledger,
        offset_ns=stream.offset_ns,
        rtt_ns=stream.rtt_ns,
        joined_ns=stream.joined_ns,
        horizon_ns=stream.horizon_ns,
        answer=stream.answer.value,
        stored_through=stream.stored_through,
        gaps=stream.gaps,
        writers=writers,
        other_writers=other_writers,
    )


def _body(stream: StreamView) -> StreamBody:
    return StreamBody(stream.strings, tuple(map(_generation, stream.sealed)))


def _generation(sealed: SealedGeneration) -> Generation:
    info = GenerationInfo(
        generation=sealed.generation,
        complete=sealed.complete,
        seal=sealed.seal.value,
        first_ns=sealed.first_ns,
        last_ns=sealed.last_ns,
        records=sealed.records,
        batches=sealed.batches,
        lost=sealed.lost,
        end_mark=sealed.end_mark,
    )
    return Generation(info, sealed.frames)
