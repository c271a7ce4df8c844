"""A buffer and sockets that a test fills by hand."""

from __future__ import annotations

import os
import select
import threading
from collections import deque

from frzmq.tracer.slices import Cut, Slice, Totals
from frzmq.wire.batch import OpenItem, WriterEnd, WriterInfo
from frzmq.wire.messages import Message, ToRecorder, decode_message, encode_message


class FakeBuffer:
    """The agent's side of a buffer with one writer, whose records are all in one chunk."""

    kind = "fake"
    size_bytes = 1 << 20
    path: str | None = None

    def __init__(self) -> None:
        self.published: list[Slice] = []
        self.released: list[tuple[int, int]] = []
        self.next_index = self.cut_index = 0
        self.fault: Exception | None = None
        self.moments: dict[int, int] = {}

    def record(self, count: int) -> None:
        body = b"\x05\x01\x01\xc0" * count
        first = self.next_index
        self.published.append(Slice(0, 1, 0, len(body), 1, first, count, 1, 2, body, False))
        self.next_index += count

    def cut(self, generation: int) -> Cut:
        assert generation > 0
        rows = (WriterEnd(1, self.cut_index, self.next_index),) if self.cut_index < self.next_index else ()
        self.cut_index = self.next_index
        return Cut(self.slices(1 << 62), rows)

    def slices(self, max_bytes: int) -> list[Slice]:
        assert max_bytes > 0
        if self.fault is not None:
            raise self.fault
        taken, self.published = self.published, []
        return taken

    def new_strings(self) -> tuple[int, int, bytes] | None:
        return None

    def strings_from_start(self) -> tuple[int, int, bytes] | None:
        return 1, 1, b"\xa1a"

    def open_items(self, at_ns: int, moments: dict[int, int], /) -> tuple[list[OpenItem], int]:
        assert at_ns > 0
        self.moments = moments
        return [], 0

    def writer_infos(self) -> list[WriterInfo]:
        return [WriterInfo(1, "main", 1)]

    def read(self, piece: Slice) -> bytes | None:
        return b"\x05\x01\x01\xc0" * piece.count

    def release(self, chunk: int, serial: int) -> None:
        self.released.append((chunk, serial))

    def totals(self) -> Totals:
        return Totals(self.next_index, 0, 0)


class FakeSockets:
    """What `TracerSockets` does, with the test in the recorder's place."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.messages: deque[ToRecorder] = deque()
        self.closed = threading.Event()
        self.changed = threading.Condition()
        self._incoming: deque[bytes] = deque()
        self._fd, self._end = os.pipe()
        self.problem = ""

    def send_batch(self, frame: bytes) -> bool:
        with self.changed:
            self.frames.append(frame)
            self.changed.notify_all()
        return True

    def send(self, message: bytes) -> bool:
        decoded = decode_message(message)
        with self.changed:
            self.messages.append(decoded)  # type: ignore[arg-type]  # a tracer sends no other
            self.changed.notify_all()
        return True

    def receive(self) -> list[bytes]:
        waiting = []
        while self._incoming:
            os.read(self._fd, 1)
            waiting.append(self._incoming.popleft())
        return waiting

    def poll(self, timeout_ms: int, wake_fd: int | None = None, *, room: bool = False) -> bool:
        assert not room
        fds = [self._fd] if wake_fd is None else [self._fd, wake_fd]
        return bool(select.select(fds, [], [], timeout_ms / 1000)[0])

    def close(self, linger_ms: int = 0) -> bool:
        assert linger_ms >= 0
        os.close(self._fd)
        os.close(self._end)
        self.closed.set()
        return True

    def tell(self, message: Message | bytes) -> None:
        """From the recorder."""
        self._incoming.append(message if isinstance(message, bytes) else encode_message(message))
        os.write(self._end, b"x")

    def wait_message(self, kind: type[ToRecorder]) -> ToRecorder:
        """The first of ``kind`` that was sent and not waited for."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(isinstance(m, kind) for m in self.messages), 20)
            found = next(m for m in self.messages if isinstance(m, kind))
            self.messages.remove(found)
            return found

    def wait_frame(self) -> bytes:
        with self.changed:
            assert self.changed.wait_for(lambda: self.frames, 20)
            return self.frames.popleft()
