"""Reads a snapshot file, whole, cut short or damaged: what is there is read, what is gone is said.

The sections are found by the index at the file's end; where there is none, by going from each to the next, and behind damage by looking for the next
one's head, whose checksum proves it. Bodies are read when they are asked for, so that a large file needs no memory of its size.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from zlib import crc32

from frzmq.errors import SnapshotError
from frzmq.snapfile.format import (
    CRC,
    END_MAGIC,
    FORMAT_VERSION,
    INDEX_ENTRY,
    MAGIC,
    MAX_HEADER_BYTES,
    MAX_INFO_BYTES,
    OLDEST_FORMAT_VERSION,
    PROLOGUE,
    SECTION,
    SECTION_MAGIC,
    TRAILER,
    GenerationInfo,
    SectionType,
    SnapshotHeader,
    decode_header,
    decode_info,
)

MAX_PROBLEMS: Final = 100
SEARCH_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = SECTION.size + CRC.size


@dataclass(frozen=True, slots=True)
class Section:
    """Where one is. Offsets and sizes in bytes."""

    offset: int
    type: SectionType
    stream: int
    info: GenerationInfo | None
    """Of a generation."""
    body_offset: int
    body_bytes: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.body_offset + self.body_bytes + CRC.size

    def __str__(self) -> str:
        what = "strings" if self.info is None else f"generation {self.info.generation}"
        return f"{what} of stream {self.stream} at byte {self.offset}"


@dataclass(frozen=True, slots=True)
class Body:
    data: bytes
    problem: str = ""
    """"": its checksum is right. Else what is wrong; ``data`` may then end in the middle of a batch, or be empty."""


class SnapshotFile:
    """An open file. Raises SnapshotError when not even its header can be read, OSError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        # people open a snapshot at a prompt and look: what they forget to close is closed without a warning
        self._close = weakref.finalize(self, os.close, self._fd)
        try:
            self.size_bytes = os.fstat(self._fd).st_size
            self.problems: list[str] = []
            """What of the file is gone or damaged, without its sections' bodies."""
            self.header, start = self._read_header()
            self.sections: tuple[Section, ...] = tuple(self._find_sections(start))
            # a snapshot of thousands of processes has hundreds of thousands
            self._of: dict[tuple[SectionType, int], list[Section]] = {}
            for section in self.sections:
                self._of.setdefault((section.type, section.stream), []).append(section)
        except BaseException:
            self._close()
            raise

    # --- what it holds

    def strings(self, stream: int) -> list[Section]:
        return [*self._of.get((SectionType.STRINGS, stream), ())]

    def generations(self, stream: int) -> list[Section]:
        """Oldest first."""
        found = self._of.get((SectionType.GENERATION, stream), ())
        return sorted(found, key=lambda s: s.info.generation if s.info is not None else 0)

    def body(self, section: Section) -> Body:
        """As much of it as can be trusted, or all of it that is there when the file ends in it."""
        data = self._read(section.body_offset, section.body_bytes + CRC.size)
        if len(data) < section.body_bytes + CRC.size:
            kept = data[: section.body_bytes]
            return Body(kept, f"{section}: the file ends after {len(kept)} of its {section.body_bytes} bytes")
        (wanted,) = CRC.unpack_from(data, section.body_bytes)
        body = data[: section.body_bytes]
        if crc32(body) != wanted:
            return Body(b"", f"{section}: its {section.body_bytes} bytes are damaged: the checksum is wrong")
        return Body(body)

    def close(self) -> None:
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- reading

    def _read(self, offset: int, size_bytes: int) -> bytes:
        size_bytes = max(0, min(size_bytes, self.size_bytes - offset))
        parts = []
        while size_bytes > 0 and (data := os.pread(self._fd, size_bytes, offset)):
            parts.append(data)
            offset += len(data)
            size_bytes -= len(data)
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _note(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def _read_header(self) -> tuple[SnapshotHeader, int]:
        """The header, and where the sections begin."""
        prologue = self._read(0, PROLOGUE.size)
        if prologue[: len(MAGIC)] != MAGIC[: len(prologue)] or not prologue:
            raise SnapshotError(f"{self.path}: wanted a snapshot file, got one that begins with {prologue[:8]!r}")
        if len(prologue) < PROLOGUE.size:
            raise SnapshotError(f"{self.path}: wanted a snapshot file, got the first {len(prologue)} bytes of one")
        _, version, size_bytes, checksum = PROLOGUE.unpack(prologue)
        if not OLDEST_FORMAT_VERSION <= version <= FORMAT_VERSION:
            raise SnapshotError(
                f"{self.path}: wanted format version {OLDEST_FORMAT_VERSION}..{FORMAT_VERSION}, got {version}"
            )
        data = self._read(PROLOGUE.size, min(size_bytes, MAX_HEADER_BYTES))
        if len(data) != size_bytes:
            raise SnapshotError(f"{self.path}: wanted a header of {size_bytes} bytes, got {len(data)}")
        if crc32(data) != checksum:
            raise SnapshotError(f"{self.path}: the header is damaged: its checksum is wrong")
        try:
            return decode_header(data), PROLOGUE.size + size_bytes
        except SnapshotError as error:
            raise SnapshotError(f"{self.path}: {error}") from None

    def _find_sections(self, start: int) -> Iterator[Section]:
        footer = self._footer(start)
        return self._scan(start) if footer is None else self._indexed(footer)

    def _footer(self, start: int) -> list[tuple[int, int, int, int]] | None:
        """The index, or None when there is none that can be trusted."""
        trailer = self._read(self.size_bytes - TRAILER.size, TRAILER.size) if self.size_bytes > TRAILER.size else b""
        if len(trailer) < TRAILER.size or trailer[-len(END_MAGIC) :] != END_MAGIC:
            self._note("the end of the file is missing: it was cut short")
            return None
        offset, _ = TRAILER.unpack(trailer)
        section = self._section(offset) if start <= offset < self.size_bytes else None
        if section is None or section.type is not SectionType.FOOTER:
            self._note("the index of the file is damaged")
            return None
        body = self.body(section)
        if body.problem or len(body.data) % INDEX_ENTRY.size:
            self._note("the index of the file is damaged")
            return None
        return list(INDEX_ENTRY.iter_unpack(body.data))

    def _indexed(self, index: list[tuple[int, int, int, int]]) -> Iterator[Section]:
        # one behind the other: an index that names one again and again would make a small file endless
        end = 0
        for offset, type_, stream, generation in index:
            section = self._section(offset) if offset >= end else None
            if section is None:
                what = "strings" if type_ == SectionType.STRINGS else f"generation {generation}"
                self._note(f"{what} of stream {stream} at byte {offset}: damaged")
            elif section.type is not SectionType.FOOTER:
                end = section.end
                yield section

    def _scan(self, offset: int) -> Iterator[Section]:
        while offset < self.size_bytes:
            section = self._section(offset)
            if section is None:
                found = self._next_head(offset + 1)
                lost = (self.size_bytes if found is None else found) - offset
                self._note(f"{lost} bytes at byte {offset} are no section")
                if found is None:
                    return
                offset = found
                continue
            if section.type is SectionType.FOOTER:
                return
            yield section
            offset = section.end

    def _section(self, offset: int) -> Section | None:
        """The one whose head is at ``offset``, proven by its checksum."""
        head = self._read(offset, _HEAD_BYTES)
        if len(head) < _HEAD_BYTES or head[:4] != SECTION_MAGIC:
            return None
        _, type_, stream, info_bytes, body_bytes = SECTION.unpack_from(head)
        (checksum,) = CRC.unpack_from(head, SECTION.size)
        if info_bytes > MAX_INFO_BYTES:
            return None
        packed = self._read(offset + _HEAD_BYTES, info_bytes)
        if crc32(packed, crc32(head[: SECTION.size])) != checksum:
            return None
        if type_ not in set(SectionType) or (type_ != SectionType.FOOTER and stream >= len(self.header.streams)):
            self._note(f"section at byte {offset}: wanted a known type and stream, got type {type_} of stream {stream}")
            return None
        try:
            info = decode_info(packed) if type_ == SectionType.GENERATION else None
        except SnapshotError as error:
            self._note(f"section at byte {offset}: {error}")
            return None
        return Section(offset, SectionType(type_), stream, info, offset + _HEAD_BYTES + info_bytes, body_bytes)

    def _next_head(self, offset: int) -> int | None:
        """The next place at which a section's head is proven."""
        while window := self._read(offset, SEARCH_BYTES):
            at = window.find(SECTION_MAGIC)
            while at >= 0:
                if self._section(offset + at) is not None:
                    return offset + at
                at = window.find(SECTION_MAGIC, at + 1)
            if len(window) < SEARCH_BYTES:
                break
            offset += len(window) - len(SECTION_MAGIC) + 1
        return None
