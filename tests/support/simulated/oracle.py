"""It knows everything that was recorded, sent and delivered, and compares what the recorder says with that, while it says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from frzmq.errors import WireError
from frzmq.recorder.events import (
    Input,
    Instruction,
    LinkReceived,
    RequestReceived,
    SendLink,
    SendReply,
    TailRead,
    WriteSnapshot,
)
from frzmq.recorder.tail import Tail
from frzmq.wire.batch import HEADER_SIZE, BatchType, Header, decode_end_mark, split_headers
from frzmq.wire.messages import (
    Ack,
    FlushReply,
    FlushRequest,
    Hello,
    Reject,
    SnapshotEnd,
    SnapshotRequest,
    StartRequest,
    Stop,
    StopRequest,
    Welcome,
)
from support.simulated.check import Capture, Indices, Seen, check_snapshot
from support.simulated.process import Process
from support.simulated.program import BUFFER_BYTES
from support.simulated.recorder import Recorder
from support.simulated.world import World

TRACER_BYTES = 4 * BUFFER_BYTES
"""Beyond its window: what one look at the whole buffer takes, and the openings of generations."""
ROOMY_BYTES = 1 << 20
Counts = dict[bytes, dict[int, int]]
"""By process and writer: records."""


@dataclass(slots=True)
class Flush:
    """What was there when it was asked for."""

    last_ns: int
    counts: Counts
    streams: dict[bytes, Seen]
    """Of the live tracers."""


class Oracle:
    def __init__(self, world: World, processes: Mapping[bytes, Process], directory: Path) -> None:
        self.world, self.processes = world, processes
        self.recorder: Recorder
        self.forged: set[bytes] = set()
        """Frames that no tracer sent."""
        self.hostile: list[bytes] = []
        """Processes in whose name they were sent: only these may be stopped."""
        self.at_rest = False
        """Nothing happens any more, and a flush has reached everybody."""
        self.snapshots = 0
        """That were looked at."""
        self._path = directory / f"{world.seed}.frz"
        self._current: dict[bytes, Seen] = {}
        """By uuid: the stream that the recorder knows."""
        self._streams: list[Seen] = []
        """Of this run of the recorder."""
        self._by_peer: dict[bytes, Seen] = {}
        self._hello: Hello | None = None
        self._asked: dict[tuple[bytes, int], Flush] = {}
        self._captures: dict[tuple[bytes, int], Capture] = {}
        self._written: dict[int, Capture] = {}
        self._last: Capture | None = None

    def forge(self, frame: bytes, uuid: bytes) -> None:
        self.forged.add(frame)
        self.hostile.append(uuid)

    def flushed_by_program(self, process: Process, counts: dict[int, int], at_ns: int, ok: bool) -> None:
        """The write guarantee: all that was recorded before has come, now or to an earlier run of the recorder."""
        if not ok:
            return
        overwritten = {writer: truth.overwritten for writer, truth in process.buffer.truth.items()}
        stored: Indices = {}
        for sent in process.sessions.values():
            for writer, records in sent.acknowledged.items():
                stored.setdefault(writer, set()).update(records)
        lost = [
            (writer, index)
            for writer, count in counts.items()
            for index in range(count)
            if index not in stored.get(writer, ()) and index not in overwritten[writer]
        ]
        self.world.check(not lost, f"{process.name}: its flush is done, and not stored are {lost[:8]}")

    def restarted(self) -> None:
        """The recorder's: it knows nothing."""
        self._current, self._by_peer, self._streams = {}, {}, []
        self._asked, self._captures, self._written = {}, {}, {}

    # --- what the recorder is given

    def frame(self, data: bytes) -> None:
        # while the recorder is off it takes whatever is well-formed, and keeps nothing
        if data in self.forged and (self.recorder.machine.on or not _well_formed(data)):
            return
        offset = 0
        for header in split_headers(data):
            seen = self._current.get(header.uuid)
            body = data[offset + HEADER_SIZE : offset + HEADER_SIZE + header.body_size]
            offset += HEADER_SIZE + header.body_size
            if seen is not None and (seen.incarnation, seen.nonce) == (header.incarnation, header.nonce):
                self._batch(seen, header, body)

    def _batch(self, seen: Seen, header: Header, body: bytes) -> None:
        seen.delivered.add(header.tseq)
        match header.type:
            case BatchType.RECORDS:
                records = range(header.first_index, header.first_index + header.count)
                seen.received.setdefault(header.writer, set()).update(records)
            case BatchType.END:
                for row in decode_end_mark(body).writers:
                    seen.first.setdefault(row.writer, row.first_index)
            case _:
                pass

    def input(self, event: Input) -> None:
        match event:
            case LinkReceived(_, Hello() as hello):
                self._hello = hello
            case RequestReceived(peer, FlushRequest() | SnapshotRequest() as request):
                self._asked.setdefault((peer, request.id), self._flush(request))
            case TailRead(uuid, Tail() as tail):
                read: Indices = {}
                self._current[uuid].read = read
                for run in tail.runs:
                    read.setdefault(run.writer, set()).update(range(run.first_index, run.end))
            case RequestReceived(_, StopRequest() | StartRequest()):
                for seen in self._streams:
                    seen.was_off = True
            case _:
                pass

    def _flush(self, request: FlushRequest | SnapshotRequest) -> Flush:
        last_ns = request.last_ns if isinstance(request, SnapshotRequest) else 0
        live = [tracer.hello.uuid for tracer in self.recorder.machine.live()]
        return Flush(last_ns, self._counts(), {uuid: self._current[uuid] for uuid in live})

    def _counts(self) -> Counts:
        return {process.uuid: process.program.counts() for process in self.processes.values()}

    def tail(self, process: Process) -> None:
        seen = self._current.get(process.uuid)
        if seen is not None:
            seen.tail = process.program.counts()

    # --- what it says

    def instruction(self, instruction: Instruction) -> None:
        match instruction:
            case SendLink(peer, Welcome() as welcome):
                self._welcome(peer, welcome)
            case SendLink(peer, Ack() as ack):
                self._ack(self._by_peer[peer], ack)
            case SendLink(peer, Stop(reason)):
                self._stopped(peer, reason)
            case SendLink(_, Reject(reason)):
                self.world.fail(f"a tracer that did nothing wrong is rejected: {reason}")
            case SendReply(peer, FlushReply() as reply):
                self._flushed(self._asked.pop((peer, reply.id)), reply)
            case WriteSnapshot():
                self._capture(instruction)
            case _:
                pass

    def _stopped(self, peer: bytes, reason: str) -> None:
        """Of an unknown peer: the one that just said hello, too early."""
        assert self._hello is not None
        known = self._by_peer.get(peer)
        uuid = known.process.uuid if known is not None else self._hello.uuid
        self.world.check(
            uuid in self.hostile, f"{self.processes[uuid].name} did nothing wrong, and is stopped: {reason}"
        )
        for seen in self._streams:
            seen.stopped = seen.stopped or seen.process.uuid == uuid

    def _welcome(self, peer: bytes, welcome: Welcome) -> None:
        assert self._hello is not None
        hello, boot_id = self._hello, self.recorder.boot_id
        seen = self._current.get(hello.uuid)
        if seen is None or seen.nonce != welcome.nonce:
            process = self.processes[hello.uuid]
            seen = Seen(process, boot_id, welcome.nonce, hello.incarnation)
            self._streams.append(seen)
        self._current[hello.uuid] = self._by_peer[peer] = seen

    def _ack(self, seen: Seen, ack: Ack) -> None:
        """Neither more nor less than what came."""
        gaps = sum(end - start for start, end in ack.gaps)
        through = max(seen.delivered, default=0)
        honest = (ack.stored_through, ack.stored_through - gaps) == (through, len(seen.delivered)) and not any(
            tseq in seen.delivered for start, end in ack.gaps for tseq in range(start, end)
        )
        self.world.check(
            honest, f"{seen.process.name}: {ack}, but what came is {len(seen.delivered)} batches up to {through}"
        )

    def _flushed(self, flush: Flush, reply: FlushReply) -> None:
        for uuid, seen in flush.streams.items():
            name = seen.process.name
            tracer = next((t for t in self.recorder.machine.live() if t.hello.uuid == uuid), None)
            if name in reply.missing or tracer is None or tracer.nonce != seen.nonce or seen.was_off or seen.stopped:
                continue
            if seen.went:
                continue
            lost = seen.unaccounted(flush.counts[uuid], seen.arrived(read=False))
            self.world.check(not lost, f"{name}: flushed, but its records {lost} (writer, index) never came")

    def _capture(self, written: WriteSnapshot) -> None:
        asked = self._asked.get((written.clients[0].peer, written.clients[0].id)) if written.clients else None
        seen = {(s.process.uuid, s.incarnation): s.frozen() for s in self._streams}
        everything = asked is None or not asked.last_ns
        roomy = self.recorder.config.max_bytes >= ROOMY_BYTES
        counts = asked.counts if asked is not None else {}
        capture = Capture(seen, counts, self._counts(), written, everything, self.at_rest, roomy)
        self._written[written.snapshot] = self._last = capture
        for client in written.clients:
            self._captures[client.peer, client.id] = capture

    # --- snapshots as they come

    def received(self, peer: bytes, id_: int, data: bytes, end: SnapshotEnd) -> None:
        capture = self._captures.get((peer, id_))
        if capture is not None:
            self.world.check(end.missing == capture.written.missing, f"{end} of {capture.written.missing}")
            self._check(data, capture)

    def stored(self, data: bytes) -> None:
        if self._last is not None:
            self._check(data, self._last)

    def _check(self, data: bytes, capture: Capture) -> None:
        if capture.data:
            self.world.check(capture.data == data, "two clients of one snapshot got different ones")
            return
        capture.data = data
        self.snapshots += 1
        self._path.write_bytes(data)
        try:
            check_snapshot(self.world, self._path, capture)
        finally:
            self._path.unlink()

    # --- at any time

    def handled(self) -> None:
        machine = self.recorder.machine
        live = {tracer.hello.uuid for tracer in machine.live()}
        for uuid, seen in self._current.items():
            seen.went = seen.went or uuid not in live
        config = self.recorder.config
        held_bytes = machine.ring.size_bytes
        cap_bytes = config.max_bytes + 2 * config.max_generation_bytes
        strings_bytes = sum(tracer.stream.strings_bytes for tracer in machine.known.by_number.values())
        self.world.check(
            held_bytes <= max(cap_bytes, strings_bytes), f"the ring has {held_bytes} bytes, and may have {cap_bytes}"
        )
        for process in self.processes.values():
            kept_bytes = process.machine.unacknowledged_bytes
            most_bytes = process.traits.window_bytes + TRACER_BYTES
            self.world.check(
                kept_bytes <= most_bytes, f"{process.name} keeps {kept_bytes} bytes, may have {most_bytes}"
            )


def _well_formed(data: bytes) -> bool:
    try:
        return bool(split_headers(data))
    except WireError:
        return False
