"""The fixture that every test has, with seeded leaks: each is told, by the test that made it, and the next test is unharmed."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from support import left_behind
from support.left_behind import Places, Present

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
QUICK = """
left_behind.GRACE_S = left_behind.TERM_S = 0.1
"""
SEEDS = """
import os, pytest, socket, subprocess, sys, tempfile, threading, time, zmq
from pathlib import Path
from support import left_behind
from support.recorder_process import until_ended
from support.until import until

kept = []  # so that nothing is collected


def test_clean():
    context = zmq.Context()
    with socket.socket() as listener, tempfile.TemporaryDirectory() as path:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with context.socket(zmq.PULL) as bound:
            bound.bind(f"ipc://{path}/s")
    thread = threading.Thread(target=sum, args=([],))
    thread.start()
    thread.join()
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    context.destroy()


def test_adopted_and_ended():
    out = subprocess.run(["/bin/sh", "-c", "true & echo $!"], capture_output=True, check=True).stdout
    until_ended(int(out))


def test_adopted_and_ended_with_the_pid_of_a_child_before_it():
    out = subprocess.run(["/bin/sh", "-c", "true & echo $!"], capture_output=True, check=True).stdout
    left_behind._started._started[int(out)] = "0"
    until_ended(int(out))


def test_context_without_sockets():
    kept.append(zmq.Context())


def test_context_with_a_message_that_nobody_takes():
    context = zmq.Context()
    sender = context.socket(zmq.DEALER)
    sender.connect("ipc:///nobody")
    sender.send(b"waits for ever")
    kept.append(sender)


def test_context_that_is_being_ended():
    context = zmq.Context()
    kept.append(context.socket(zmq.PULL))
    threading.Thread(target=context.term, daemon=True).start()


def test_running():
    kept.append(subprocess.Popen(["sleep", "100"]))


def test_grandchild():
    shell = ["/bin/sh", "-c", "sleep 101 >&- 2>&- & echo $!"]
    out = subprocess.run(shell, capture_output=True, check=True).stdout
    line = Path("/proc", str(int(out)), "cmdline")
    until(lambda: line.read_bytes().startswith(b"sleep"))


def test_zombie_of_a_fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_zombie_of_a_popen():
    process = subprocess.Popen(["true"])
    kept.append(process)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_thread():
    event = threading.Event()
    threading.Thread(target=event.wait, args=(5,), name="waits", daemon=True).start()


def test_listener():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    kept.append(listener)


def test_descriptor():
    os.open("/dev/null", os.O_RDONLY)


def test_descriptor_in_the_place_of_another():
    os.close(kept[-1].detach())
    kept.append(socket.socket())


def test_temporary_file():
    kept.append(tempfile.mkdtemp(prefix="left"))


def test_runtime_directory():
    from frzmq.config import ensure_private_dir, runtime_dir

    Path(ensure_private_dir(runtime_dir()), "left.buf").touch()


def test_current_directory():
    Path("left.frz").touch()


def test_failed():
    kept.append(socket.socket())
    raise OSError


@pytest.fixture(scope="module")
def service():
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def test_the_first_to_ask_for_a_fixture_of_the_module(request):
    assert request.getfixturevalue("service").poll() is None


def test_the_second_to_ask_for_it(request):
    assert request.getfixturevalue("service").poll() is None


def test_nothing_after_all_of_these():
    pass
"""
CLEAN = {
    "test_clean",
    "test_adopted_and_ended",
    "test_adopted_and_ended_with_the_pid_of_a_child_before_it",
    "test_the_first_to_ask_for_a_fixture_of_the_module",
    "test_the_second_to_ask_for_it",
    "test_nothing_after_all_of_these",
}
LEFT = {
    "test_context_without_sockets": ["a zmq context: with 0 open sockets"],
    "test_context_with_a_message_that_nobody_takes": ["a zmq context: with 1 open socket"],
    "test_context_that_is_being_ended": ["a thread: Thread-", "a zmq context: with 1 open socket"],
    "test_running": ["a process: N, sleep 100"],
    "test_grandchild": ["a process: N, sleep 101"],
    "test_zombie_of_a_fork": ["a process: N, ended, and nobody has waited for it"],
    "test_zombie_of_a_popen": ["a process: N, ended, and nobody has waited for it"],
    "test_thread": ["a thread: waits"],
    "test_listener": ["a file descriptor: N on socket:"],
    "test_descriptor": ["a file descriptor: N on /dev/null"],
    "test_descriptor_in_the_place_of_another": ["a file descriptor: N on socket:"],
    "test_temporary_file": ["a file: /", "/left"],
    "test_runtime_directory": ["a file: /", "/frzmq/left.buf"],
    "test_current_directory": ["a file: /", "/left.frz"],
}


@pytest.mark.skipif(not left_behind.LINUX, reason="processes and descriptors are looked at in /proc")
def test_nothing_left_tells_each_seeded_leak_and_spares_the_next_test(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "from support import left_behind\n"
        + CONFTEST.read_text().replace("from __future__ import annotations\n", "")
        + QUICK
    )
    pytester.makepyfile(SEEDS)
    options = ["-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", f"pythonpath={CONFTEST.parent}"]
    # one that hangs is ended, and fails
    result = pytester.runpytest_subprocess(*options, "-o", "filterwarnings=error", "--tb=line", timeout=50)
    result.assert_outcomes(passed=len(CLEAN | LEFT.keys()), failed=1, errors=len(LEFT))
    told = dict(
        re.findall(r"ERROR at teardown of (\w+) _+\nE   AssertionError: left behind: (.*)", result.stdout.str())
    )
    assert told.keys() == LEFT.keys()
    for name, parts in LEFT.items():
        assert all(part in re.sub(r"\b\d+(?=, | on )", "N", told[name]) for part in parts), told[name]


def test_present_is_looked_at_fast_enough_for_every_test(places: Places) -> None:
    Present.now(places)
    took = []
    for _ in range(20):
        began = time.perf_counter()
        Present.now(places)
        took.append(time.perf_counter() - began)
    # twice in each test, about 0.2 ms each
    assert min(took) < 0.005, took
