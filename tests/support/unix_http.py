"""HTTP over a unix socket: a server whose address nobody else can have."""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path

DEADLINE_S = 20.0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(self._path)


def get(path: Path, target: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in small letters) and body, once the server listens."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        connection = UnixConnection(path)
        try:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline, f"nobody listens at {path}"
            time.sleep(0.02)
        finally:
            connection.close()
