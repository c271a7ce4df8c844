"""A web server for one browser on this host: a trace, and perhaps the files of a user interface.

It listens on 127.0.0.1, where every user of the host can connect, and where any site that the browser visits can send requests. So the path of the trace holds a
secret, a request must name the host as 127.0.0.1 (a site whose name was made to point here cannot), and a site may read what comes back only if it is the one
that is meant to. The pages of a local user interface are told to connect to nowhere but here.
"""

from __future__ import annotations

import io
import re
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import unquote

from frzmq.errors import ConfigError
from frzmq.httpserver import BoundedMixIn

HOST: Final = "127.0.0.1"
TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.1
END_S: Final = 2.0
POLICY: Final = "; ".join(
    (
        "default-src 'self' data: blob:",
        # Perfetto's page begins with a script of its own, and compiles queries and WebAssembly
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "connect-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
ANY_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Site:
    """What is served."""

    name: str
    """Of the trace, for people."""
    trace: bytes
    root: Path | None = None
    """The user interface's directory, resolved; None: there is none here, and ``reader`` reads the trace."""
    reader: str | None = None
    """The origin whose pages may read, beside ours."""
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def trace_path(self) -> str:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)[-100:]
        return f"/{self.secret}/{plain}.pftrace"

    def file(self, path: str) -> Path | None:
        """The file of the user interface that is meant by a URL's path, if it is one, and inside of the directory also behind its symbolic links."""
        if self.root is None:
            return None
        try:
            found = (self.root / (path.strip("/") or "index.html")).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        return found if found.is_relative_to(self.root) and found.is_file() else None


@contextmanager
def serving(site: Site, port: int = 0) -> Iterator[str]:
    """Serves it as long as the context lasts, and yields the URL of the server; port 0: a free one. Raises ConfigError when it cannot listen there."""
    try:
        server = _Server(site, port)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise ConfigError(f"view: cannot listen on port {port}: {reason}") from None
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), name="view", daemon=True)
    thread.start()
    try:
        yield f"http://{server.host}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(END_S)


class _Server(BoundedMixIn, HTTPServer):
    longest_s = 600.0

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        super().__init__((HOST, port), _Handler)
        self.host = f"{HOST}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet about a browser that goes away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
    server: _Server
    server_version = "frzmq"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.headers.get_all("Host") != [self.server.host]:
            self.send_error(HTTPStatus.FORBIDDEN, "Wrong host")
            return
        site, path = self.server.site, unquote(self.path.partition("?")[0])
        if secrets.compare_digest(path.encode("utf-8", "replace"), site.trace_path.encode()):
            self._send(io.BytesIO(site.trace), len(site.trace), ANY_TYPE)
        elif (found := site.file(path)) is not None:
            with found.open("rb") as file:
                self._send(file, found.stat().st_size, TYPES.get(found.suffix, ANY_TYPE))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, file: BinaryIO, size_bytes: int, type_: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()
        if self.command != "HEAD":
            shutil.copyfileobj(file, self.wfile)

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        if (reader := self.server.site.reader) is not None:
            self.send_header("Access-Control-Allow-Origin", reader)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the terminal is the command's."""
