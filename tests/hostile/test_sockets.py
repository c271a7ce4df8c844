"""Raw peers against every socket of a recorder: each is turned away or bounded, and harms neither the recorder nor an honest tracer.

What strangers can do that reach the sockets: on tcp without keys everybody, on ipc whoever may enter the directory. `Attacked.check` ends each test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.attacked import Attacked, attacked
from support.places import started
from support.raw_tracer import RECORD, RawTracer
from support.until import until
from support.zmtp import COMMAND, GREETING, LONG, MORE, RawPeer, frame, lying_frame, ready

from frzmq.wire.batch import BatchType, Header, encode_batch
from frzmq.wire.messages import (
    ErrorReply,
    Hello,
    Ping,
    Pong,
    Reject,
    SnapshotRequest,
    StatusReply,
    StatusRequest,
    TracerHeartbeat,
    decode_message,
    encode_message,
)

SOCKETS = ("data", "link", "control")
KINDS = {"data": "PUSH", "link": "DEALER", "control": "DEALER"}
ZMTP_1_IDENTITY = b"\x01\x00"
"""An empty one, in the protocol of 2010, which has no greeting: libzmq still speaks it."""


@pytest.fixture(scope="module")
def ipc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("ipc"), "ipc") as under:
        yield under


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("tcp"), "tcp") as under:
        yield under


@pytest.fixture(params=["ipc", "tcp"])
def under(request: pytest.FixtureRequest) -> Attacked:
    found: Attacked = request.getfixturevalue(request.param)
    return found


@contextlib.contextmanager
def many(under: Attacked, count: int, make: Callable[[str, str], RawPeer]) -> Iterator[list[RawPeer]]:
    """So many peers over the three sockets; ``make(endpoint, kind)``."""
    with contextlib.ExitStack() as stack:
        peers = []
        for n in range(count):
            name = SOCKETS[n % 3]
            peers.append(stack.enter_context(make(under.endpoint(name), KINDS[name])))
        yield peers


def ask_status(peer: RawPeer, id_: int) -> None:
    peer.say(frame(encode_message(StatusRequest(id_))))


# --- before and in the handshake


def test_malicious_nine_bytes_without_handshake_are_rejected_and_counted(under: Attacked) -> None:
    nine = ZMTP_1_IDENTITY + b"\x06\x00forge"
    assert len(nine) == 9
    before = under.status().rejected_frames
    with many(under, 3, lambda endpoint, _: RawPeer(endpoint)) as peers:
        for peer in peers:
            peer.say(nine)
        # data and link count it; who asks for control is told
        until(lambda: under.status().rejected_frames >= before + 2, "two rejected frames")
        assert b"reject" in peers[1].hear(40)
    under.check()


@pytest.mark.parametrize(
    "said",
    [
        b"\x00" * 9,
        b"\xff" * 64,
        GREETING[:10],
        GREETING[:12] + b"PLAIN".ljust(20, b"\0") + bytes(32),
        GREETING + lying_frame((1 << 63) - 1, b"\x05READY", COMMAND),
        GREETING + lying_frame((1 << 64) - 1),
        GREETING + frame(b"\x05READY\x0bSocket-Type\xff\xff\xff\xffDEALER", COMMAND),
        GREETING + frame(b"\xffREADY", COMMAND),
        GREETING + ready("REP"),
        GREETING + ready("DEALER", bytes(5000)),
        GREETING + frame(b"data before ready"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_malicious_greeting_is_survived(under: Attacked, said: bytes) -> None:
    with many(under, 3, lambda endpoint, _: RawPeer(endpoint)) as peers:
        for peer in peers:
            peer.say(said)
        assert under.honest_status().state == "live"


def test_malicious_connections_that_never_greet_are_closed_in_time(ipc: Attacked, tcp: Attacked) -> None:
    both = (ipc, tcp)
    before = [under.descriptors() for under in both]
    with (
        many(ipc, 300, lambda endpoint, _: RawPeer(endpoint)) as some,
        many(tcp, 300, lambda e, _: RawPeer(e)) as others,
    ):
        for under, had in zip(both, before, strict=True):
            until(lambda under=under, had=had: under.descriptors() >= had + 290, "300 connections")  # type: ignore[misc]  # of this loop
            assert under.honest_status().state == "live"
        # some say part of a greeting, which buys no time
        for peer in some[::7]:
            peer.say(GREETING[:11])
        assert all(peer.closed_by_the_other() for peer in some + others)
    for under, had in zip(both, before, strict=True):
        until(lambda under=under, had=had: under.descriptors() <= had + 5, "the end of them all")  # type: ignore[misc]  # as above
        under.check()


def test_malicious_thousands_of_idle_connections_are_bounded_and_the_honest_served(ipc: Attacked) -> None:
    before = ipc.descriptors()
    taken = ipc.look()
    with many(ipc, 2000, RawPeer.joined):
        until(lambda: ipc.descriptors() >= before + 1900, "2000 connections")
        assert ipc.look() - taken < 2000 * (64 << 10)
        assert ipc.honest_status().state == "live"
    until(lambda: ipc.descriptors() <= before + 5, "the end of them all")
    ipc.check()


@pytest.mark.parametrize(("scheme", "at_once"), [("ipc", 20), ("tcp", 1000)])
def test_malicious_idle_connections_do_not_take_all_descriptors(tmp_path: Path, scheme: str, at_once: int) -> None:
    # on ipc, where zmq aborts without a descriptor, they must come more slowly than the guard looks: they are the user's own
    with attacked(tmp_path, scheme) as under, contextlib.ExitStack() as stack:
        limit = under.descriptors() + 200
        under.limit_descriptors(limit)
        for n in range(3 * limit):
            name = SOCKETS[n % 3]
            with contextlib.suppress(AssertionError, OSError):
                # it may be closed while it greets
                stack.enter_context(RawPeer.joined(under.endpoint(name), KINDS[name]))
            if n % at_once == at_once - 1:
                until(lambda: under.descriptors() < limit - 40, "descriptors for the next")
        until(lambda: under.descriptors() < limit - limit // 4, "descriptors that are free")
        assert any("file descriptors free" in error for error in under.status().errors)
        under.check()


# --- endless, and lying


@pytest.mark.parametrize(
    ("name", "size_bytes", "scheme"),
    [
        ("data", 1000, "ipc"),
        ("data", 100_000, "tcp"),
        ("link", 0, "tcp"),
        ("control", 1000, "ipc"),
        *(
            pytest.param(name, size, scheme, marks=pytest.mark.long)
            for name in SOCKETS
            for size in (0, 33, 1000, 100_000, 1 << 20)
            for scheme in ("ipc", "tcp")
        ),
    ],
)
def test_malicious_endless_more_frames_are_bounded(
    request: pytest.FixtureRequest, name: str, size_bytes: int, scheme: str
) -> None:
    under: Attacked = request.getfixturevalue(scheme)
    part = frame(bytes(size_bytes), MORE)
    ends = threading.Event()

    def flood() -> None:
        while not ends.is_set():
            # it is closed again and again, now and then while it greets
            with (
                contextlib.suppress(AssertionError, OSError),
                RawPeer.joined(under.endpoint(name), KINDS[name]) as peer,
            ):
                while not ends.is_set() and peer.say_for(part, 8 << 20) >= 8 << 20:
                    pass

    thread = threading.Thread(target=flood)
    falls = high = 0
    thread.start()
    try:

        def fell_twice() -> bool:
            nonlocal falls, high
            taken = under.look()
            high = max(high, taken)
            if taken < high - (100 << 20):
                falls, high = falls + 1, taken
            return falls >= 2

        until(fell_twice, "a message without end that is cut off twice")
    finally:
        ends.set()
        thread.join(20)
    assert not thread.is_alive()
    assert any("MiB of memory: all connections were closed" in error for error in under.status().errors)
    under.check()


def test_malicious_message_of_many_parts_is_dropped_and_holds_nobody_up(under: Attacked) -> None:
    parts = 20_000
    before = under.status().rejected_frames
    with many(under, 3, RawPeer.joined) as peers:
        for peer in peers:
            peer.say(frame(b"", MORE) * parts + frame(b""))
        # while the links still read it, records are taken and acknowledged
        tracer = RawTracer(under.endpoints.address, service="beside")
        tracer.record(3)
        tracer.flush_mark()
        tracer.goodbye()
        tracer.close()
        # each part is a frame on the data socket, and the whole one message on the others
        until(lambda: under.status().rejected_frames >= before + parts + 1, "all of them rejected")
    under.check()


@pytest.mark.parametrize(
    "claim_bytes", [1 << 20, (1 << 20) + 1, (2 << 20) - 1, (2 << 20) + 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]
)
def test_malicious_length_of_a_frame_takes_no_memory(under: Attacked, claim_bytes: int) -> None:
    taken = under.look()
    with many(under, 60, RawPeer.joined) as peers:
        for peer in peers:
            peer.say(lying_frame(claim_bytes, b"f" * 1000))
        assert under.honest_status().state == "live"
        assert under.look() - taken < 32 << 20


def test_malicious_batch_headers_that_lie_are_rejected(under: Attacked) -> None:
    before = under.status().rejected_frames
    header = encode_batch(Header(BatchType.RECORDS, under.honest_status().uuid, 1, 7, 1, 1, writer=1, count=1), RECORD)
    lies = [
        header[:4] + struct.pack("<I", size) + header[8:] for size in (0, 3, 5, 1 << 20, (1 << 20) + 1, (1 << 32) - 1)
    ]
    lies += [header[:88] + struct.pack("<I", count) + header[92:] for count in (0, 3, (1 << 32) - 1)]
    lies += [header[:95], header + b"f", b"", b"fz", header * 5000]
    with RawPeer.joined(under.endpoint("data"), "PUSH") as peer:
        for lie in lies:
            peer.say(frame(lie))
        until(lambda: under.status().rejected_frames >= before + len(lies), "all of them rejected")
    honest = under.honest_status()
    assert (honest.state, honest.rejected > 0) == ("live", True)
    under.check()


# --- in another's name


def test_malicious_batches_with_anothers_uuid_are_rejected_and_counted_by_it(under: Attacked) -> None:
    honest = under.honest_status()
    kinds = (BatchType.RECORDS, BatchType.OPEN, BatchType.END, BatchType.GOODBYE, BatchType.FLUSH)
    with RawPeer.joined(under.endpoint("data"), "PUSH") as peer:
        for kind in kinds:
            for nonce in (0, 1, (1 << 64) - 1):
                header = Header(
                    kind,
                    honest.uuid,
                    1,
                    nonce,
                    honest.generation + 1,
                    1 << 40,
                    writer=1,
                    count=kind == BatchType.RECORDS,
                )
                peer.say(frame(encode_batch(header, RECORD if kind == BatchType.RECORDS else b"")))
        until(lambda: under.honest_status().rejected >= honest.rejected + 3, "its counter")
    after = under.honest_status()
    assert (after.state, after.rejected) == ("live", honest.rejected + 3)
    under.check()


def test_malicious_hello_with_anothers_uuid_takes_nothing_over(under: Attacked) -> None:
    honest = under.honest_status()
    with RawPeer.joined(under.endpoint("link"), "DEALER") as peer:
        for incarnation, nonce in ((0, 0), (1, 0), (1, 5), (2, 0), ((1 << 32) - 1, 5)):
            hello = Hello(honest.uuid, incarnation, 1, 1, 7, "rogue", 1 << 40, lock=True, shared=True, nonce=nonce)
            peer.say(frame(encode_message(hello)))
            answer = decode_message(peer.message())
            assert isinstance(answer, Reject) and "wanted the nonce of tracer" in answer.reason
        # nothing that it says is taken for the tracer's
        peer.say(frame(encode_message(TracerHeartbeat(1, 1, dropped=1000))))
        peer.say(frame(encode_message(Ping(3))))
        until(lambda: isinstance(decode_message(peer.message()), Pong), "its pong")
    after = under.honest_status()
    assert (after.state, after.dropped, after.joined_ns) == ("live", honest.dropped, honest.joined_ns)
    under.check()


def test_malicious_identity_clash_neither_hijacks_nor_silences(under: Attacked) -> None:
    for name, identity in itertools.product(("link", "control"), (b"same", b"\0\0\0\0\1", b"x" * 255)):
        with RawPeer.joined(under.endpoint(name), "DEALER", identity) as first:

            def asks(peer: RawPeer, id_: int, name: str = name) -> None:
                peer.say(frame(encode_message(Ping(id_) if name == "link" else StatusRequest(id_))))

            def answered(peer: RawPeer, id_: int) -> None:
                answer = decode_message(peer.message())
                got = answer.sent_ns if isinstance(answer, Pong) else getattr(answer, "id", None)
                assert got == id_

            asks(first, 1)
            answered(first, 1)
            with RawPeer.joined(under.endpoint(name), "DEALER", identity) as second:
                asks(second, 2)
                # whatever became of the second: the first is answered, and hears nothing that was not for it
                asks(first, 3)
                answered(first, 3)
            asks(first, 4)
            answered(first, 4)
            assert first.hears_nothing()
    under.check()


LATE = """
import frzmq

