"""HTTP for the demo's services: just enough of the standard library's."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import frzmq

Handler = Callable[[str], object]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def serve(name: str, handle: Handler) -> None:
    """Serves ``GET /item`` on a port of the system's choice, which it prints, until it is terminated."""

    class RequestHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with frzmq.operation(f"{name} {self.path}", traceparent=self.headers.get("traceparent"), method="GET"):
                body = json.dumps(handle(self.path.strip("/"))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the recorder keeps what happened."""

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    server = _Server(("127.0.0.1", 0), RequestHandler)
    print(server.server_port, flush=True)
    server.serve_forever()


def _end_with_parent() -> None:
    """Standard input is a pipe that whoever started this service holds open: also a kill -9 of that closes it."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def get(port: int, item: str) -> object:
    """Asks another service, which continues the trace."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers: dict[str, str] = {}
        frzmq.inject(headers)
        connection.request("GET", f"/{item}", headers=headers)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
