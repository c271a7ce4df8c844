"""A recorder on one host and a program on another, with a cable between them that is pulled, and a network that is slow."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hosts import Host, slow_down, two_hosts
from support.places import frzmq, placed_recorder, started
from support.programs import PACKAGE_PARENT, Program
from support.recorder_process import RecorderProcess

from frzmq.reader.model import Process
from frzmq.reader.snapshot import Snapshot, open_snapshot
from frzmq.reader.validate import Level, validate

AHEAD_S = 5000
FLUSH_S = 15.0
CUT_FLUSH_S = 1.0
"""Where nobody is awaited who answers."""
LATE_S = 8.0
"""After the flush: the reading, and a machine that is busy."""
WRITER = """
    import select, sys, time
    import frzmq
    from frzmq.tracer import runtime

    frzmq.start(service="far", recorder=sys.argv[1])
    at_once, pad, n, took = int(sys.argv[2]), "x" * int(sys.argv[3]), 0, []
    assert frzmq.flush(20)
    print("ready", flush=True)
    while True:
        for _ in range(at_once):
            before = time.perf_counter_ns()
            frzmq.event("n", n=n, pad=pad)
            took.append(time.perf_counter_ns() - before)
            n += 1
        time.sleep(0.001)
        if select.select([sys.stdin], [], [], 0)[0]:
            if sys.stdin.readline() == "end\\n":
                break
            took.sort()
            print(took[len(took) * 99 // 100], runtime.stats().overwritten, flush=True)
            took = []
    print(frzmq.flush(30), n, runtime.stats().recorded, flush=True)
    sys.stdin.readline()
"""
TAKE = """
import json, sys, time
from frzmq.control.client import ControlClient
began = time.monotonic()
with open(sys.argv[2], "xb") as file, ControlClient(sys.argv[1]) as client:
    end = client.snapshot(file, flush_timeout_s=float(sys.argv[3]))
print(json.dumps([time.monotonic() - began, end.missing]))
"""
DELAY = """
    import asyncio, os, sys

    host, port, delay_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

    async def later(source, target):
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(1 << 16):
                loop.call_later(delay_s, target.write, data)
        finally:
            loop.call_later(delay_s, target.close)

    async def serve(port):
        async def one(near, to_near):
            far, to_far = await asyncio.open_connection(host, port)
            await asyncio.gather(later(near, to_far), later(far, to_near))

        return await asyncio.start_server(one, "127.0.0.1", port)

    async def main():
        servers = [await serve(port + n) for n in range(3)]
        print("ready", flush=True)
        await asyncio.wait_for(asyncio.to_thread(sys.stdin.readline), 120)
        os._exit(0)

    asyncio.run(main())
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Here is the recorder; there are the programs."""
    with two_hosts(tmp_path, AHEAD_S) as both:
        yield both


@pytest.fixture
def recorder(hosts: tuple[Host, Host]) -> Iterator[RecorderProcess]:
    here, _ = hosts
    with placed_recorder(here.prefix, f"tcp://{here.address}:7171", "--insecure") as process:
        yield process


class Taken:
    """A snapshot that the recorder's host asked for: how long that took, and who was missing."""

    def __init__(self, host: Host, address: str, path: Path, flush_s: float = FLUSH_S) -> None:
        said = host.run(
            "env", f"PYTHONPATH={PACKAGE_PARENT}", sys.executable, "-c", TAKE, address, str(path), f"{flush_s}"
        )
        self.took_s, missing = json.loads(said)
        self.missing = tuple(missing)
        self.path = path
        self.snapshot = open_snapshot(path)
        assert [str(f) for f in validate(self.snapshot) if f.level is Level.ERROR] == []
        assert self.took_s < flush_s + LATE_S

    @property
    def process(self) -> Process:
        (process,) = self.snapshot.processes
        return process


def numbers(snapshot: Snapshot) -> list[int]:
    return [int(str(event.attributes["n"])) for event in snapshot.events if event.name == "n"]


def ended(program: Program) -> tuple[int, int]:
    """How many of its own records there are, and how many in all; all of them have been acknowledged."""
    program.tell("end")
    flushed, n, recorded = program.line().split()
    assert flushed == "True"
    return int(n), int(recorded)


def phase_ns(program: Program) -> int:
    """The 99th percentile of what a record took since the last time."""
    return phase(program)[0]


def phase(program: Program) -> tuple[int, int]:
    """And how many records it has lost so far, for want of room in its buffer."""
    program.tell("phase")
    p99_ns, overwritten = map(int, program.line().split())
    return p99_ns, overwritten


def until_overwritten(program: Program) -> int:
    """The largest of the percentiles until then."""
    deadline = time.monotonic() + 20
    most_ns = overwritten = 0
    while not overwritten:
        assert time.monotonic() < deadline, "everything fits"
        time.sleep(0.1)
        p99_ns, overwritten = phase(program)
        most_ns = max(most_ns, p99_ns)
    return most_ns


def let_go(program: Program) -> None:
    program.tell("let go")
    program.end()


def check_cut(hosts: tuple[Host, Host], recorder: RecorderProcess, tmp_path: Path, cut_s: float) -> None:
    _, there = hosts
    with started(tmp_path / "far.py", WRITER, recorder.address, "5", "0", prefix=there.prefix) as program:
        check_cut_of(program, hosts, recorder, tmp_path, cut_s)


def check_cut_of(
    program: Program, hosts: tuple[Host, Host], recorder: RecorderProcess, tmp_path: Path, cut_s: float
) -> None:
    here, there = hosts
    assert program.line() == "ready"
    before = Taken(here, recorder.address, tmp_path / "before.frz")
    assert before.missing == ()
    check_clock(here, recorder, tmp_path, least_ns=1, most_ns=50_000_000)
    normal_ns = phase_ns(program)

    there.down()
    cut = time.monotonic()
    during = Taken(here, recorder.address, tmp_path / "during.frz", CUT_FLUSH_S)
    assert during.missing == during.snapshot.header.missing == (during.process.name,)
    assert len(numbers(during.snapshot)) >= len(numbers(before.snapshot)) > 0
    # the fault itself has a length
    time.sleep(max(0.0, cut + cut_s - time.monotonic()))
    cut_ns = phase_ns(program)
    there.up()

    n, _ = ended(program)
    after = Taken(here, recorder.address, tmp_path / "after.frz")
    assert after.missing == ()
    assert numbers(after.snapshot) == [*range(n)]
    ledger = after.process.ledger
    assert (ledger.lost, ledger.evicted, ledger.balanced, after.process.state) == (0, 0, True, "live")
    # far from what a wait for a network would take
    assert cut_ns < 2 * normal_ns + 50_000, f"p99 of a record: {normal_ns} ns, with the cable pulled {cut_ns} ns"
    let_go(program)


def test_cable_pulled_for_seconds_under_load_loses_nothing_and_a_snapshot_says_who_is_missing(
    hosts: tuple[Host, Host], recorder: RecorderProcess, tmp_path: Path
) -> None:
    check_cut(hosts, recorder, tmp_path, 3.0)


@pytest.mark.long
@pytest.mark.timeout(180)
def test_cable_pulled_for_longer_than_a_silence_loses_nothing(
    hosts: tuple[Host, Host], recorder: RecorderProcess, tmp_path: Path
) -> None:
    check_cut(hosts, recorder, tmp_path, 14.0)


def test_cut_that_does_not_fit_the_buffer_is_counted_to_the_last_record(
    hosts: tuple[Host, Host], recorder: RecorderProcess, tmp_path: Path
) -> None:
    here, there = hosts
    with large_records(there, recorder, tmp_path) as program:
        there.down()
        during = Taken(here, recorder.address, tmp_path / "during.frz", CUT_FLUSH_S)
        assert during.missing == (during.process.name,)
        until_overwritten(program)
        there.up()
        check_counted(here, recorder, program, tmp_path)
        let_go(program)


@contextlib.contextmanager
def large_records(there: Host, recorder: RecorderProcess, tmp_path: Path) -> Iterator[Program]:
    """A program that soon fills its buffer, which is small."""
    arguments = (tmp_path / "far.py", WRITER, recorder.address, "5", "200")
    with started(*arguments, prefix=there.prefix, FRZMQ_BUFFER_BYTES="256k") as program:
        assert program.line() == "ready"
        yield program


def check_counted(here: Host, recorder: RecorderProcess, program: Program, tmp_path: Path) -> None:
    """What is not in the snapshot is in its ledger, as overwritten or dropped; nothing is in it twice."""
    n, recorded = ended(program)
    after = Taken(here, recorder.address, tmp_path / "after.frz")
    found, ledger = numbers(after.snapshot), after.process.ledger
    assert found == sorted(set(found))
    assert ledger.overwritten > 0
    assert (ledger.balanced, ledger.lost, ledger.missing, ledger.late) == (
        True,
        ledger.overwritten + ledger.dropped,
        0,
        0,
    )
    assert (ledger.recorded, ledger.held) == (recorded, sum(1 for _ in after.snapshot))
    assert len(found) + ledger.lost >= n
    assert {gap.cause for gap in after.snapshot.gaps} == {"overwritten"}


def test_slow_network_is_not_noticed_by_the_program_and_what_does_not_fit_is_counted(
    hosts: tuple[Host, Host], recorder: RecorderProcess, tmp_path: Path
) -> None:
    here, there = hosts
    # else megabytes wait in the system
    there.run("sh", "-c", "echo 4096 16384 32768 > /proc/sys/net/ipv4/tcp_wmem")
    slow_down(there, "tbf", "rate", "100mbit", "burst", "256kb", "latency", "100ms")
    with large_records(there, recorder, tmp_path) as program:
        phase_ns(program)
        Taken(here, recorder.address, tmp_path / "before.frz")
        normal_ns = phase_ns(program)

        slow_down(there, "tbf", "rate", "1mbit", "burst", "16kb", "latency", "100ms")
        Taken(here, recorder.address, tmp_path / "during.frz", CUT_FLUSH_S)
        slow_ns = until_overwritten(program)
        assert slow_ns < 2 * normal_ns + 50_000, f"p99 of a record: {normal_ns} ns, over a slow network {slow_ns} ns"
        slow_down(there, "tbf", "rate", "100mbit", "burst", "256kb", "latency", "100ms")
        check_counted(here, recorder, program, tmp_path)
        let_go(program)


def test_clock_over_a_network_of_200_ms_has_a_bound_of_half_of_it(
    hosts: tuple[Host, Host], recorder: RecorderProcess, tmp_path: Path
) -> None:
    here, there = hosts
    with (
        started(tmp_path / "relay.py", DELAY, here.address, "7171", "0.1", prefix=there.prefix) as relay,
        started(tmp_path / "far.py", WRITER, "tcp://127.0.0.1:7171", "5", "0", prefix=there.prefix) as program,
    ):
        assert (relay.line(), program.line()) == ("ready", "ready")
        check_clock(here, recorder, tmp_path, least_ns=100_000_000, most_ns=200_000_000)
        n, _ = ended(program)
        after = Taken(here, recorder.address, tmp_path / "after.frz")
        assert numbers(after.snapshot) == [*range(n)]
        assert after.process.ledger.lost == 0
        let_go(program)
        relay.tell("end")
        relay.end()


def check_clock(here: Host, recorder: RecorderProcess, tmp_path: Path, *, least_ns: int, most_ns: int) -> None:
    """The offset is known to a nanosecond here: it is that of a namespace. A sample comes with the tracer's second heartbeat."""
    deadline = time.monotonic() + 20
    for n in range(100):
        taken = Taken(here, recorder.address, tmp_path / f"clock{n}.frz")
        clock = taken.process.clock
        # an earlier sample may have met a busy machine; the best one counts
        if clock.source == "link" and clock.error_ns is not None and clock.error_ns < most_ns:
            break
        assert time.monotonic() < deadline, clock
        time.sleep(0.2)
    assert clock.error_ns is not None and least_ns <= clock.error_ns
    assert abs(clock.offset_ns + AHEAD_S * 10**9) <= clock.error_ns
    said = frzmq("info", str(taken.path)).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("clock of ")]
    assert line.startswith(f"clock of {taken.process.name}: link, -1.389h +- ")
    # aligned, its records are of the recorder's time
    header = taken.snapshot.header
    assert -clock.error_ns <= header.created_monotonic_ns - taken.snapshot.events[-1].time_ns < 20 * 10**9
