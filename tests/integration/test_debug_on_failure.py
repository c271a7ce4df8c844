"""Log lines below the enabled level come back when their operation fails, from every process, once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.programs import Program

pytestmark = pytest.mark.usefixtures("runtime_directory")

PROGRAM = """
    import logging, subprocess, sys, time, frzmq

    class Counting(logging.Handler):
        lines = []
        def emit(self, record):
            self.lines.append((record.levelname, record.name, record.getMessage(), record.created))

    log = logging.getLogger("app.db")
    logging.basicConfig(level=logging.WARNING, handlers=[Counting()])
    if len(sys.argv) > 1:
        with frzmq.operation("child", traceparent=sys.argv[1]):
            log.debug("child looks up %(what)s", {"what": "x", "token": "secret"})
        sys.exit()

    def wait(count):
        deadline = time.monotonic() + 15
        while len(Counting.lines) < count and time.monotonic() < deadline:
            time.sleep(0.01)
"""


def run(tmp_path: Path, code: str) -> list[str]:
    text = PROGRAM + code + "\n    for line in Counting.lines:\n        print(*line[:3])\n"
    program = Program(tmp_path / "program.py", text, FRZMQ_RUNTIME_DIR=os.environ["FRZMQ_RUNTIME_DIR"])
    return program.end().splitlines()


def test_lines_of_a_failed_operation_come_back_from_every_process_and_no_others(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
    begin = time.time()
    with frzmq.start(service="shop", debug_on_failure=True):
        with frzmq.operation("fine"):
            log.debug("of another trace")
        try:
            with frzmq.operation("bad"):
                log.debug("about to %s %d", "divide", 3)
                subprocess.run([sys.executable, __file__, frzmq.inject()], check=True)
                with frzmq.operation("inner"):
                    log.info("inside")
                    1 / 0
        except ZeroDivisionError:
            pass
        wait(3)
    assert all(begin <= line[3] <= time.time() for line in Counting.lines)
    """,
    )
    assert [line.split(" ", 2)[:2] for line in lines] == [["DEBUG", "app.db"], ["DEBUG", "app.db"], ["INFO", "app.db"]]
    assert [line.partition("]: ")[2] for line in lines] == ["about to divide 3", "child looks up x", "inside"]
    marks = {line.split()[3] for line in lines}
    assert len(marks) == 1
    assert len({line.split()[4] for line in lines}) == 2


def test_lines_of_a_slow_operation_come_back_and_at_most_once_in_ten_seconds(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
    with frzmq.start(service="shop", debug_on_failure=True, triggers="slow 1ms", snapshots="s"):
        for n in range(2):
            with frzmq.operation("slow"):
                log.debug("number %d", n)
                time.sleep(0.01)
        wait(2)
        frzmq.flush()
    """,
    )
    texts = [line.partition("]: ")[2] for line in lines if line.startswith("DEBUG")]
    assert texts == ["number 0"]
    assert [line.split(" ", 2)[:2] for line in lines if line.startswith("WARNING")] == [["WARNING", "frzmq"]]


def test_lines_are_not_kept_unless_that_is_asked_for(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
    with frzmq.start(service="shop") as flight:
        try:
            with frzmq.operation("bad"):
                log.debug("not kept")
                1 / 0
        except ZeroDivisionError:
            pass
        frzmq.snapshot("s.frz")
    print(len(frzmq.open_snapshot("s.frz").logs))
    """,
    )
    assert lines == ["0"]
