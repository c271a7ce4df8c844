"""`Spools` with a send of our own and a writer that waits for the test."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator

import pytest

from frzmq.recorder import spool as module
from frzmq.recorder.events import RingView, ShareSnapshot, SnapshotClient, SnapshotFinished, WriteSnapshot
from frzmq.recorder.spool import Spools, SpoolStats, Write
from frzmq.wire.messages import MAX_CHUNK_BYTES, ErrorReply, Reply, SnapshotChunk, SnapshotEnd

Put = Callable[[bytes], object]
VIEW = RingView((), 0, 0, 0)
IDLE_NS = 1000
DATA = bytes(range(256)) * 4096 + b"the end"
"""Five chunks."""
CHUNKS = [DATA[at : at + MAX_CHUNK_BYTES] for at in range(0, len(DATA), MAX_CHUNK_BYTES)]


class Bench:
    """Collects what is sent; ``taken`` is what each send returns."""

    def __init__(self, write: Write) -> None:
        self.sent: list[tuple[bytes, Reply]] = []
        self.taken: bool | None = True
        self.woken = threading.Event()
        self.spools = Spools(write, self._send, self.woken.set, idle_ns=IDLE_NS)

    def _send(self, peer: bytes, reply: Reply) -> bool | None:
        if self.taken:
            self.sent.append((peer, reply))
        return self.taken

    def begin(self, number: int, *clients: SnapshotClient) -> SnapshotFinished | None:
        return self.spools.begin(WriteSnapshot(number, clients, VIEW, "why", ("a[1]",)), 0)

    def written(self) -> list[SnapshotFinished]:
        while True:
            assert self.woken.wait(10)
            self.woken.clear()
            if finished := self.spools.finished():
                return finished

    def pump(self, now_ns: int = 0) -> list[tuple[bytes, Reply]]:
        self.spools.pump(now_ns)
        sent, self.sent = self.sent, []
        return sent


def write_data(put: Put, instruction: WriteSnapshot) -> None:
    put(DATA)


def chunks(peer: bytes, id_: int, first: int, end: int) -> list[tuple[bytes, Reply]]:
    return [(peer, SnapshotChunk(id_, at * MAX_CHUNK_BYTES, CHUNKS[at])) for at in range(first, end)]


END = SnapshotEnd(7, len(DATA), ("a[1]",))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(write_data)
    yield made
    made.spools.close()


def test_spool_goes_out_by_credit_and_ends(bench: Bench) -> None:
    assert bench.begin(1, SnapshotClient(b"p", 7, 2)) is None
    assert bench.written() == [SnapshotFinished(1, len(DATA))]
    assert bench.pump() == chunks(b"p", 7, 0, 2)
    assert bench.pump() == []
    bench.spools.credit(b"p", 7, 1, 0)
    assert bench.pump() == chunks(b"p", 7, 2, 3)
    bench.spools.credit(b"p", 7, 9, 0)
    assert bench.pump() == [*chunks(b"p", 7, 3, 5), (b"p", END)]
    assert not bench.spools.busy()
    assert bench.spools.stats() == SpoolStats(0, 0, len(DATA), 0)


def test_spool_that_is_shared_goes_whole_to_each(bench: Bench) -> None:
    bench.begin(1, SnapshotClient(b"p", 7, 9))
    bench.written()
    assert bench.pump() == [*chunks(b"p", 7, 0, 5), (b"p", END)]
    bench.begin(2, SnapshotClient(b"p", 7, 1))
    bench.spools.share(ShareSnapshot(2, SnapshotClient(b"q", 7, 9)), 0)
    bench.written()
    assert bench.pump() == [*chunks(b"p", 7, 0, 1), *chunks(b"q", 7, 0, 5), (b"q", END)]


def test_spool_that_is_over_is_not_shared(bench: Bench) -> None:
    bench.spools.share(ShareSnapshot(3, SnapshotClient(b"q", 7, 9)), 0)
    assert bench.sent == [(b"q", ErrorReply(7, "snapshot_failed", "snapshot: the one to share is over"))]


def test_spool_of_a_client_that_is_gone_is_closed(bench: Bench) -> None:
    bench.begin(1, SnapshotClient(b"p", 7, 2))
    bench.written()
    bench.taken = None
    assert bench.pump() == []
    assert bench.spools.stats() == SpoolStats(0, 0, 0, 1)


def test_spool_of_a_client_that_reads_slowly_is_tried_again(bench: Bench) -> None:
    bench.begin(1, SnapshotClient(b"p", 7, 9))
    bench.written()
    bench.taken = False
    assert bench.pump() == []
    assert bench.spools.deadline_ns(0) == IDLE_NS
    bench.taken = True
    assert bench.pump() == [*chunks(b"p", 7, 0, 5), (b"p", END)]


def test_spool_of_a_client_that_gives_no_credit_is_dropped_at_its_deadline(bench: Bench) -> None:
    bench.begin(1, SnapshotClient(b"p", 7, 0))
    bench.written()
    assert bench.pump(IDLE_NS - 1) == []
    assert bench.spools.deadline_ns(IDLE_NS - 1) == IDLE_NS
    too_slow = ErrorReply(7, "snapshot_failed", "snapshot: the client took nothing for too long")
    assert bench.pump(IDLE_NS) == [(b"p", too_slow)]
    assert bench.spools.stats() == SpoolStats(0, 0, 0, 1)


def test_spool_that_is_cancelled_is_closed(bench: Bench) -> None:
    bench.begin(1, SnapshotClient(b"p", 7, 1))
    bench.written()
    bench.spools.cancel(b"q", 7)
    bench.spools.cancel(b"p", 8)
    assert bench.pump() == chunks(b"p", 7, 0, 1)
    bench.spools.cancel(b"p", 7)
    assert bench.pump() == []
    assert not bench.spools.busy()


def test_spool_whose_writer_fails_tells_everyone_and_is_finished() -> None:
    go = threading.Event()

    def fail(put: Put, instruction: WriteSnapshot) -> None:
        assert go.wait(10)
        raise OSError(28, "No space left on device")

    bench = Bench(fail)
    bench.begin(1, SnapshotClient(b"p", 7, 9))
    bench.spools.share(ShareSnapshot(1, SnapshotClient(b"q", 8, 9)), 0)
    go.set()
    reason = f"its temporary file in {tempfile.gettempdir()}: No space left on device"
    assert bench.written() == [SnapshotFinished(1, 0, reason)]
    assert bench.pump() == [
        (b"p", ErrorReply(7, "snapshot_failed", f"snapshot: {reason}")),
        (b"q", ErrorReply(8, "snapshot_failed", f"snapshot: {reason}")),
    ]
    assert not bench.spools.busy()


def test_spool_beyond_the_limit_is_refused(bench: Bench) -> None:
    for number in range(module.MAX_SPOOLS):
        assert bench.begin(number, SnapshotClient(b"p", number, 0)) is None
        bench.written()
    reason = "wanted at most 8 snapshots on their way, got one more"
    assert bench.begin(9, SnapshotClient(b"p", 9, 0)) == SnapshotFinished(9, 0, reason)
    assert bench.sent == [(b"p", ErrorReply(9, "busy", f"snapshot: {reason}"))]


def test_spool_of_one_client_more_than_are_served_at_once_is_refused(bench: Bench) -> None:
    clients = [SnapshotClient(b"%d" % n, 7, 1) for n in range(module.MAX_SERVED + 1)]
    assert bench.begin(1, *clients[:40]) is None
    assert bench.begin(2, *clients[40:]) is None
    refused = ErrorReply(7, "busy", "snapshot: wanted at most 64 clients that are served, got one more")
    assert bench.sent == [(b"64", refused)]
    assert bench.spools.stats() == SpoolStats(2, module.MAX_SERVED, 0, 0)


def test_spool_closed_while_it_is_written_ends_in_silence() -> None:
    go = threading.Event()

    def wait(put: Put, instruction: WriteSnapshot) -> None:
        assert go.wait(10)

    bench = Bench(wait)
    bench.begin(1, SnapshotClient(b"p", 7, 9))
    assert bench.spools.deadline_ns(0) == module.TOTAL_NS
    bench.spools.close()
    go.set()
    assert bench.woken.wait(10)
    assert bench.sent == []


def test_spool_goes_out_while_it_is_written() -> None:
    go = threading.Event()

    def write(put: Put, instruction: WriteSnapshot) -> None:
        put(DATA[: module.READY_BYTES])
        assert go.wait(10)
        put(DATA[module.READY_BYTES :])

    bench = Bench(write)
    bench.begin(1, SnapshotClient(b"p", 7, 9))
    assert bench.woken.wait(10)
    bench.woken.clear()
    assert bench.pump() == chunks(b"p", 7, 0, 4)
    # nothing is there for it: it does not count as slow
    assert bench.pump(IDLE_NS + 1) == []
    go.set()
    assert bench.written() == [SnapshotFinished(1, len(DATA))]
    assert bench.pump() == [*chunks(b"p", 7, 4, 5), (b"p", END)]
    assert not bench.spools.busy()


def test_spool_takes_credit_that_came_before_it(bench: Bench) -> None:
    bench.spools.credit(b"p", 7, 1, 0)
    bench.spools.credit(b"p", 7, 1, 0)
    bench.begin(1, SnapshotClient(b"p", 7, 0))
    bench.written()
    assert bench.pump() == chunks(b"p", 7, 0, 2)


def test_spool_cancelled_before_it_began_is_closed(bench: Bench) -> None:
    bench.spools.cancel(b"p", 7)
    bench.spools.credit(b"p", 7, 1, 0)
    bench.begin(1, SnapshotClient(b"p", 7, 9))
    bench.written()
    assert bench.pump() == []
    assert not bench.spools.busy()


def test_spool_forgets_what_came_early_and_was_never_asked_for(bench: Bench) -> None:
    for id_ in range(module.MAX_EARLY + 1):
        bench.spools.credit(b"p", id_, 1, 0)
    for id_ in (0, 1):
        bench.begin(id_, SnapshotClient(b"p", id_, 0))
        bench.written()
    assert bench.pump() == [(b"p", SnapshotChunk(1, 0, CHUNKS[0]))]


def test_spool_without_room_is_closed_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: open("/dev/full", "wb"))  # noqa: SIM115  # the spool closes it
    bench = Bench(lambda put, instruction: put(b"x"))
    bench.begin(1, SnapshotClient(b"p", 7, 9))
    assert [finished.snapshot for finished in bench.written()] == [1]
    bench.spools.close()
