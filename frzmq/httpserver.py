"""An HTTP server of the standard library that strangers cannot make large: so many connections at a time, each for so long."""

from __future__ import annotations

import socket
import threading
import time
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, ClassVar


class BoundedMixIn(ThreadingMixIn):
    """Before a `TCPServer`: a thread for each connection. One too many ends the oldest; one that takes too long is ended at the server's next turn."""

    daemon_threads = True
    request_queue_size = 128
    """With the 5 that are usual a few idle peers make the others wait for a second."""
    max_connections: ClassVar[int] = 32
    longest_s: ClassVar[float] = 10.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._begun: dict[socket.socket, float] = {}
        """Those that are open, the oldest first."""
        self._lock = threading.Lock()
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._begun[request] = time.monotonic()
            over = list(self._begun)[: -self.max_connections]
        self._end(over)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._begun.pop(request, None)
        assert isinstance(self, TCPServer)
        TCPServer.shutdown_request(self, request)

    def service_actions(self) -> None:
        until = time.monotonic() - self.longest_s
        with self._lock:
            late = [request for request, begun in self._begun.items() if begun <= until]
        self._end(late)

    def _end(self, requests: list[socket.socket]) -> None:
        """Its thread sees that nothing more comes, and closes it."""
        for request in requests:
            with self._lock:
                if self._begun.pop(request, None) is None:
                    continue
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer was faster
