"""A recorder that Prometheus asks."""

from __future__ import annotations

import select
import urllib.request
from pathlib import Path

from support.raw_tracer import RawTracer
from support.recorder_process import recorder_process


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
