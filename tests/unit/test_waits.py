"""Nothing waits without a deadline: the code of the package is read for what might, and each exception says why it is none."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest
from support.waits import Wait, waits_in, waits_of

import frzmq

PACKAGE = Path(frzmq.__file__).parent

ALLOWED: dict[str, tuple[Wait, ...]] = {
    # --- the command line, which waits for what its user started it for
    "`frzmq run` lasts as long as its program, and hands it the signals": (Wait("cli/run.py", "_wait", "wait()"),),
    "`frzmq view` serves until Ctrl-C": (Wait("cli/view.py", "run", "wait()"),),
    "a service of the demo serves until it is terminated": (Wait("demo/http.py", "serve_flask", "serve_forever()"),),
    "the demo's thread that waits for the end of whoever started it: a pipe's end, which also a kill closes": (
        Wait("demo/http.py", "end_with_parent.wait", "read()"),
    ),
    # --- descriptors that do not block
    "read after `select` said that there is something, in a loop with a deadline; one line is written at once": (
        Wait("demo/shop.py", "_launch", "readline()"),
        Wait("embedded.py", "EmbeddedRecorder._await_ready", "read()"),
        Wait("embedded.py", "_wait_end", "read()"),
    ),
    "both ends of the pipe that wakes a loop are made with O_NONBLOCK": (
        Wait("recorder/worker.py", "Worker._wake", "write()"),
        Wait("recorder/worker.py", "Worker.turn", "read()"),
        Wait("tracer/agent.py", "Agent._drain_wake", "read()"),
        Wait("tracer/agent.py", "Agent._wake", "write()"),
    ),
    "the worker makes the program's pipe non-blocking when it begins": (
        Wait("recorder/worker.py", "Worker._read_parent", "read()"),
    ),
    "a plain file, as it was seen before": (Wait("recorder/liveness.py", "DirectoryLock._take", "write()"),),
    "the receiver is handed on together with DONTWAIT, which is its only argument": (
        Wait("transport/sockets.py", "RecorderSockets.frame_receiver", "recv"),
    ),
    # --- threads
    "in a thread of its own, which is waited for with a deadline": (Wait("transport/sockets.py", "close_all", "term"),),
    "the server's thread, a daemon, which `shutdown` ends": (Wait("view/server.py", "serving", "serve_forever"),),
    "the server looks every half second whether it is to end, and answers each request in a daemon thread": (
        Wait("recorder/metrics.py", "MetricsServer.close", "shutdown()"),
        Wait("view/server.py", "serving", "shutdown()"),
    ),
    "starts a daemon thread, and gives its connections a time limit": (
        Wait("recorder/metrics.py", "MetricsServer.__init__", "start_http_server()"),
    ),
    # --- locks that are held for bounded work only
    "held for the start of an embedded recorder (20 s) and the first flush (its deadline), or to look at fields": (
        Wait("flight.py", "FlightRecorder.start", "with _current_lock"),
        Wait("flight.py", "FlightRecorder.start", "with _lock"),
        Wait("flight.py", "FlightRecorder.stop", "with _current_lock"),
        Wait("flight.py", "FlightRecorder.stop", "with _lock"),
        Wait("flight.py", "FlightRecorder.stop", "with _written"),
        Wait("flight.py", "FlightRecorder.write_to", "with _lock"),
        Wait("flight.py", "FlightRecorder.write_to", "with _lock"),
    ),
    "held for a few stores into the buffer; whoever is inside of it, a signal handler too, does not come here again": (
        Wait("tracer/_buffer_py.py", "Buffer._exclusive", "with _lock"),
        Wait("tracer/_buffer_py.py", "Buffer.writer", "with _lock"),
    ),
    "held to put tuples of triggers together; no record takes it": (
        Wait("tracer/watch.py", "Watch.add", "with _lock"),
        Wait("tracer/watch.py", "Watch.clear", "with _lock"),
    ),
}


def test_package_waits_nowhere_without_a_deadline_but_where_it_is_said_why() -> None:
    assert waits_in(PACKAGE) == sorted(chain(*ALLOWED.values()))


PREFIX = """
import queue, select, socket, subprocess, threading, zmq
from contextvars import ContextVar
lock = threading.Lock()
current: ContextVar[int] = ContextVar("current")
FLAGS: int = os.O_RDONLY | os.O_NONBLOCK
"""


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        ("thread.join()", ["join()"]),
        ("thread.join(None); thread.join(timeout=None)", ["join()", "join()"]),
        ("thread.join(1.0); ','.join(words); os.path.join(a, b)", []),
        ("event.wait()", ["wait()"]),
        ("process.wait(2); event.wait(timeout=s); condition.wait_for(done, 3)", []),
        ("condition.wait_for(done)", ["wait_for()"]),
        ("lock.acquire(); lock.acquire(True)", ["acquire()", "acquire()"]),
        ("lock.acquire(timeout=1); lock.acquire(False); lock.acquire(blocking=False); lock.acquire(True, 1)", []),
        ("with lock: pass", ["with lock"]),
        ("with self.lock, other: pass", ["with lock"]),
        ("q.get(); current.get(); values.get(name)", ["get()"]),
        ("queue.Queue(); queue.SimpleQueue()", ["Queue()"]),
        ("future.result(); future.result(3)", ["result()"]),
        ("poller.poll(); poller.poll(100)", ["poll()"]),
        ("select.select([a], [], []); select.select([a], [], [], None); select.select([a], [], [], 1)", ["select()"] * 2),
        ("s.recv(); s.recv(zmq.DONTWAIT); s.recv_multipart()", ["recv()", "recv_multipart()"]),
        ("s.send(data); s.send(data, zmq.NOBLOCK)", ["send()"]),
        ("receive = s.recv", ["recv"]),
        ("Thread(target=context.term, daemon=True)", ["term"]),
        ("Thread(target=run); Thread(track)", ["Thread()"]),
        ("subprocess.run(a); subprocess.run(a, timeout=1); process.communicate(); process.communicate(timeout=1)",
         ["run()", "communicate()"]),
        ("os.waitpid(p, 0); os.waitpid(p, os.WNOHANG); os.wait()", ["waitpid()", "wait()"]),
        ("os.read(fd, 1); os.write(fd, b'')", ["read()", "write()"]),
        ("os.open(p, os.O_RDONLY); os.open(p, FLAGS); os.open(p, os.O_EXCL)", ["open()"]),
        ("sys.stdin.read(); process.stdout.readline(); file.read()", ["read()", "readline()"]),
        ("fcntl.lockf(fd, LOCK_EX); fcntl.flock(fd, LOCK_EX | LOCK_NB); fcntl.lockf(fd, LOCK_UN)", ["lockf()"]),
        ("urlopen(u); urlopen(u, timeout=1); HTTPConnection(h, p); HTTPConnection(h, timeout=9)",
         ["urlopen()", "HTTPConnection()"]),
        ("server.serve_forever(); server.shutdown()", ["serve_forever()", "shutdown()"]),
        ("class A(BaseHTTPRequestHandler): pass", ["class A"]),
        ("class A(BaseHTTPRequestHandler): timeout = 3", []),
    ],
)  # fmt: skip
def test_waits_of_finds_what_has_no_deadline(code: str, waits: list[str]) -> None:
    assert waits_of(PREFIX + code) == waits


SOURCES = Path(__file__).resolve().parents[2] / "frzmq" / "tracer"
"""Beside the tests: an installed package has none."""
NATIVE = [SOURCES / "_buffer.c", *sorted((SOURCES / "native").glob("*.h"))]
OF_LIBC = {
    *("clock_gettime", "clock_gettime_nsec_np", "getpid", "getppid", "unlink", "pthread_atfork"),
    *("memcmp", "memcpy", "memmove", "memset", "strcmp", "strlen"),
}
"""All that the native buffer calls; `unlink` when it is closed, `pthread_atfork` when it is loaded."""
WORDS = {
    "if",
    "for",
    "while",
    "switch",
    "return",
    "sizeof",
    "offsetof",
    "void",
    "tls_model",
    "name",
    "tp_alloc",
    "tp_free",
}
WAITS_IN_PYTHON = re.compile(
    r"PyThread_acquire\w*|PyThread_\w*[lL]ock\w*|PyGILState_\w+|PyEval_(Acquire|Restore|Save)\w*|Py_(BEGIN|END|UN?BLOCK)\w*THREADS|PyMutex_\w+|PyErr_CheckSignals|PyRun_\w+"
)


def test_native_buffer_calls_nothing_that_waits() -> None:
    code = "".join(path.read_text() for path in NATIVE)
    code = re.sub(r"/\*.*?\*/|//[^\n]*|\"(\\.|[^\"\\\n])*\"", " ", code, flags=re.DOTALL)
    called = set(re.findall(r"\b([A-Za-z_]\w*)\s*\(", code))
    own = set(re.findall(r"^(?:[\w*]+\s+)*\**(\w+)\([^;{}]*?\)\s*\{|#define\s+(\w+)\b", code, re.MULTILINE))
    known = {name for pair in own for name in pair} | WORDS
    foreign = {name for name in called - known if not re.match(r"_?Py[A-Z_]|__", name)}
    assert foreign == OF_LIBC, (foreign - OF_LIBC, OF_LIBC - foreign)
    assert WAITS_IN_PYTHON.findall(code) == []
