"""What the demo's services have in common: how they serve, end, and ask each other."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import frzmq

if TYPE_CHECKING:
    from flask import Flask


def serve_flask(app: Flask) -> None:
    """On a port of the system's choice, which is printed, until it is terminated."""
    import logging

    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    end_with_parent()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


def end_with_parent() -> None:
    """Standard input is a pipe that whoever started this service holds open: also a kill -9 of that closes it."""

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def get(port: int, path: str) -> Any:
    """Asks another service, which continues the trace."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers: dict[str, str] = {}
        frzmq.inject(headers)
        connection.request("GET", path, headers=headers)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
