"""What hostile input is given to, for hypothesis and for the coverage-guided fuzzer alike (`scripts/fuzz.py`).

The claim about each target: any bytes are a value or a WireError, of any whole input and of any part of one, in memory in proportion to them. A target
raises when that is not so; `PEAK` and `peak_bytes` are the memory.
"""

from __future__ import annotations

import io
import os
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from frzmq.config import RecorderConfig
from frzmq.errors import SnapshotError, WireError
from frzmq.export.perfetto import write_perfetto
from frzmq.export.report import write_report
from frzmq.export.svg import write_svg
from frzmq.export.text import write_text
from frzmq.reader.snapshot import open_snapshot
from frzmq.reader.validate import validate
from frzmq.recorder.events import FrameReceived, LinkReceived, SendLink, SendReply, Tick
from frzmq.recorder.inputs import control_input, link_input
from frzmq.recorder.machine import RecorderMachine
from frzmq.recorder.ranges import Ranges
from frzmq.recorder.stream import Stream as RecorderStream
from frzmq.recorder.tail import Tail, read_tail
from frzmq.snapfile.format import CRC, PROLOGUE, SECTION, SECTION_MAGIC
from frzmq.tracer._buffer_py import Buffer
from frzmq.wire.batch import (
    EndMark,
    Opening,
    OpenItem,
    WriterEnd,
    WriterInfo,
    decode_end_mark,
    decode_header,
    decode_opening,
    encode_end_mark,
    encode_opening,
    split_frame,
    split_headers,
)
from frzmq.wire.chunk import MIN_BUFFER_BYTES, FileHeader, decode_file_header, encode_file_header, layout_for
from frzmq.wire.codec import pack, unpack, unpack_values
from frzmq.wire.kinds import KINDS, Kind, kinds_from_wire, kinds_to_wire
from frzmq.wire.messages import Hello, StatusReply, decode_message, encode_message
from frzmq.wire.text import format_frame, format_message, parse_frame, parse_message
from support.golden import GOLDEN_DIR, parse_golden
from support.snapshots import (
    At,
    Stream,
    begin,
    context,
    end,
    event,
    open_span,
    operation_begin,
    operation_end,
    to_bytes,
)

PEAK_PER_BYTE = 128
"""Of a msgpack value: the worst is a map of one integer key, 232 bytes in memory for two on the wire."""
PEAK_BASE = 64 << 10
PACKER_BYTES = 256 << 10
"""What msgpack's packer begins with, in the text form."""

# --- what is well-formed, to begin from

STEPS = [step for path in sorted(GOLDEN_DIR.glob("*.txt")) for step in parse_golden(path.read_text("utf-8")).steps]
FRAMES = [step.data for step in STEPS if not step.is_message]
MESSAGES = [step.data for step in STEPS if step.is_message]
TEXTS = [step.text.encode() for step in STEPS]
OPENING = encode_opening(
    Opening(
        1,
        2,
        3,
        KINDS,
        (WriterInfo(1, "MainThread", 7),),
        (OpenItem(1, 1, 0, 5, "a", 0, 0, b""), OpenItem(3, 1, 4, 5, 9, 1, 0, bytes(16))),
        1,
    )
)
END_MARK = encode_end_mark(EndMark((WriterEnd(1, 0, 9, 1, ((1, 3), (4, 5))), WriterEnd(2, 0, 1 << 40))))
FILE_HEADER = encode_file_header(FileHeader(1, bytes(16), 2, layout_for(MIN_BUFFER_BYTES), 3, 4, 5))
RECORDS = b"".join(
    (pack(5), pack(250), pack(1), pack({"key": 1.5, 3: b"\0"}), pack(7), pack(1), pack(30), pack("x"), pack(None))
)


UUID = bytes(range(16))
SIZE = 256 << 10
EVENTS = 100


@cache
def file_bytes(directory: str) -> bytes:
    """Of a tracer that recorded ``EVENTS`` events over two generations."""
    buffer = Buffer(UUID, 1, directory, SIZE)
    writer = buffer.writer()
    for n in range(EVENTS):
        if n == EVENTS // 2:
            buffer.cut(2)
        writer.append(Kind.EVENT, buffer.intern(f"event {n % 5}") + b"\xc0")
    buffer.open(Kind.SPAN_BEGIN, writer.id, writer.last, "open", 0, 0, 0, b"")
    assert buffer.path is not None
    data = Path(buffer.path).read_bytes()
    buffer.close()
    return data


