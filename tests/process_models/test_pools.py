"""The standard library's own pools and children."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path

import pytest
from support.held import PATIENT, Held, counted, died
from support.programs import Program

HEAD = """
import multiprocessing, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
{how}
{patient}

def work(number):
    frzmq.event("work", pid=os.getpid())
    return os.getpid()

def flushed(number):
    frzmq.event("work", pid=os.getpid())
    assert frzmq.flush()
    return os.getpid()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    frzmq.event("begin", pid=os.getpid())
"""

BY_ENVIRONMENT = "import frzmq"
BY_START = "import frzmq; frzmq.start(service='pools')"
METHODS = ["fork", "spawn", "forkserver"]


def run(tmp_path: Path, held: Held, how: str, body: str, method: str = "fork") -> list[int]:
    """Every number that the program said: the pids of the work that was done."""
    code = HEAD.format(how=how, patient=PATIENT) + textwrap.indent(textwrap.dedent(body), "    ")
    return [int(word) for word in Program(tmp_path / "pools.py", code, method, **held.variables).end().split()]


def some(*values: object) -> list[object]:
    """The first in every run, the others in the long one."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.long) for value in values[1:])]


@pytest.mark.parametrize("how", some(BY_START, BY_ENVIRONMENT))
@pytest.mark.parametrize("method", METHODS)
def test_pool_closed_and_joined_holds_the_work_of_all(tmp_path: Path, held: Held, how: str, method: str) -> None:
    pids = run(
        tmp_path,
        held,
        how,
        """
        with context.Pool(2) as pool:
            print(*pool.map(work, range(100), chunksize=5))
            pool.close()
            pool.join()
        """,
        method,
    )
    opened = held.whole()
    assert counted(opened, "work") == Counter(pids)
    # the program and the pool, and no helper of multiprocessing
    assert len(opened.processes) <= 3


@pytest.mark.long
@pytest.mark.parametrize("how", [BY_START, BY_ENVIRONMENT])
def test_pool_with_restarted_workers_holds_the_work_of_all(tmp_path: Path, held: Held, how: str) -> None:
    pids = run(
        tmp_path,
        held,
        how,
        """
        with context.Pool(2, maxtasksperchild=10) as pool:
            print(*pool.map(work, range(100), chunksize=1))
            pool.close()
            pool.join()
        """,
        "spawn",
    )
    opened = held.whole()
    assert counted(opened, "work") == Counter(pids)
    assert len(set(pids)) >= 10


@pytest.mark.parametrize("method", some(*METHODS))
def test_pool_terminated_holds_what_was_shipped(tmp_path: Path, held: Held, method: str) -> None:
    pids = run(
        tmp_path,
        held,
        BY_ENVIRONMENT,
        """
        pool = context.Pool(2)
        print(*pool.map(flushed, range(10)))
        pool.terminate()
        pool.join()
        """,
        method,
    )
    opened = held.taken()
    assert counted(opened, "work") == Counter(pids)
    # a worker that has met the end of its queue first ends in order
    assert died(opened) <= set(pids)


@pytest.mark.parametrize("how", some(BY_START, BY_ENVIRONMENT))
@pytest.mark.parametrize("method", some(*METHODS))
def test_process_pool_executor_holds_the_work_of_all(tmp_path: Path, held: Held, how: str, method: str) -> None:
    pids = run(
        tmp_path,
        held,
        how,
        """
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            print(*pool.map(work, range(100), chunksize=5))
        """,
        method,
    )
    assert counted(held.whole(), "work") == Counter(pids)


def test_thread_pool_executor_that_the_exit_ends_holds_its_work(tmp_path: Path, held: Held) -> None:
    run(tmp_path, held, BY_START, "pool = ThreadPoolExecutor(4)\nfor n in range(100): pool.submit(work, n)")
    assert counted(held.whole(), "work").total() == 100


@pytest.mark.parametrize("how", some(BY_START, BY_ENVIRONMENT))
def test_subprocess_children_hold_their_work(tmp_path: Path, held: Held, how: str) -> None:
    pids = run(
        tmp_path,
        held,
        how,
        """
        code = "from pools import work; print(work(0))"
        children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
        assert [child.wait() for child in children] == [0, 0, 0]
        """,
    )
    assert counted(held.whole(), "work") == Counter(pids)


def test_forked_children_that_end_at_once_hold_their_work(tmp_path: Path, held: Held) -> None:
    """As those of socketserver's ForkingMixIn do."""
    pids = run(
        tmp_path,
        held,
        BY_START,
        """
        for n in range(5):
            if os.fork() == 0:
                print(work(n), flush=True)
                os._exit(0)
        assert [os.wait()[1] for _ in range(5)] == [0] * 5
        """,
    )
    assert counted(held.whole(), "work") == Counter(pids)
