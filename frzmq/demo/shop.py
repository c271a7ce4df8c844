"""Runs the shop under load. Nobody asks for a snapshot: the gateway's trigger leaves one when a checkout is slow."""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import frzmq
from frzmq.control.client import ControlClient
from frzmq.demo.http import get
from frzmq.demo.inventory import ITEMS
from frzmq.errors import StateError

CUSTOMERS = 3
START_TIMEOUT_S = 60.0
"""It imports Flask and the like."""
END_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    requests: int
    snapshot: Path | None
    """None: no checkout was slow."""


def run(directory: Path, seconds: float = 4.0) -> Outcome:
    """The snapshot goes to ``directory``."""
    took_ms: list[float] = []
    before = {*directory.glob("frzmq-*.frz")}
    with (
        frzmq.FlightRecorder(service="customers", snapshots=str(directory)) as flight,
        tempfile.TemporaryDirectory() as scratch,
        _shop(f"{scratch}/stock.db") as port,
    ):
        deadline = time.monotonic() + seconds
        customers = [
            threading.Thread(
                target=_buy, args=(port, ITEMS[n % len(ITEMS)], deadline, took_ms), name=f"customer {n}", daemon=True
            )
            for n in range(CUSTOMERS)
        ]
        for customer in customers:
            customer.start()
        for customer in customers:
            customer.join(seconds + 60)
        if flight.address:
            _await_snapshot(flight.address)
    left = {*directory.glob("frzmq-*.frz")} - before
    return Outcome(len(took_ms), min(left, default=None))


def _await_snapshot(address: str) -> None:
    """One that is being written has its name a moment later."""
    with ControlClient(address) as client:
        deadline = time.monotonic() + END_TIMEOUT_S
        while (status := client.status()).reports and not status.stored and time.monotonic() < deadline:
            time.sleep(0.05)


def _buy(port: int, item: str, deadline: float, took_ms: list[float]) -> None:
    while time.monotonic() < deadline:
        begin = time.monotonic()
        with frzmq.operation("buy", item=item):
            get(port, f"/checkout/{item}")
        took_ms.append((time.monotonic() - begin) * 1e3)
        time.sleep(0.02)


@contextmanager
def _shop(database: str) -> Iterator[int]:
    """The three services; yields the gateway's port."""
    services: list[subprocess.Popen[str]] = []
    try:
        inventory = _launch(services, "inventory", database)
        orders = _launch(services, "orders", str(inventory), database)
        yield _launch(services, "gateway", str(orders))
    finally:
        for service in reversed(services):
            service.terminate()
        for service in services:
            try:
                service.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                service.kill()
                with suppress(subprocess.TimeoutExpired):
                    service.wait(END_TIMEOUT_S)
            for stream in (service.stdin, service.stdout):
                if stream:
                    stream.close()


def _launch(services: list[subprocess.Popen[str]], name: str, *arguments: str) -> int:
    service = subprocess.Popen(
        [sys.executable, "-m", f"frzmq.demo.{name}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    services.append(service)
    assert service.stdout is not None
    if not select.select([service.stdout], [], [], START_TIMEOUT_S)[0]:
        raise StateError(f"demo: {name} did not serve within {START_TIMEOUT_S:g} s")
    return int(service.stdout.readline())