def _whole() -> bytes:
    asked = [
        begin(10, "a", x=1),
        context(20, 3, "Task", 7),
        end(30, "a"),
        operation_begin(40, "ask", 7),
        At(41, Kind.INJECT, (7, b"t" * 16, 77)),
        At(42, Kind.LOG, (30, "log", "slow", None)),
        At(43, Kind.EXCEPTION, ("KeyError", "x", "main", "a.py:1 f")),
        operation_end(60, 7, error="KeyError"),
    ]
    web = Stream("web", 1).generation(1, asked, at_ns=5)
    web.generation(3, [event(110, "b", writer=2)], at_ns=100, skip={1: 2}, open=(open_span(1, "hang"),))
    answered = [
        event(10, "c"),
        operation_begin(45, "answer", 8, remote=77),
        At(46, Kind.EXTRACT, (8, b"t" * 16, 77)),
        operation_end(50, 8),
    ]
    db = Stream("db", 2, machine="other", offset_ns=7, rtt_ns=3).generation(1, answered)
    return to_bytes(web, db)


WHOLE = _whole()


# --- decoders of the wire

Decoder = Callable[[bytes], object]
_DECODERS: dict[str, tuple[Decoder, list[bytes]]] = {
    "unpack": (unpack, MESSAGES),
    "unpack_values": (lambda data: list(unpack_values(data)), [RECORDS, OPENING]),
    "decode_header": (decode_header, FRAMES),
    "split_headers": (split_headers, FRAMES),
    "split_frame": (split_frame, FRAMES),
    "decode_opening": (decode_opening, [OPENING]),
    "decode_end_mark": (decode_end_mark, [END_MARK]),
    "decode_message": (decode_message, MESSAGES),
    "kinds_from_wire": (lambda data: kinds_from_wire(unpack(data)), [pack(kinds_to_wire(KINDS))]),  # type: ignore[arg-type]  # list is invariant
    "decode_file_header": (lambda data: decode_file_header(data, MIN_BUFFER_BYTES), [FILE_HEADER]),
    "parse_frame": (lambda data: parse_frame(data.decode("utf-8", "replace")), TEXTS),
    "parse_message": (lambda data: parse_message(data.decode("utf-8", "replace")), TEXTS),
    "format_frame": (format_frame, FRAMES),
    "format_message": (format_message, MESSAGES),
}


def decode(name: str, data: bytes) -> None:
    """The decoder gives a value or raises WireError; any other exception is a fault."""
    try:
        _DECODERS[name][0](data)
    except WireError as error:
        message = str(error)
    else:
        message = ""
    assert len(message) < 1000


DECODERS = tuple(_DECODERS)

# --- files


def read_to_the_end(data: bytes) -> None:
    """Raises SnapshotError at the most."""
    descriptor, name = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        try:
            opened = open_snapshot(name)
        except SnapshotError:
            return
        with opened:
            validate(opened)
            write_text(opened, io.StringIO())
            write_perfetto(opened, lambda _: None)
            write_svg(opened, lambda _: None)
            write_report(opened, lambda _: None)
            assert isinstance(opened.horizon_ns + opened.begin_ns + opened.end_ns, int)
    finally:
        Path(name).unlink()


def with_checksums(data: bytearray) -> bytes:
    """Made right again: what is wrong is behind them."""
    size = PROLOGUE.unpack_from(data)[2]
    header = bytes(data[PROLOGUE.size : PROLOGUE.size + size])
    CRC.pack_into(data, PROLOGUE.size - CRC.size, zlib.crc32(header))
    at = data.find(SECTION_MAGIC, PROLOGUE.size + size)
    while 0 <= at <= len(data) - SECTION.size - CRC.size:
        _, _, _, info_bytes, body_bytes = SECTION.unpack_from(data, at)
        info_at = at + SECTION.size + CRC.size
        body_at = info_at + info_bytes
        if body_at + body_bytes + CRC.size > len(data):
            break
        checksum = zlib.crc32(data[info_at:body_at], zlib.crc32(data[at : at + SECTION.size]))
        CRC.pack_into(data, at + SECTION.size, checksum)
        CRC.pack_into(data, body_at + body_bytes, zlib.crc32(data[body_at : body_at + body_bytes]))
        at = data.find(SECTION_MAGIC, body_at + body_bytes)
    return bytes(data)


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size] if offset >= 0 and size >= 0 else b""


def tail_of(data: bytes, stored: dict[int, Ranges] | None = None) -> Tail:
    return read_tail(reader(data), len(data), UUID, stored or {})


def take(data: bytes) -> None:
    """As the recorder does it: nothing but a WireError may come out."""
    try:
        tail = tail_of(data)
    except WireError:
        return
    stream = RecorderStream(asked=3, young=True, max_strings_bytes=1 << 20)
    stream.recover(tail, Hello(UUID, 1, 1, 1, 7, "svc", 2), 5)


