"""The control client: start, stop, flush, snapshot and status of a running recorder."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar

from frzmq.errors import ControlCode, ControlError, WireError, os_error_text
from frzmq.transport.addresses import parse_address
from frzmq.transport.keys import ClientKey, read_client_key
from frzmq.transport.outbound import ClientSocket
from frzmq.wire.messages import (
    Cancel,
    Credit,
    ErrorReply,
    FlushReply,
    FlushRequest,
    Message,
    OkReply,
    Reply,
    Request,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotRequest,
    StartRequest,
    Status,
    StatusReply,
    StatusRequest,
    StopRequest,
    decode_message,
    encode_message,
)

CONNECT_S: Final = 3.0
"""A recorder that runs takes a connection at once, however busy it is."""
FLUSH_S: Final = 5.0
SNAPSHOT_S: Final = 30.0
"""Between two chunks of a snapshot, and what a stop waits for a running one."""
CREDIT: Final = 8

_R = TypeVar("_R", bound=Reply)
Sink = Callable[[bytes], object] | BinaryIO
"""Where a snapshot goes: a file that is open for writing bytes, or a function that takes them."""


class ControlClient:
    """Talks to the recorder at ``address``; connects at the first request. One request at a time: threads wait for each other,
    as long as a request may wait for the recorder, and then raise ControlError TIMEOUT.

    ``timeout_s`` bounds the wait for a reply, beyond what the request itself allows. ``key``: the path of a key file, or what was read of it, for a recorder on tcp that has
    keys; it is not looked at for others. Raises ConfigError: no such kind of address, a key file that cannot be used; every request raises ControlError: its
    ``code`` is UNREACHABLE when there is no recorder, DENIED when it does not admit the key, TIMEOUT when it does not answer, else its own.
    """

    def __init__(self, address: str, timeout_s: float = 5.0, *, key: str | ClientKey | None = None) -> None:
        self._endpoints = parse_address(address)
        if self._endpoints.directory is not None:
            key = None
        self._key = read_client_key(key) if isinstance(key, str) else key
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: ClientSocket | None = None
        self._pid = 0
        self._next_id = 1

    def status(self, *, writers: bool = False) -> Status:
        """What the recorder and its tracers do, now; ``writers``: with the ledger of each writer."""
        with self._alone():
            return self._ask(StatusRequest(self._id(), writers), StatusReply).status

    def start(self) -> None:
        """Record again. ControlError STATE when it is on."""
        with self._alone():
            self._ask(StartRequest(self._id()), OkReply)

    def stop(self) -> None:
        """Stop recording, after a snapshot that is being made. ControlError STATE when it is off, RECORDING: the first error that
        stopped a tracer before."""
        with self._alone():
            self._ask(StopRequest(self._id()), OkReply, SNAPSHOT_S)

    def flush(self, timeout_s: float = FLUSH_S, *, double: bool = False) -> FlushReply:
        """Everything recorded so far is in the ring, but for the tracers that the reply names as missing."""
        with self._alone():
            return self._ask(FlushRequest(self._id(), _timeout_ns(timeout_s), double), FlushReply, timeout_s)

    def snapshot(
        self,
        write: Sink,
        *,
        reason: str = "",
        last_ns: int = 0,
        share: bool = False,
        flush_timeout_s: float = FLUSH_S,
        progress: Callable[[int], object] | None = None,
    ) -> SnapshotEnd:
        """Flush, and hand the snapshot to ``write`` as it comes.

        ``last_ns``: only generations that reach into the last so many ns; 0: all. ``share``: take part in a snapshot that is being
        made, instead of ControlError SNAPSHOT_ACTIVE. ``progress``: called with the bytes written so far. What ``write`` raises comes through.
        """
        with self._alone():
            put = _writer(write)
            request = SnapshotRequest(self._id(), reason, last_ns, share, CREDIT, _timeout_ns(flush_timeout_s))
            self._send(request)
            try:
                return self._receive_snapshot(request.id, put, progress, SNAPSHOT_S + flush_timeout_s)
            except ControlError:
                raise
            except BaseException:
                self._cancel(request.id)
                raise

    def close(self) -> None:
        with self._alone():
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        limit_s = self._timeout_s + SNAPSHOT_S
        if not self._lock.acquire(timeout=limit_s):
            raise ControlError(
                ControlCode.TIMEOUT,
                f"another request of this client to the recorder at {self._address} did not end within {limit_s:g} s",
            )
        try:
            yield
        finally:
            self._lock.release()

    # --- with the lock held

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _connected(self) -> ClientSocket:
        if self._pid != os.getpid():
            # a connection inherited over a fork swallows what is sent: it is the parent's
            self._socket, self._pid = None, os.getpid()
        if self._socket is None:
            try:
                self._socket = ClientSocket(self._endpoints.control, self._key)
            except OSError as error:
                what = f"cannot connect to {self._address}: {os_error_text(error)}"
                raise ControlError(ControlCode.UNREACHABLE, what) from None
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None and self._pid == os.getpid():
            self._socket.close()
        self._socket = None

    def _send(self, request: Request) -> None:
        socket = self._connected()
        if not socket.send(encode_message(request), _ms(min(self._timeout_s, CONNECT_S))):
            self._disconnect()
            raise self._denied(socket) or ControlError(ControlCode.UNREACHABLE, f"no recorder at {self._address}")

    def _denied(self, socket: ClientSocket) -> ControlError | None:
        return ControlError(ControlCode.DENIED, f"{self._address} {socket.problem}") if socket.problem else None

    def _receive(self, id_: int, timeout_s: float) -> Reply:
        """The next reply with this id; others are of requests that were given up. Raises what the recorder says."""
        deadline = time.monotonic() + timeout_s
        socket = self._connected()
        while (left_s := deadline - time.monotonic()) > 0:
            data = socket.receive(_ms(left_s))
            if data is None:
                break
            reply = self._decode(data)
            if reply.id == id_ or (isinstance(reply, ErrorReply) and reply.id == 0):
                if isinstance(reply, ErrorReply):
                    raise ControlError(_code(reply.code), reply.message)
                return reply
        self._disconnect()
        raise self._denied(socket) or ControlError(
            ControlCode.TIMEOUT, f"the recorder at {self._address} did not answer within {timeout_s:g} s"
        )

    def _decode(self, data: bytes) -> Reply:
        try:
            message: Message = decode_message(data)
        except WireError as error:
            raise self._nonsense(str(error)) from None
        match message:
            case OkReply() | StatusReply() | FlushReply() | SnapshotChunk() | SnapshotEnd() | ErrorReply():
                return message
            case _:
                raise self._nonsense(f"wanted a reply, got {type(message).__name__}")

    def _ask(self, request: Request, wanted: type[_R], more_s: float = 0.0) -> _R:
        self._send(request)
        reply = self._receive(request.id, self._timeout_s + more_s)
        if not isinstance(reply, wanted):
            raise self._nonsense(f"wanted {wanted.__name__}, got {type(reply).__name__}")
        return reply

    def _receive_snapshot(
        self, id_: int, put: Callable[[bytes], object], progress: Callable[[int], object] | None, idle_s: float
    ) -> SnapshotEnd:
        written = owed = 0
        while True:
            reply = self._receive(id_, idle_s)
            match reply:
                case SnapshotChunk(_, offset, data):
                    if offset != written:
                        raise self._nonsense(f"snapshot: wanted a chunk at {written}, got one at {offset}")
                    put(data)
                    written += len(data)
                    # a recorder that has sent all may be gone, with chunks still to be read here
                    owed = 0 if self._connected().send(encode_message(Credit(id_, owed + 1)), 0) else owed + 1
                    if progress is not None:
                        progress(written)
                case SnapshotEnd():
                    if reply.size_bytes != written:
                        raise self._nonsense(f"snapshot: wanted {reply.size_bytes} bytes, got {written}")
                    return reply
                case _:
                    raise self._nonsense(f"snapshot: wanted chunks, got {type(reply).__name__}")

    def _cancel(self, id_: int) -> None:
        socket = self._socket
        if socket is not None:
            socket.send(encode_message(Cancel(id_)), 0)

    def _nonsense(self, what: str) -> ControlError:
        self._disconnect()
        return ControlError(ControlCode.PROTOCOL, f"the recorder at {self._address}: {what}")


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _timeout_ns(seconds: float) -> int:
    # 0 would stand for the recorder's own
    return max(1, round(seconds * 1e9))


def _code(text: str) -> ControlCode:
    try:
        return ControlCode(text)
    except ValueError:
        return ControlCode.PROTOCOL


def _writer(sink: Sink) -> Callable[[bytes], object]:
    """``sink`` as a function that takes all of what it is given: a raw file may take less."""
    if callable(sink):
        return sink
    file = sink

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            taken = file.write(rest)
            rest = rest[len(rest) if taken is None else taken :]

    return write
