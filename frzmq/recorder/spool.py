"""Snapshots on their way out: a thread writes each to an unlinked file, from which its clients get chunks by credit, the first while it still writes.

The view that is written is frozen, so recording goes on; once the file is written the recorder's machine is told, and
the next snapshot may begin while slow clients still read this one. A client that is gone, or makes no progress, costs an open
file until its deadline, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Final

from frzmq.errors import ControlCode, os_error_text
from frzmq.recorder.events import ShareSnapshot, SnapshotClient, SnapshotFinished, Store, WriteSnapshot
from frzmq.wire.messages import MAX_CHUNK_BYTES, MAX_MISSING, ErrorReply, Reply, SnapshotChunk, SnapshotEnd

MAX_SPOOLS: Final = 8
MAX_SERVED: Final = 64
"""Clients, of all snapshots: what each does not read waits in memory, up to its connection's high-water mark."""
MAX_EARLY: Final = 256
"""Clients whose credit, or cancel, came while the flush before their snapshot still ran."""
MAX_CREDIT: Final = 1 << 16
"""Chunks: more is not counted."""
READY_BYTES: Final = 1 << 20
"""Of a file that is being written: the loop is woken for so much more of it."""
CHUNKS_A_PUMP: Final = 32
CHUNKS_WHILE_BUSY: Final = 2
"""Of one client: recording goes first."""
RETRY_NS: Final = 10_000_000
"""A client that has credit but whose connection is full is tried again after so long."""
IDLE_NS: Final = 30 * 10**9
"""A client that gives no credit, or does not read, is dropped after so long."""
TOTAL_NS: Final = 600 * 10**9
"""No client takes longer than this."""

Keep = Callable[[IO[bytes], Store], str]
"""Leaves the finished file where it stays, and returns the path. Raises OSError."""
Write = Callable[[Callable[[bytes], object], WriteSnapshot], object]
"""Gives the view as a snapshot file to a function, piece by piece. Raises what it likes."""
Send = Callable[[bytes, Reply], "bool | None"]
"""True: taken; False: the client reads too slowly; None: it is gone."""


@dataclass(slots=True)
class _Client:
    peer: bytes
    id: int
    credit: int
    idle_ns: int
    """When it is dropped, unless something is sent before."""
    end_ns: int
    offset: int = 0
    full: bool = False
    """Its connection took no more."""


@dataclass(slots=True)
class _Spool:
    snapshot: int
    missing: tuple[str, ...]
    file: IO[bytes]
    clients: list[_Client] = field(default_factory=list)
    ready_bytes: int = 0
    """So much of it may be read; grows by the hand of its thread."""
    size_bytes: int | None = None
    """None until it is written, and the loop knows."""
    left: bool = False
    """By its thread."""

    def waits(self, client: _Client) -> bool:
        """Its next chunk is not written yet."""
        return self.size_bytes is None and client.offset + MAX_CHUNK_BYTES > self.ready_bytes


@dataclass(frozen=True, slots=True)
class SpoolStats:
    open: int
    clients: int
    sent_bytes: int
    dropped_clients: int
    """Gone, or too slow."""


