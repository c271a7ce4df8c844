"""A frozen view of the ring as a snapshot file."""

from __future__ import annotations

from typing import IO

from frzmq.recorder.events import WriteSnapshot


def write_view(file: IO[bytes], instruction: WriteSnapshot) -> None:
    for stream in instruction.view.streams:
        for batch in stream.strings:
            file.write(batch)
        for sealed in stream.sealed:
            for block in sealed.frames:
                file.write(block)
