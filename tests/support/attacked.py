"""A recorder under attack beside an honest program: it lives, within its bounds, and has each of the program's events once."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from frzmq.control.client import ControlClient
from frzmq.errors import ControlCode, ControlError
from frzmq.reader.snapshot import open_snapshot
from frzmq.reader.validate import Level, validate
from frzmq.transport.addresses import Endpoints, parse_address
from frzmq.wire.messages import Status, TracerStatus
from support.programs import Program
from support.recorder_process import RecorderProcess, recorder_process
from support.until import until

HONEST = """
import select, sys
import frzmq

frzmq.event("honest", number=0)
number = 1
while True:
    if select.select([sys.stdin], [], [], 0.005)[0]:
        if sys.stdin.readline().strip() != "mark":
            break
        print(frzmq.flush(20), number, flush=True)
    frzmq.event("honest", number=number)
    number += 1
"""
BOUND_BYTES = 278 << 20
"""`Guard.bound_bytes` of a recorder with the default ring that takes 30 MiB at its begin."""
SLACK_BYTES = 512 << 20
"""What comes between two looks: half a second of the flood on a machine so busy that the recorder is kept waiting. That it is cut, again and again, the tests see."""
_CUT = re.compile(r"frzmq recorder: wanted .*: closed all \d+ connections \(\d+\)")
_IDLE_S = 0.15


@dataclass
class Attacked:
    recorder: RecorderProcess
    endpoints: Endpoints
    honest: Program
    tmp_path: Path
    peak_bytes: int = field(default=0, init=False)
    seen: tuple[int, int] = field(default=(0, 0), init=False)
    """Of the honest program's events those that were not there at the last check, and those that were counted as lost: one test that loses some fails alone."""

    def endpoint(self, socket: str) -> str:
        """``socket``: data, link or control."""
        found: str = getattr(self.endpoints, socket)
        return found

    def status(self) -> Status:
        # a request that is under way when all connections are closed is lost: people ask again
        for _ in range(3):
            with contextlib.suppress(ControlError), self.client() as client:
                return client.status()
        with self.client() as client:
            return client.status()

    def client(self) -> ControlClient:
        """One for each use: the tests share this, and none leaves a connection of its own to the next."""
        return ControlClient(self.recorder.address, timeout_s=8)

    def honest_status(self) -> TracerStatus:
        tracers = self.status().tracers
        found = [tracer for tracer in tracers if tracer.service == "honest"]
        assert len(found) == 1, tracers
        return found[0]

    def look(self) -> int:
        """Its memory now; and the most is remembered."""
        taken = self.recorder.rss_bytes()
        self.peak_bytes = max(self.peak_bytes, taken)
        return taken

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.recorder.process.pid}/fd"))

    def limit_descriptors(self, limit: int) -> None:
        resource.prlimit(self.recorder.process.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def check(self) -> None:
        """The recorder lives, within its bounds; it comes to rest; and the honest program goes on and is there, each of its events once, or counted by cause."""
        assert self.recorder.process.poll() is None, "the recorder is gone"
        until(self._rests, "a recorder that does nothing but record")
        self.honest.tell("mark")
        flushed, said = self.honest.line().split()
        assert flushed == "True"
        path = self.tmp_path / f"{os.urandom(4).hex()}.frz"
        until(lambda: self._takes(path), "a snapshot, once that of the attacker is over")
        with open_snapshot(path) as opened:
            honest = next(p for p in opened.processes if p.service == "honest")
            every = validate(opened)
            errors = [str(finding)[:1000] for finding in every if finding.level is Level.ERROR]
            assert errors == [], errors
            found = [str(finding) for finding in every if honest.name in str(finding)]
            numbers = [cast(int, event.attributes["number"]) for event in opened.events if event.name == "honest"]
            lost = honest.ledger.late + honest.ledger.missing
        path.unlink()
        assert numbers == sorted(set(numbers))
        absent = max(int(said), numbers[-1] + 1) - len(numbers)
        before, self.seen = self.seen, (absent, lost)
        assert self.seen == before, (before, self.seen, found)
        # a snapshot just after a cut says that it had to do without an answer
        assert found == [] or self.was_cut(), found
        assert self.look() <= BOUND_BYTES
        peak_bytes, self.peak_bytes = self.peak_bytes, 0
        assert peak_bytes <= BOUND_BYTES + SLACK_BYTES

    def _takes(self, path: Path) -> bool:
        """False while another snapshot is made."""
        try:
            with path.open("wb") as file, self.client() as client:
                client.snapshot(file)
        except ControlError as error:
            if error.code is not ControlCode.SNAPSHOT_ACTIVE:
                raise
            return False
        return True

    def was_cut(self) -> bool:
        """All its connections have been closed, by its own guard."""
        return any("all connections were closed" in error for error in self.status().errors)

    def _rests(self) -> bool:
        began, used = time.monotonic(), self.recorder.cpu_s()
        until(lambda: time.monotonic() - began > _IDLE_S, "the end of the measurement")
        return self.recorder.cpu_s() - used < _IDLE_S / 2


@contextlib.contextmanager
def attacked(tmp_path: Path, scheme: str, *arguments: str) -> Iterator[Attacked]:
    """``scheme``: ipc or tcp. At its end the recorder has said nothing but when it closed all connections."""
    with (
        tempfile.TemporaryDirectory(prefix="fz") as directory,
        recorder_process(directory if scheme == "ipc" else "tcp", "--min-age", "600s", *arguments) as recorder,
    ):
        # one directory for both, also where the addresses say nothing of it
        honest = Program(
            tmp_path / "honest.py",
            HONEST,
            FRZMQ_RECORDER=recorder.address,
            FRZMQ_RUNTIME_DIR=directory,
            FRZMQ_SERVICE="honest",
        )
        try:
            honest.tell("mark")
            assert honest.line().startswith("True ")
            yield Attacked(recorder, parse_address(recorder.address), honest, tmp_path)
            honest.tell("end")
            honest.end()
        finally:
            if honest.process.poll() is None:
                honest.process.kill()
                honest.process.communicate()
        code, said = recorder.end()
        assert code == 0
        assert [line for line in said.splitlines() if not _CUT.fullmatch(line)] == []