def take_patched(data: bytes) -> None:
    """A whole buffer file with words of eight bytes put into it: each behind its place, in four bytes."""
    damaged = bytearray(_whole_buffer())
    for at in range(0, len(data) - 11, 12):
        place = int.from_bytes(data[at : at + 4], "little") % (len(damaged) // 8) * 8
        damaged[place : place + 8] = data[at + 4 : at + 12]
    take(bytes(damaged))


@cache
def _whole_buffer() -> bytes:
    with tempfile.TemporaryDirectory(prefix="fz") as directory:
        return file_bytes(directory)


def _patch(place: int, word: int) -> bytes:
    return (place // 8).to_bytes(4, "little") + word.to_bytes(8, "little")


def read_repaired(data: bytes) -> None:
    """The same snapshot, with checksums that hide the damage."""
    if len(data) > PROLOGUE.size:
        read_to_the_end(with_checksums(bytearray(data)))


# --- the recorder's door

TRACER = Hello(UUID, 0, 1, 1, 7, "svc", 0)
NONCE = 5


def _joined() -> RecorderMachine:
    machine = RecorderMachine(RecorderConfig(max_bytes=1 << 20), b"b" * 16, lambda: NONCE, 0)
    machine.handle(LinkReceived(b"tracer", TRACER), 0)
    return machine


def _finish(machine: RecorderMachine) -> None:
    """It goes on: time passes, it tells of itself, and each record is in one place."""
    for second in range(1, 4):
        machine.handle(Tick(), second * 10**9)
    encode_message(StatusReply(1, machine.status(4 * 10**9)))
    machine.telling.view(4 * 10**9, 0)
    for tracer in machine.status(4 * 10**9).tracers:
        places = tracer.open + tracer.held + tracer.evicted + tracer.late + tracer.overwritten + tracer.missing
        assert tracer.recorded == places, tracer


def take_frames(data: bytes) -> None:
    """Frames of a tracer that has joined, each behind its length in two bytes: whatever is in their headers, uuid and nonce are right."""
    machine = _joined()
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "little")
        frame = bytearray(data[at + 2 : at + 2 + size])
        at += 2 + size
        if len(frame) >= 40:
            frame[8:28], frame[32:40] = UUID + bytes(4), NONCE.to_bytes(8, "little")
        machine.handle(FrameReceived(bytes(frame)), at)
    _finish(machine)


def framed(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(2, "little") + frame for frame in frames)


def take_link(data: bytes) -> None:
    """A message on the link, of the tracer and of a stranger."""
    machine = _joined()
    for peer in (b"tracer", b"stranger"):
        for instruction in machine.handle(link_input([peer, data]), 1):
            if isinstance(instruction, SendLink):
                encode_message(instruction.message)
    _finish(machine)


def take_request(data: bytes) -> None:
    machine = _joined()
    for instruction in machine.handle(control_input([b"client", data]), 1):
        if isinstance(instruction, SendReply):
            encode_message(instruction.message)
    _finish(machine)


# --- all of them


@dataclass(frozen=True, slots=True)
class Target:
    run: Callable[[bytes], None]
    corpus: list[bytes]
    base_bytes: int
    per_byte: int = PEAK_PER_BYTE
    """The most memory that it takes at a time: for each byte, and beside them."""


MIB = 1 << 20
TARGETS: dict[str, Target] = {
    name: Target(
        partial(decode, name), corpus, PEAK_BASE + (PACKER_BYTES if name.startswith(("parse_", "format_")) else 0)
    )
    for name, (_, corpus) in _DECODERS.items()
} | {
    "snapshot_file": Target(read_to_the_end, [WHOLE], 8 * MIB, 1024),
    "snapshot_repaired": Target(read_repaired, [WHOLE], 8 * MIB, 1024),
    "buffer_file": Target(take, [], 8 * MIB, 40),
    "buffer_patched": Target(
        take_patched, [_patch(0, 1), _patch(520, (1 << 64) - 1), _patch(4096, 1 << 32) + _patch(8192, 7)], 20 * MIB
    ),
    "frames": Target(take_frames, [framed(*FRAMES), framed(*FRAMES[::-1])], 4 * MIB, 512),
    "link": Target(take_link, MESSAGES, 4 * MIB),
    "control": Target(take_request, MESSAGES, 4 * MIB),
}


def peak_bytes(run: Callable[[bytes], None], data: bytes) -> int:
    """The most memory in use while it is at work, beyond what there was before."""
    tracemalloc.start()
    try:
        run(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check_memory(name: str, data: bytes) -> None:
    target = TARGETS[name]
    most = target.base_bytes + target.per_byte * len(data)
    taken = peak_bytes(target.run, data)
    assert taken <= most, f"{name}: {taken} bytes of memory for {len(data)} of input, wanted at most {most}"
