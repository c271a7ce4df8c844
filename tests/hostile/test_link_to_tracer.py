"""Whatever the link brings to a tracer, by order, number and value: its agent lives on, within its window, and never shows in the program.

On tcp without keys anybody on the way can forge what a recorder says. It can stop a recording, or lose it; it must not break the program, or make it use
more memory than it was given.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fake_buffer import FakeSockets
from support.until import until

from frzmq.tracer.agent import Agent
from frzmq.tracer.answers import MAX_ASIDE
from frzmq.tracer.buffer import make_buffer
from frzmq.tracer.identity import new_identity
from frzmq.tracer.machine import WINDOW_BYTES
from frzmq.tracer.watch import Watch
from frzmq.transport.addresses import Endpoints
from frzmq.wire.batch import BatchType, split_frame
from frzmq.wire.kinds import Kind
from frzmq.wire.messages import (
    MAX_GENERATION,
    Ack,
    Advance,
    Hello,
    Lines,
    Message,
    Ping,
    Pong,
    RecorderHeartbeat,
    Reject,
    Reported,
    Stop,
    Welcome,
)

BOOT, OTHER = b"b" * 16, b"o" * 16
NONSENSE = b"\xc1"
NAME = b"\xa1n\xc0"


class Bench:
    """An agent on a real buffer; the test is its recorder, and no honest one."""

    def __init__(self) -> None:
        identity = new_identity("test")
        self.sockets = FakeSockets()
        self.buffer = make_buffer("auto", identity.uuid, identity.pid, None, 256 << 10)
        self.writer = self.buffer.writer()
        self.stops: list[str] = []
        self.agent = Agent(
            identity,
            self.buffer,
            Endpoints("tcp://x:1", "tcp://x:2", "tcp://x:3"),
            watch=Watch(),
            on_stop=self.stops.append,
            on_resume=lambda: None,
            make_sockets=lambda _endpoints: self.sockets,
        )
        self.agent.start()
        self.sockets.wait_message(Hello)

    def record(self) -> None:
        self.writer.append(Kind.EVENT, NAME)

    def tell(self, *messages: Message | bytes) -> None:
        """And waits until the agent has read it all: the nonsense behind it is counted."""
        errors = self.agent.stats().errors
        for message in messages:
            self.sockets.tell(message)
        self.sockets.tell(NONSENSE)
        wrong = sum(isinstance(message, bytes) for message in messages)
        until(lambda: self.agent.stats().errors > errors + wrong or self.agent.stats().state == "broken", "the agent")

    def sent(self, kind: BatchType) -> list[tuple[int, int]]:
        """``(tseq, nonce)`` of what was sent, the last time too."""
        batches = [batch for frame in list(self.sockets.frames) for batch in split_frame(frame)]
        return [(b.header.tseq, b.header.nonce) for b in batches if b.header.type is kind]

    def check(self) -> None:
        stats = self.agent.stats()
        assert stats.state != "broken", stats.error
        assert self.agent.running
        # beyond it by a step for each welcome that asks for a new one, and no jump
        assert stats.generation <= MAX_GENERATION + 100
        assert self.agent._machine.unacknowledged_bytes <= WINDOW_BYTES + (1 << 20)


@contextlib.contextmanager
def under_attack() -> Iterator[Bench]:
    bench = Bench()
    try:
        yield bench
        bench.check()
    finally:
        assert bench.agent.park(5)
        bench.agent.dispose()
        bench.buffer.close()


NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 7, (1 << 31) - 1, 1 << 32, 1 << 53, (1 << 62) - 1, 1 << 62, 1 << 63, (1 << 64) - 1]
)
BOOTS = st.sampled_from([BOOT, OTHER])
TEXTS = st.sampled_from(["", "x", "error", "slow 1ms", "x" * 256])
RANGES = st.tuples(NUMBERS, NUMBERS).map(lambda pair: (min(pair), max(pair)))
MESSAGES = st.one_of(
    st.builds(Welcome, BOOTS, NUMBERS, NUMBERS, st.sampled_from([0, 1, 1, 1, 2, 255]), NUMBERS, NUMBERS, TEXTS),
    st.builds(Reject, TEXTS),
    st.builds(Advance, NUMBERS),
    st.builds(RecorderHeartbeat, BOOTS, NUMBERS),
    st.builds(Ack, BOOTS, NUMBERS, st.lists(RANGES, max_size=5).map(tuple)),
    st.builds(Stop, TEXTS, NUMBERS),
    st.builds(Pong, NUMBERS, NUMBERS),
    st.builds(Ping, NUMBERS),
    st.binary(max_size=20),
)
WELCOME = Welcome(BOOT, 7, 1, 1, 10**12, 10**13)


@example([WELCOME, Advance((1 << 64) - 1), Advance((1 << 64) - 1)])
@example([Welcome(BOOT, 7, (1 << 64) - 1, 1, 10**9, 10**10), Stop("x", 1), WELCOME])
@example([Welcome(BOOT, 7, 1, 1, (1 << 64) - 1, (1 << 64) - 1), Stop("x", (1 << 64) - 1)])
@example([WELCOME, Pong(0, (1 << 64) - 1)])
@given(st.lists(MESSAGES, max_size=12))
def test_malicious_recorder_says_anything_and_the_agent_lives_on(messages: list[Message | bytes]) -> None:
    with under_attack() as bench:
        bench.record()
        bench.tell(WELCOME)
        bench.record()
        bench.tell(*messages)
        bench.record()
        bench.tell(*messages[::-1])


def joined(bench: Bench) -> int:
    """The last tseq that was sent."""
    bench.record()
    bench.tell(WELCOME)
    until(lambda: bench.sent(BatchType.RECORDS), "the first records")
    return bench.sent(BatchType.RECORDS)[-1][0]


def test_malicious_acks_of_what_was_never_sent_free_nothing_else_and_are_survived() -> None:
    with under_attack() as bench:
        last = joined(bench)
        bench.tell(Ack(BOOT, (1 << 64) - 1), Ack(BOOT, last + 1000, ((last + 1, last + 2),)))
        # what comes now was not acknowledged by that
        bench.record()
        until(lambda: bench.sent(BatchType.RECORDS)[-1][0] > last, "records after it")
        stats = bench.agent.stats()
        assert (stats.ignored, stats.unacknowledged > 2) == (2, True)


def test_malicious_acks_of_another_run_and_old_ones_free_nothing() -> None:
    with under_attack() as bench:
        last = joined(bench)
        held = bench.agent.stats().unacknowledged
        assert held >= 2
        bench.tell(Ack(OTHER, last), Ack(bytes(16), (1 << 64) - 1), Ack(BOOT, 0))
        assert bench.agent.stats().unacknowledged == held
        bench.tell(Ack(BOOT, last), Ack(BOOT, 1), Ack(BOOT, last), Ack(BOOT, 0, ((0, last),)))
        assert bench.agent.stats().unacknowledged == 0


def test_malicious_gaps_resend_within_the_window() -> None:
    with under_attack() as bench:
        last = joined(bench)
        bench.tell(*[Ack(BOOT, last, ((1, last + 1),))] * 100)
        bench.tell(*[Ack(BOOT, last + n, ((0, (1 << 64) - 1),)) for n in range(100)])
        stats = bench.agent.stats()
        # each is sent again once, as what came after it proves it lost: for those that were sent again there is no proof
        assert (stats.resent < last, stats.ignored) == (True, 99)


def test_malicious_advances_far_ahead_are_not_followed() -> None:
    with under_attack() as bench:
        joined(bench)
        bench.tell(Advance((1 << 64) - 1), RecorderHeartbeat(BOOT, (1 << 64) - 1), Advance(MAX_GENERATION + 1))
        assert bench.agent.stats().generation == 1
        assert bench.agent.stats().ignored == 3
        bench.tell(Advance(2))
        until(lambda: bench.agent.stats().generation == 2, "an honest one")


def test_malicious_stop_turns_recording_off_once_with_its_reason() -> None:
    with under_attack() as bench:
        joined(bench)
        bench.tell(Stop("forged", 0), Stop("again", 0), Advance(9), WELCOME)
        assert (bench.stops, bench.agent.stats().state) == (["forged"], "stopped")
        assert not bench.agent.flush(0.1)


def test_malicious_second_welcome_changes_nothing_and_others_only_send_again() -> None:
    with under_attack() as bench:
        joined(bench)
        before = bench.agent.stats()
        bench.tell(WELCOME, WELCOME)
        assert (bench.agent.stats().resent, bench.agent.stats().frames) == (before.resent, before.frames)
        for nonce in range(100, 200):
            bench.tell(Welcome(BOOT, nonce, 2, 1, 10**12, 10**13))
        assert {nonce for _, nonce in bench.sent(BatchType.OPEN)[-1:]} == {199}
        assert bench.agent.stats().unacknowledged < 500


@pytest.mark.parametrize("message", [Lines(1, "t" * 32, (), 5, "forged"), Reported(1, "/p", "forged", "")])
def test_malicious_flood_of_answers_that_nobody_asked_for_is_dropped(
    message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    with under_attack() as bench, caplog.at_level(logging.WARNING):
        joined(bench)
        threads = threading.active_count()
        for _ in range(20):
            bench.tell(*[message] * 50)
            assert threading.active_count() <= threads + MAX_ASIDE
            assert bench.agent.stats().ignored > 0
    assert [record for record in caplog.records if "forged" in record.getMessage()] == []
