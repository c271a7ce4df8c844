"""A program: ``frzmq`` whose recorder writes down what it acknowledges, before it does. ``python watched_recorder.py LOG recorder ...``

A line for each acknowledgement, of JSON: pid, and by writer the index behind the last of its records that are stored. What is written is in
the file whatever happens to the process.
"""

from __future__ import annotations

import json
import os
import sys

from frzmq.cli import main
from frzmq.recorder.machine import RecorderMachine
from frzmq.recorder.tracers import Tracer


def watch(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    acknowledge = RecorderMachine._acknowledge

    def watched(machine: RecorderMachine, tracer: Tracer) -> None:
        stored = {writer: ranges.end for writer, ranges in tracer.stream.stored_records().items()}
        os.write(log, json.dumps([tracer.hello.pid, stored]).encode() + b"\n")
        acknowledge(machine, tracer)

    RecorderMachine._acknowledge = watched  # type: ignore[method-assign, assignment]  # to be watched is all that it is for


if __name__ == "__main__":
    watch(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
