"""What ZeroMQ was seen to do to processes, point by point (design, section 6), and what keeps it from doing harm. The rest: tests/unit/transport/test_zmq.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq
from support.loads import taken, until_state
from support.programs import DEADLINE_S, Program, environment
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

from frzmq.control.client import ControlClient

FRAMES = 40
SENDER = """
    import sys, zmq

    push = zmq.Context().socket(zmq.PUSH)
    push.setsockopt(zmq.SNDHWM, 100)
    push.connect(sys.argv[1])
    for _ in range(40):
        push.send(bytes(256 << 10))  # all of them return: they are taken
    print("sent", flush=True)
    sys.stdin.readline()
"""
INHERITED = """
    import os, sys, time, warnings, zmq

    warnings.simplefilter("ignore")
    context = zmq.Context()
    pull = context.socket(zmq.PULL)
    pull.bind(sys.argv[1])
    push = context.socket(zmq.PUSH)
    push.connect(sys.argv[1])
    push.send(b"before")
    assert pull.recv() == b"before"
    pid = os.fork()
    if pid == 0:
        for _ in range(5):
            push.send(b"child", zmq.DONTWAIT)  # says nothing of what happens
        time.sleep(0.2)
        os._exit(0)
    os.waitpid(pid, 0)
    print(pull.poll(300), flush=True)
    context.destroy(0)
"""
FORKS = """
    import frzmq, os, sys

    frzmq.event("parent", n=0)
    assert frzmq.flush(10)
    pid = os.fork()
    if pid == 0:
        for n in range(5):
            frzmq.event("child", n=n)
        assert frzmq.flush(10)
        print("child", flush=True)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    frzmq.event("parent", n=1)
    assert frzmq.flush(10)
    print("done", flush=True)
    sys.stdin.readline()
"""
LEAVES_A_CHILD = """
    import frzmq, os, sys

    frzmq.event("begin")
    assert frzmq.flush(10)
    pid = os.fork()
    if pid == 0:
        os.read(0, 1)  # lives on, with all that it inherited
        os._exit(0)
    frzmq.event("forked")
    assert frzmq.flush(10)
    print("forked", flush=True)
    os.read(0, 1)
"""
ONE_THREAD = """
    import frzmq, signal, threading
    from frzmq.transport.outbound import TracerSockets

    used = {}
    for name in ("__init__", "send_batch", "send", "receive", "poll", "close"):
        def watched(self, *args, inner=getattr(TracerSockets, name), name=name, **kwargs):
            used.setdefault(id(self), set()).add(threading.get_ident())
            return inner(self, *args, **kwargs)
        setattr(TracerSockets, name, watched)

    signal.signal(signal.SIGALRM, lambda *_: frzmq.event("in a handler"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

    def record():
        for n in range(2000):
            frzmq.event("n", n=n)
            if n % 500 == 0:
                assert frzmq.flush(10)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    record()
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(*(len(threads) for threads in used.values()), threading.get_ident() in set().union(*used.values()), flush=True)
"""


@pytest.fixture
def recorder(directory: Path) -> Iterator[RecorderProcess]:
    with recorder_process(str(directory), "--no-death-snapshots") as process:
        yield process


def test_zmq_1_push_that_returned_is_lost_with_its_process_and_acknowledgements_tell(
    tmp_path: Path, directory: Path
) -> None:
    """What the acknowledgements are for; that nothing is lost with them is in test_recorder_faults.py."""
    context = zmq.Context()
    pull = context.socket(zmq.PULL)
    pull.setsockopt(zmq.RCVHWM, 1)
    pull.bind(f"ipc://{directory}/data")
    sender = Program(tmp_path / "sender.py", SENDER, f"ipc://{directory}/data")
    try:
        assert sender.line() == "sent"
        sender.process.kill()
        sender.process.communicate(timeout=DEADLINE_S)
        arrived = 0
        while pull.poll(500):
            pull.recv()
            arrived += 1
        # none at all, where it was killed before it was connected
        assert arrived < FRAMES
    finally:
        sender.process.kill()
        context.destroy(0)


def test_zmq_2_death_is_seen_by_the_lock_while_a_child_holds_the_sockets(
    tmp_path: Path, recorder: RecorderProcess
) -> None:
    program = Program(tmp_path / "leaves.py", LEAVES_A_CHILD, FRZMQ_RECORDER=recorder.address)
    assert program.line() == "forked"
    [child] = [
        int(pid) for pid in Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text().split()
    ]
    try:
        with ControlClient(recorder.address) as client:
            until_state(client, program.process.pid, "live")
            program.process.kill()
            program.process.wait()
            until_state(client, program.process.pid, "dead")
        os.kill(child, 0)
        opened = taken(recorder.address, tmp_path)
        assert [event.name for event in opened.events] == ["begin", "forked"]
    finally:
        os.kill(child, signal.SIGKILL)
        program.process.communicate(timeout=DEADLINE_S)


def test_zmq_5_socket_that_a_fork_inherited_swallows_what_is_sent(tmp_path: Path, directory: Path) -> None:
    program = Program(tmp_path / "inherited.py", INHERITED, f"ipc://{directory}/data")
    assert program.end() == "0\n"


def test_zmq_5_tracer_of_a_fork_is_one_of_its_own_on_both_sides_and_nothing_warns(
    tmp_path: Path, recorder: RecorderProcess
) -> None:
    program = Program(tmp_path / "forks.py", FORKS, FRZMQ_RECORDER=recorder.address)
    try:
        assert (program.line(), program.line()) == ("child", "done")
        opened = taken(recorder.address, tmp_path)
        found = {
            (event.name, opened.processes[event.process].pid == program.process.pid, event.attributes["n"])
            for event in opened.events
        }
        assert found == {("parent", True, 0), ("parent", True, 1), *(("child", False, n) for n in range(5))}
        assert len({process.uuid for process in opened.processes}) == 2
        program.tell("")
        # a DeprecationWarning, of a fork beside a thread, would be an error in it
        program.end()
    finally:
        program.process.kill()
        program.process.wait()


def test_zmq_6_sockets_of_a_tracer_are_one_threads_whatever_records(tmp_path: Path, recorder: RecorderProcess) -> None:
    program = Program(tmp_path / "one.py", ONE_THREAD, FRZMQ_RECORDER=recorder.address)
    assert program.end() == "1 False\n"


def test_zmq_6_control_client_may_be_used_by_four_threads(recorder: RecorderProcess) -> None:
    with ControlClient(recorder.address) as client, ThreadPoolExecutor(4) as pool:
        pids = set(pool.map(lambda _: client.status().pid, range(200)))
    assert pids == {recorder.process.pid}


def test_zmq_10_recorder_raises_its_limit_of_files(directory: Path) -> None:
    code = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512)); "
        f"os.execv(sys.executable, [sys.executable, '-m', 'frzmq', 'recorder', '--listen', {str(directory)!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment())
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"ready")
        [line] = [
            line
            for line in Path(f"/proc/{process.pid}/limits").read_text().splitlines()
            if line.startswith("Max open files")
        ]
        assert line.split()[3:5] == ["512", "512"]
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    until(lambda: not any(directory.iterdir()), "it leaves something")