class Spools:
    """All in the hands of the recorder's loop; only the writing is a thread's. ``wake`` is called by that thread when it is done."""

    def __init__(
        self, write: Write, send: Send, wake: Callable[[], None], keep: Keep | None = None, *, idle_ns: int = IDLE_NS
    ) -> None:
        self._write, self._send, self._wake, self._keep, self._idle_ns = write, send, wake, keep, idle_ns
        self._spools: list[_Spool] = []
        self._written: deque[tuple[_Spool, SnapshotFinished]] = deque()
        self._early: OrderedDict[tuple[bytes, int], int | None] = OrderedDict()
        """Chunks by peer and id; None: cancelled."""
        self._closed = False
        self._sent_bytes = 0
        self._dropped_clients = 0

    # --- what the machine asks for

    def begin(self, instruction: WriteSnapshot, now_ns: int) -> SnapshotFinished | None:
        """Starts to write; what went wrong at once is returned, and told to the clients."""
        if len(self._spools) >= MAX_SPOOLS:
            return self._refuse(
                instruction, f"wanted at most {MAX_SPOOLS} snapshots on their way, got one more", ControlCode.BUSY
            )
        try:
            file = tempfile.TemporaryFile(prefix="frzmq")  # noqa: SIM115  # outlives this call: `pump` closes it
        except OSError as error:
            return self._refuse(instruction, f"no temporary file{_place()}: {error.strerror}")
        # the spool does not keep the view: what the ring forgets is to be free while a slow client still reads
        spool = _Spool(instruction.snapshot, instruction.missing, file)
        try:
            threading.Thread(target=self._run, args=(spool, instruction), name="frzmq-spool", daemon=True).start()
        except RuntimeError as error:
            file.close()
            return self._refuse(instruction, f"no thread to write it: {error}")
        self._spools.append(spool)
        for client in instruction.clients:
            self._add(spool, client, now_ns)
        return None

    def share(self, instruction: ShareSnapshot, now_ns: int) -> None:
        for spool in self._spools:
            if spool.snapshot == instruction.snapshot:
                self._add(spool, instruction.client, now_ns)
                return
        self._tell([instruction.client], "the one to share is over")

    def _add(self, spool: _Spool, client: SnapshotClient, now_ns: int) -> None:
        early = self._early.pop((client.peer, client.id), 0)
        if early is None:
            return
        if sum(len(other.clients) for other in self._spools) >= MAX_SERVED:
            reason = f"wanted at most {MAX_SERVED} clients that are served, got one more"
            self._tell([client], reason, ControlCode.BUSY)
        else:
            credit = client.credit + early
            spool.clients.append(_Client(client.peer, client.id, credit, now_ns + self._idle_ns, now_ns + TOTAL_NS))

    def _keep_early(self, key: tuple[bytes, int], chunks: int | None) -> None:
        """Of a snapshot that is over it is kept in vain, for as long as there is room."""
        before = self._early.get(key, 0)
        self._early[key] = None if chunks is None or before is None else min(before + chunks, MAX_CREDIT)
        self._early.move_to_end(key)
        if len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)

    def _refuse(
        self, instruction: WriteSnapshot, reason: str, code: ControlCode = ControlCode.SNAPSHOT_FAILED
    ) -> SnapshotFinished:
        self._tell(instruction.clients, reason, code)
        return SnapshotFinished(instruction.snapshot, 0, reason)

    def _tell(
        self, clients: Iterable[SnapshotClient | _Client], reason: str, code: ControlCode = ControlCode.SNAPSHOT_FAILED
    ) -> None:
        for client in clients:
            self._send(client.peer, ErrorReply(client.id, code.value, f"snapshot: {reason}"[:1024]))

    # --- what the clients ask for

    def credit(self, peer: bytes, id_: int, chunks: int, now_ns: int) -> None:
        """More chunks for a client, which may ask before its snapshot is begun."""
        for _, client in self._of(peer, id_):
            client.credit = min(client.credit + chunks, MAX_CREDIT)
            client.idle_ns = now_ns + self._idle_ns
            return
        self._keep_early((peer, id_), chunks)

    def cancel(self, peer: bytes, id_: int) -> None:
        for spool, client in self._of(peer, id_):
            spool.clients.remove(client)
            return
        self._keep_early((peer, id_), None)

    def _of(self, peer: bytes, id_: int) -> list[tuple[_Spool, _Client]]:
        return [(s, c) for s in self._spools for c in s.clients if (c.peer, c.id) == (peer, id_)]

    # --- the thread

    def _run(self, spool: _Spool, instruction: WriteSnapshot) -> None:
        written = 0

        def put(data: bytes) -> None:
            nonlocal written
            spool.file.write(data)
            written += len(data)
            if written - spool.ready_bytes >= READY_BYTES:
                spool.file.flush()
                spool.ready_bytes = written
                self._wake()

        try:
            self._write(put, instruction)
            spool.file.flush()
            path, store_error = self._stored(spool, instruction.store)
            self._written.append((spool, SnapshotFinished(spool.snapshot, written, "", path, store_error)))
        except OSError as error:
            reason = f"its temporary file{_place()}: {error.strerror}"
            self._written.append((spool, SnapshotFinished(spool.snapshot, 0, reason)))
        except Exception as error:  # noqa: BLE001  # whatever it is, its clients are to hear of it
            self._written.append((spool, SnapshotFinished(spool.snapshot, 0, str(error) or type(error).__name__)))
        spool.left = True
        if self._closed:
            _close(spool.file)
        self._wake()

    def _stored(self, spool: _Spool, store: Store | None) -> tuple[str, str]:
        """The path, and what went wrong."""
        if store is None or self._keep is None:
            return "", "" if store is None else "this recorder keeps none"
        try:
            return self._keep(spool.file, store), ""
        except OSError as error:
            return "", os_error_text(error)

    # --- the loop

    def finished(self) -> list[SnapshotFinished]:
        """What the threads wrote, or failed to, since the last call."""
        events: list[SnapshotFinished] = []
        while self._written:
            spool, finished = self._written.popleft()
            if finished.error:
                self._tell(spool.clients, finished.error)
                spool.clients = []
            spool.size_bytes = finished.size_bytes
            events.append(finished)
        return events

    def pump(self, now_ns: int, *, busy: bool = False) -> None:
        """Sends what credit and connections allow, drops who is gone or late, closes what nobody waits for. ``busy``: more batches wait than one turn
        takes."""
        most = CHUNKS_WHILE_BUSY if busy else CHUNKS_A_PUMP
        for spool in list(self._spools):
            spool.clients = [client for client in spool.clients if self._serve(spool, client, most, now_ns)]
            if not spool.clients and spool.size_bytes is not None:
                self._spools.remove(spool)
                _close(spool.file)

    def deadline_ns(self, now_ns: int) -> int | None:
        """When `pump` is to be called, unless credit or a written file comes before."""
        deadlines = (self._client_deadline_ns(s, c, now_ns) for s in self._spools for c in s.clients)
        return min(deadlines, default=None)

    @staticmethod
    def _client_deadline_ns(spool: _Spool, client: _Client, now_ns: int) -> int:
        if spool.waits(client):
            # its thread wakes the loop
            return client.end_ns
        deadline_ns = min(client.idle_ns, client.end_ns)
        if client.full:
            return min(deadline_ns, now_ns + RETRY_NS)
        return now_ns if client.credit else deadline_ns

    def _serve(self, spool: _Spool, client: _Client, most: int, now_ns: int) -> bool:
        """False when the client is done with: served, gone, or too late."""
        client.full = False
        for _ in range(most):
            if spool.waits(client) or client.offset == spool.size_bytes or not client.credit:
                break
            try:
                data = os.pread(spool.file.fileno(), MAX_CHUNK_BYTES, client.offset)
            except OSError as error:
                return self._drop(client, f"the temporary file cannot be read: {error.strerror}")
            taken = self._send(client.peer, SnapshotChunk(client.id, client.offset, data))
            if taken is None:
                return self._drop(client, "")
            if not taken:
                client.full = True
                break
            client.offset += len(data)
            client.credit -= 1
            client.idle_ns = now_ns + self._idle_ns
            self._sent_bytes += len(data)
        if spool.waits(client):
            client.idle_ns = now_ns + self._idle_ns
        if client.offset == spool.size_bytes and not client.full:
            ended = self._send(client.peer, SnapshotEnd(client.id, spool.size_bytes, spool.missing[:MAX_MISSING]))
            client.full = ended is False
            if ended is None:
                self._dropped_clients += 1
            if not client.full:
                return False
        if now_ns >= min(client.idle_ns, client.end_ns):
            return self._drop(client, "the client took nothing for too long")
        return True

    def _drop(self, client: _Client, reason: str) -> bool:
        self._dropped_clients += 1
        if reason:
            self._tell([client], reason)
        return False

    def busy(self) -> bool:
        """True while something is written or sent."""
        return bool(self._spools)

    def stats(self) -> SpoolStats:
        return SpoolStats(
            len(self._spools), sum(len(s.clients) for s in self._spools), self._sent_bytes, self._dropped_clients
        )

    def close(self) -> None:
        """Gives up what is left; a thread that still writes closes its file when it is done."""
        self._closed = True
        for spool in self._spools:
            if spool.left:
                _close(spool.file)
        self._spools = []


def _place() -> str:
    """Where temporary files are, once that is found out."""
    return f" in {tempfile.tempdir}" if tempfile.tempdir else ""


def _close(file: IO[bytes]) -> None:
    """What it could not write goes with it."""
    with contextlib.suppress(OSError):
        file.close()
