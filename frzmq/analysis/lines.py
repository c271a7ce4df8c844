"""``python -m frzmq.analysis.lines SNAPSHOT TRACE``: the suppressed log lines of a trace, as the recorder asks for them.

A line of JSON each: ``[wall ns, process, level, logger, message]``, in the order of time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

from frzmq.reader.model import Log
from frzmq.reader.snapshot import Snapshot, open_snapshot


def lines_of(snapshot: Snapshot, trace: str) -> Iterator[Log]:
    mine = {operation.number for operation in snapshot.operations if operation.trace == trace}
    return (log for log in snapshot.logs if log.suppressed and log.operation in mine)


def main() -> None:
    # a process of the recorder's in the middle of an incident: the services come first
    os.nice(10)
    path, trace = sys.argv[1:]
    with open_snapshot(path) as snapshot:
        for log in lines_of(snapshot, trace):
            process = snapshot.processes[log.process].name
            row = [snapshot.wall_ns(log.time_ns), process, log.level, log.logger, log.message]
            sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
