"""ZMTP 3.0 by hand over a plain socket: a peer that says what no library would. Every wait has a deadline."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from types import TracebackType
from typing import Self

DEADLINE_S = 10.0
SEND_S = 1.0
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MORE, LONG, COMMAND = 1, 2, 4
BLOCK_BYTES = 64 << 10


def frame(body: bytes, flags: int = 0) -> bytes:
    """``body`` as one frame; a length of eight bytes where it is needed, or LONG asks for it."""
    if flags & LONG or len(body) > 255:
        return struct.pack(">BQ", flags | LONG, len(body)) + body
    return struct.pack(">BB", flags, len(body)) + body


def lying_frame(claim_bytes: int, body: bytes = b"", flags: int = 0) -> bytes:
    """It says that ``claim_bytes`` come, and has ``body``."""
    return struct.pack(">BQ", flags | LONG, claim_bytes) + body


def ready(kind: str, identity: bytes = b"") -> bytes:
    """The command that ends a handshake."""
    body = b"\x05READY"
    for name, value in ((b"Socket-Type", kind.encode()), (b"Identity", identity)):
        body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return frame(body, COMMAND)


class RawPeer:
    """Connected to ``endpoint``, which is a zmq one; nothing said yet."""

    def __init__(self, endpoint: str) -> None:
        scheme, _, place = endpoint.partition("://")
        if scheme == "ipc":
            self._socket = socket.socket(socket.AF_UNIX)
            where: object = place
        else:
            self._socket = socket.socket()
            host, _, port = place.rpartition(":")
            where = (host, int(port))
        self._socket.settimeout(DEADLINE_S)
        try:
            self._connect(where)
        except BaseException:
            self._socket.close()
            raise

    def _connect(self, where: object) -> None:
        # a full backlog of a unix socket refuses instead of waiting
        deadline = time.monotonic() + DEADLINE_S
        while (code := self._socket.connect_ex(where)) == errno.EAGAIN:  # type: ignore[arg-type]  # of either family
            assert time.monotonic() < deadline, "nobody accepts"
            time.sleep(0.001)
        assert code == 0, errno.errorcode[code]

    @classmethod
    def joined(cls, endpoint: str, kind: str, identity: bytes = b"") -> Self:
        """With the handshake behind it, as a socket of this kind."""
        peer = cls(endpoint)
        try:
            peer.say(GREETING + ready(kind, identity))
            peer.hear(len(GREETING))
        except BaseException:
            peer.close()
            raise
        return peer

    def say(self, data: bytes) -> bool:
        """False when the other end has closed, or takes no more: tcp does not always say which."""
        self._socket.settimeout(SEND_S)
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return False
        return True

    def say_for(self, data: bytes, most_bytes: int) -> int:
        """``data`` again and again, in large blocks, up to ``most_bytes`` or until the other end closes. Returns the bytes that were taken."""
        block = data * max(1, BLOCK_BYTES // len(data))
        said = 0
        while said < most_bytes and self.say(block):
            said += len(block)
        return said

    def hear(self, size_bytes: int) -> bytes:
        """Exactly so many bytes."""
        self._socket.settimeout(DEADLINE_S)
        data = b""
        while len(data) < size_bytes:
            piece = self._socket.recv(size_bytes - len(data))
            assert piece, f"closed after {data!r}"
            data += piece
        return data

    def message(self) -> bytes:
        """The next frame that is no command."""
        while True:
            flags, size = self.hear(2)
            body = self.hear(int.from_bytes(bytes([size]) + self.hear(7), "big") if flags & LONG else size)
            if not flags & COMMAND:
                return body

    def hears_nothing(self) -> bool:
        """Whether nothing waits."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def closed_by_the_other(self, timeout_s: float = DEADLINE_S) -> bool:
        """Whether it closes in time; what it says until then is read."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                if not self._socket.recv(65536):
                    return True
            except ConnectionResetError:
                return True
            except TimeoutError:
                break
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
