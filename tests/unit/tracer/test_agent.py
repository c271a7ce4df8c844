"""The agent's thread, between a buffer and sockets that the test fills."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from queue import Queue

import pytest
from support.fake_buffer import FakeBuffer, FakeSockets
from support.until import until

from frzmq.tracer.agent import Agent
from frzmq.tracer.identity import new_identity
from frzmq.tracer.watch import Watch
from frzmq.transport.addresses import Endpoints
from frzmq.wire.batch import Batch, BatchType, decode_opening, split_frame
from frzmq.wire.messages import Ack, Hello, Reject, Stop, Welcome

BOOT = b"b" * 16


class Bench:
    def __init__(self) -> None:
        self.buffer = FakeBuffer()
        self.sockets = FakeSockets()
        self.made = [self.sockets]
        self.failing = False
        """For want of file descriptors."""
        self.tried = threading.Event()
        self.stopped: list[str] = []
        self.off = threading.Event()
        self.agent = Agent(
            new_identity("test"),
            self.buffer,
            Endpoints("tcp://x:1", "tcp://x:2", "tcp://x:3"),
            watch=Watch(),
            on_stop=self.on_stop,
            on_resume=lambda: None,
            make_sockets=self.make_sockets,
        )
        self.users: list[int] = []

    def make_sockets(self, endpoints: Endpoints) -> FakeSockets:
        self.tried.set()
        self.users.append(threading.get_ident())
        if self.failing:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self.sockets

    def on_stop(self, reason: str) -> None:
        self.stopped.append(reason)
        self.off.set()

    def join(self) -> Hello:
        self.agent.start()
        hello = self.sockets.wait_message(Hello)
        assert isinstance(hello, Hello)
        self.sockets.tell(Welcome(BOOT, 7, 1, 1, 10**9, 10**10))
        return hello

    def wait_batch(self, kind: BatchType) -> int:
        """Its tseq."""
        return self.wait_whole_batch(kind).header.tseq

    def wait_whole_batch(self, kind: BatchType) -> Batch:
        while True:
            for batch in split_frame(self.sockets.wait_frame()):
                if batch.header.type is kind:
                    return batch


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.agent.park(5)
    bench.agent.dispose()
    assert bench.sockets.closed.wait(5)
    assert not bench.agent.running


def test_agent_hello_says_who_it_is(bench: Bench) -> None:
    hello = bench.join()
    assert (hello.service, hello.buffer_kind, hello.shared, hello.lock) == ("test", "fake private", False, False)
    assert hello.monotonic_ns > 0


def test_agent_that_several_threads_start_at_once_is_one_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[threading.Thread] = []

    class Slow(threading.Thread):
        """Another thread starts the agent too, while this one does."""

        def start(self) -> None:
            super().start()
            if self.name == "frzmq-agent" and not others:
                others.append(threading.Thread(target=bench.agent.start))
                others[0].start()
                others[0].join(0.2)
                # as a signal handler would, in this thread
                assert bench.agent.start()

    monkeypatch.setattr("frzmq.tracer.agent.threading.Thread", Slow)
    bench.join()
    others[0].join(5)
    assert len(bench.users) == 1


def test_agent_that_is_parked_for_a_fork_is_started_by_nobody_else(bench: Bench) -> None:
    bench.join()
    bench.sockets.closed.clear()
    bench.agent.park_for_fork(5)
    other = threading.Thread(target=bench.agent.start)
    other.start()
    other.join(0.2)
    assert not bench.agent.running
    assert bench.users and len(bench.users) == 1
    bench.sockets = FakeSockets()
    assert bench.agent.start_after_fork()
    other.join(5)
    bench.sockets.wait_message(Hello)
    assert len(bench.users) == 2


def test_agent_generation_begins_before_what_was_recorded_first(bench: Bench) -> None:
    bench.buffer.record(3)
    bench.join()
    opening = decode_opening(bench.wait_whole_batch(BatchType.OPEN).body)
    assert opening.monotonic_ns == 1
    assert bench.buffer.moments == {1: 2}


def test_agent_flush_waits_for_the_acknowledgement(bench: Bench) -> None:
    bench.join()
    bench.buffer.record(3)
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(bench.agent.flush(20)))
    thread.start()
    tseq = bench.wait_batch(BatchType.FLUSH)
    assert done == []
    bench.sockets.tell(Ack(BOOT, tseq))
    thread.join(20)
    assert done == [True]
    assert bench.agent.stats().unacknowledged == 0


def test_agent_flush_without_an_answer_is_false(bench: Bench) -> None:
    bench.join()
    assert not bench.agent.flush(0.01)


def test_agent_stop_ends_the_thread_once_all_is_acknowledged(bench: Bench) -> None:
    bench.join()
    bench.buffer.record(3)
    whole: list[bool] = []
    thread = threading.Thread(target=lambda: whole.append(bench.agent.stop(20)))
    thread.start()
    bench.sockets.tell(Ack(BOOT, bench.wait_batch(BatchType.GOODBYE)))
    thread.join(20)
    assert whole == [True]
    assert bench.agent.stats().state == "closed"
    assert not bench.agent.start()


def test_agent_stop_without_an_answer_is_bounded(bench: Bench) -> None:
    bench.join()
    bench.buffer.record(3)
    assert not bench.agent.stop(0.01)
    until(lambda: not bench.agent.running, "it runs on")


def test_agent_stopped_by_the_recorder_says_why(bench: Bench) -> None:
    bench.join()
    bench.wait_batch(BatchType.OPEN)
    bench.sockets.tell(Stop("malformed"))
    assert bench.off.wait(20)
    assert bench.stopped == ["malformed"]
    assert not bench.agent.flush(20)
    assert bench.agent.stats().error == "malformed"


def test_agent_fault_turns_recording_off_and_shows_nothing(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.buffer.fault = ValueError("a bug")
    bench.join()
    assert bench.off.wait(20)
    assert bench.sockets.closed.wait(20)
    stats = bench.agent.stats()
    assert (stats.state, stats.errors, stats.error) == ("broken", 1, "ValueError: a bug")
    assert not bench.agent.flush(20)
    assert capfd.readouterr() == ("", "")


class Said(logging.Handler):
    """Lines of the logger ``frzmq``, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: Queue[str] = Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put(record.getMessage())

    def next(self) -> str:
        return self._lines.get(timeout=20)

    def empty(self) -> bool:
        return self._lines.empty()


