"""A recorder that Prometheus asks."""

from __future__ import annotations

import select
import threading
import urllib.request
from pathlib import Path

import pytest
from support.raw_tracer import RawTracer
from support.recorder_process import recorder_process, start

from frzmq.config import RecorderConfig
from frzmq.recorder.worker import Worker
from frzmq.transport.addresses import directory_endpoints
from frzmq.transport.sockets import RecorderSockets


def test_recorder_with_metrics_is_scraped_while_it_serves(runtime_directory: Path) -> None:
    with recorder_process(f"ipc://{runtime_directory}", "--metrics", "127.0.0.1:0") as recorder:
        said = recorder.process.stderr
        assert said is not None
        assert select.select([said], [], [], 20)[0]
        port = int(said.readline().split()[-1])
        tracer = RawTracer(recorder.address)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        finally:
            tracer.close()
    assert 'frzmq_processes{service="raw",state="live"} 1.0' in text
    assert "frzmq_faults_total 0.0" in text
    assert "frzmq_up 1.0" in text


def test_worker_whose_loop_does_not_turn_gives_no_status_and_later_finds_no_heap_of_questions(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = str(tmp_path_factory.mktemp("r"))
    sockets = RecorderSockets(directory_endpoints(directory))
    worker = Worker(RecorderConfig(), sockets, directory=directory)
    try:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                worker.status(0.01)
        worker.turn()
        assert worker.faults == 0
        found: list[str] = []
        asking = threading.Thread(target=lambda: found.append(worker.status(20.0).state), daemon=True)
        asking.start()
        while asking.is_alive():
            worker.turn()
        assert found == ["on"]
    finally:
        worker.close()
        sockets.close(0)


def test_recorder_with_metrics_beyond_this_host_is_refused_in_one_line(runtime_directory: Path) -> None:
    refused = start(f"ipc://{runtime_directory}", "--metrics", "0.0.0.0:0")
    out, said = refused.communicate(timeout=20)
    assert (refused.returncode, out, said.count(b"\n")) == (2, b"", 1)
    assert b"--metrics: wanted a loopback address, got 0.0.0.0:0" in said
