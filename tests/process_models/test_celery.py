"""Celery's prefork pool, with a broker of files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.held import Held, counted, died
from support.programs import environment
from support.servers import Server, write
from support.until import until

from frzmq.reader.snapshot import Snapshot, open_snapshot

pytestmark = pytest.mark.skipif(not find_spec("celery"), reason="celery is not installed")

APP = """
import os, pathlib
{how}
from celery import Celery
from celery.signals import worker_process_shutdown

here = pathlib.Path(__file__).parent
app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={{
        "data_folder_in": here / "queue",
        "data_folder_out": here / os.environ.get("OUT", "queue"),
        "control_folder": here / "control",
        "polling_interval": 0.02,
    }},
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    {options}
)

@app.task
def work(number):
    frzmq.event("task", pid=os.getpid())
    (here / "done" / str(number)).write_text(str(os.getpid()))

@worker_process_shutdown.connect
def shutdown(**_):
    frzmq.event("shutdown", pid=os.getpid())
"""


class Celery(Server):
    """``celery worker``; ``tasks`` puts some into its queue."""

    def __init__(self, directory: Path, how: str, options: str = "", *under: str, **variables: str) -> None:
        self.directory = directory
        for name in ("queue", "out", "control", "done"):
            (directory / name).mkdir()
        write(directory / "tasks.py", APP.format(how=how, options=options))
        command = ["celery", "-A", "tasks", "worker", "--concurrency", "2", "--pool", "prefork", "-l", "INFO"]
        super().__init__(directory, *under, *command, "--without-gossip", "--without-mingle", **variables)

    def tasks(self, numbers: range) -> Counter[int]:
        """How many each of the pool's processes has done."""
        code = f"from tasks import work\nfor n in {numbers!r}: work.delay(n)"
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.directory,
            env=environment(FRZMQ_DISABLE="1", OUT="out"),
            check=True,
            timeout=30,
        )
        # the worker reads what is in its queue, also a file that is not written yet
        for path in (self.directory / "out").iterdir():
            path.rename(self.directory / "queue" / path.name)
        done = [self.directory / "done" / str(number) for number in numbers]
        until(lambda: all(path.exists() and path.read_text() for path in done), "the end of all tasks")
        return Counter(int(path.read_text()) for path in done)


def check(opened: Snapshot, done: Counter[int]) -> None:
    assert counted(opened, "task") == done
    assert opened.ledger.lost == 0
    # Celery itself now and then kills one of the last two, which wait for tasks, instead of telling it to end
    killed = died(opened)
    assert len(killed) <= 2
    assert set(done) - killed <= set(counted(opened, "shutdown"))


@pytest.mark.parametrize(
    "how",
    ["import frzmq; frzmq.start(service='tasks')", pytest.param("import frzmq", marks=pytest.mark.long)],
)
def test_celery_warm_shutdown_holds_every_workers_tasks(directory: Path, held: Held, how: str) -> None:
    with Celery(directory, how, **held.variables) as celery:
        done = celery.tasks(range(20))
        assert celery.end() == 0
    check(held.taken(), done)


@pytest.mark.long
@pytest.mark.parametrize("how", ["import frzmq; frzmq.start(service='tasks')", "import frzmq"])
def test_celery_restarted_workers_tasks_are_held(directory: Path, held: Held, how: str) -> None:
    with Celery(directory, how, "worker_max_tasks_per_child=3", **held.variables) as celery:
        done = celery.tasks(range(20))
        assert celery.end() == 0
    assert len(done) >= 7
    check(held.taken(), done)


@pytest.mark.long
def test_celery_killed_worker_has_what_it_shipped_and_an_incomplete_stream(directory: Path, held: Held) -> None:
    with Celery(directory, "import frzmq", **held.variables) as celery:
        done = celery.tasks(range(20))
        killed = next(iter(done))
        until(lambda: counted(held.taken(), "task") == done, "the last batches")
        os.kill(killed, signal.SIGKILL)
        until(lambda: died(held.taken()), "the end of the worker's stream")
        opened = held.taken()
        # no graceful end: Celery waits for what it has given to a worker that was killed
    assert counted(opened, "task") == done
    assert died(opened) == {killed}


@pytest.mark.long
def test_run_of_celery_leaves_a_snapshot_of_every_worker(directory: Path) -> None:
    run = ("frzmq", "run", "-o", "s.frz", "-m")
    with Celery(directory, "import frzmq", "", *run, FRZMQ_RUNTIME_DIR=str(directory / "r")) as celery:
        done = celery.tasks(range(20))
        assert celery.end() == 0
    check(open_snapshot(directory / "s.frz"), done)