@pytest.fixture
def said() -> Iterator[Said]:
    handler, logger = Said(), logging.getLogger("frzmq")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_agent_that_is_not_admitted_says_so_once_until_it_is(bench: Bench, said: Said) -> None:
    bench.sockets.problem = "no such key"
    bench.agent.start()
    bench.sockets.wait_message(Hello)
    bench.sockets.wait_message(Hello)
    assert said.next() == "the recorder does not take what this process records: no such key"
    assert bench.agent.stats().error == "no such key"
    bench.sockets.problem = ""
    bench.sockets.tell(Welcome(BOOT, 7, 1, 1, 10**9, 10**10))
    bench.wait_batch(BatchType.OPEN)
    assert bench.agent.stats().error == ""
    assert said.empty()


def test_agent_that_is_rejected_says_so_once(bench: Bench, said: Said) -> None:
    bench.agent.start()
    bench.sockets.wait_message(Hello)
    for _ in range(3):
        bench.sockets.tell(Reject("too many tracers"))
    bench.join()
    bench.wait_batch(BatchType.OPEN)
    assert said.next() == "the recorder does not take what this process records: too many tracers"
    assert said.empty()


def test_agent_that_is_rejected_again_and_again_writes_one_short_line(bench: Bench, said: Said) -> None:
    """A recorder, or whoever speaks for it on a wire without keys, is not to write into the program's log what it likes."""
    bench.agent.start()
    bench.sockets.wait_message(Hello)
    for number in range(50):
        bench.sockets.tell(Reject(f"{number}\nERROR:root:forged\x1b[31m" + "x" * 900))
    bench.join()
    bench.wait_batch(BatchType.OPEN)
    line = said.next()
    assert line.startswith("the recorder does not take what this process records: 0?ERROR:root:forged?[31mxxx")
    assert len(line) < 600
    assert said.empty()


def test_agent_garbage_on_the_link_is_counted(bench: Bench) -> None:
    bench.agent.start()
    bench.sockets.wait_message(Hello)
    bench.sockets.tell(b"\xc1")
    bench.sockets.tell(Hello(BOOT, 1, 1, 1, 1, "x", 0))
    bench.join()
    bench.wait_batch(BatchType.OPEN)
    assert (bench.agent.stats().errors, bench.agent.stats().state) == (2, "recording")


def test_agent_parked_goes_on_with_the_next_start(bench: Bench) -> None:
    bench.join()
    bench.wait_batch(BatchType.OPEN)
    first = bench.sockets
    assert bench.agent.park(20)
    assert first.closed.is_set()
    bench.sockets = FakeSockets()
    assert bench.join().generation == 1


def test_agent_without_descriptors_tries_again_and_ends_when_asked() -> None:
    bench = Bench()
    bench.failing = True
    bench.agent.start()
    assert bench.tried.wait(20)
    assert not bench.agent.flush(0.01)
    until(lambda: bench.agent.stats().error, "it does not say why")
    assert bench.agent.stats().error == "no connection to the recorder: Too many open files"
    bench.failing = False
    bench.join()
    bench.wait_batch(BatchType.OPEN)
    assert (bench.agent.stats().errors, bench.agent.stats().error) == (0, "")
    assert bench.agent.park(20)
    bench.failing = True
    bench.tried.clear()
    bench.agent.start()
    assert bench.tried.wait(20)
    assert bench.agent.park(20)
    bench.agent.dispose()