for n in range(3):
    frzmq.event("late", n=n)
print(frzmq.flush(20), flush=True)
"""


def test_malicious_hellos_of_thousands_do_not_keep_an_honest_tracer_out(tmp_path: Path) -> None:
    # of its own: to tell of so many takes the recorder long, and they stay
    with attacked(tmp_path, "tcp") as tcp:
        with RawPeer.joined(tcp.endpoint("link"), "DEALER") as peer:
            for n in range(5000):
                hello = Hello(os.urandom(16), 1, 1, 1, n, "crowd", 0, lock=True)
                peer.say(frame(encode_message(hello)))
            until(lambda: sum(t.service == "crowd" for t in tcp.status().tracers) > 500, "a crowd")
            with started(tmp_path / "late.py", LATE, FRZMQ_RECORDER=tcp.recorder.address) as late:
                assert late.line() == "True"
                # it may have said that it was refused at first
                assert late.process.wait(30) == 0
        tcp.check()


def test_malicious_frames_of_a_tracer_that_are_replayed_are_duplicates(under: Attacked) -> None:
    tracer = RawTracer(under.endpoints.address, service="replayed")
    try:
        tracer.record(3)
        tracer.flush_mark()
        seen = tracer.header(BatchType.RECORDS, writer=1, first_index=0, count=3)
        tracer.tseq -= 1
        replayed = encode_batch(
            Header(BatchType.RECORDS, tracer.uuid, 0, tracer.nonce, seen.generation, 2, writer=1, count=3), RECORD * 3
        )
        with RawPeer.joined(under.endpoint("data"), "PUSH") as peer:
            peer.say(frame(replayed) * 100)

            def known() -> bool:
                tracer.pump()
                return any(t.uuid == tracer.uuid and t.duplicate == 300 for t in under.status().tracers)

            until(known, "300 duplicate records")
        tracer.record(2)
        tracer.flush_mark()
        (status,) = (t for t in under.status().tracers if t.uuid == tracer.uuid)
        assert (status.state, status.records, status.missing, status.error) == ("live", 5, 0, "")
        tracer.goodbye()
    finally:
        tracer.close()
    under.check()


def test_malicious_proven_tracer_stops_itself_alone(under: Attacked) -> None:
    tracer = RawTracer(under.endpoints.address, service="malformed")
    try:
        tracer.record(2)
        tracer.flush_mark()
        tracer.send(encode_batch(tracer.header(BatchType.RECORDS, writer=1, first_index=2, count=1), RECORD) + b"tail")
        tracer.until(lambda: tracer.stopped is not None)
    finally:
        tracer.close()
    assert under.honest_status().state == "live"
    under.check()


# --- floods of what is well-formed


def test_malicious_client_that_asks_and_never_reads_is_bounded(under: Attacked) -> None:
    taken = under.look()
    with RawPeer.joined(under.endpoint("control"), "DEALER") as peer:
        peer.say(frame(encode_message(SnapshotRequest(1, credit=65535))))
        request = frame(encode_message(StatusRequest(2)))
        for _ in range(20):
            if not peer.say(request * 500):
                break
            assert under.look() - taken < 64 << 20
        assert under.honest_status().state == "live"
    under.check()


def test_malicious_requests_are_answered_or_counted(under: Attacked) -> None:
    wrong = [
        b"",
        b"\xc1",
        b"\x80",
        b"\x91" * 1000,
        encode_message(Ping(1)),
        encode_message(StatusReply(1, dataclasses.replace(under.status(), tracers=()))),
    ]
    with RawPeer.joined(under.endpoint("control"), "DEALER") as peer:
        for data in wrong:
            peer.say(frame(data))
            answer = decode_message(peer.message())
            assert isinstance(answer, ErrorReply) and (answer.id, answer.code) == (0, "bad_request")
        ask_status(peer, 7)
        answer = decode_message(peer.message())
        assert isinstance(answer, StatusReply) and answer.id == 7
    with RawPeer.joined(under.endpoint("link"), "DEALER") as peer:
        for data in wrong[:4]:
            peer.say(frame(data, LONG))
            assert isinstance(decode_message(peer.message()), Reject)
    under.check()
