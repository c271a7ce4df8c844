"""One address names a recorder; its three sockets follow from it.

======================  ===========================================================
``/run/user/1000/fr``   a runtime directory: ``ipc://`` sockets data, link, control in it
``ipc:///run/...``      the same
``tcp://host:port``     data on ``port``, link on ``port + 1``, control on ``port + 2``
======================  ===========================================================
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Final

from frzmq.errors import ConfigError

MAX_IPC_PATH_BYTES: Final = 107
"""What ``sockaddr_un`` holds, without the closing zero."""
_LONGEST_NAME: Final = "control"
LAST_BASE_PORT: Final = 65535 - 2


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a recorder listens, as zmq endpoints."""

    data: str
    link: str
    control: str
    directory: str | None = None
    """The runtime directory, absolute; None for tcp: no shared buffers, no lock files."""

    @property
    def address(self) -> str:
        """The one address that `parse_address` makes these of."""
        return self.data if self.directory is None else f"ipc://{self.directory}"


def parse_address(text: str) -> Endpoints:
    """The endpoints that ``text`` names. Raises ConfigError: another scheme, no port, or a path too long for a socket."""
    if text.startswith("tcp://"):
        return _tcp(text)
    path = text.removeprefix("ipc://")
    if not path or "://" in path or "\0" in path or path.startswith("@"):
        raise ConfigError(f"address: wanted a directory, ipc://DIRECTORY or tcp://HOST:PORT, got {text!r}")
    return directory_endpoints(path)


def directory_endpoints(directory: str) -> Endpoints:
    """The endpoints of the recorder of a runtime directory. Raises ConfigError when the path is too long."""
    directory = os.path.abspath(directory)
    size_bytes = len(os.fsencode(os.path.join(directory, _LONGEST_NAME)))
    if size_bytes > MAX_IPC_PATH_BYTES:
        raise ConfigError(
            f"address: wanted socket paths of at most {MAX_IPC_PATH_BYTES} bytes, got {size_bytes} for "
            f"{os.path.join(directory, _LONGEST_NAME)}: choose a shorter directory"
        )
    data, link, control = (f"ipc://{directory.rstrip('/')}/{name}" for name in ("data", "link", "control"))
    return Endpoints(data, link, control, directory)


def _tcp(text: str) -> Endpoints:
    host, colon, port_text = text.removeprefix("tcp://").rpartition(":")
    port = int(port_text) if port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 else -1
    if not host or not colon or not 0 < port <= LAST_BASE_PORT:
        raise ConfigError(f"address: wanted tcp://HOST:PORT with a port in 1..{LAST_BASE_PORT}, got {text!r}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigError(f"address: wanted an IPv6 host in brackets, tcp://[HOST]:PORT, got {text!r}")
    return Endpoints(*(f"tcp://{host}:{port + step}" for step in range(3)))


def is_loopback(endpoints: Endpoints) -> bool:
    """True when nothing outside this host can reach the endpoints. Names other than ``localhost`` are not looked up."""
    if endpoints.directory is not None:
        return True
    return is_loopback_host(endpoints.data.removeprefix("tcp://").rpartition(":")[0].strip("[]"))


def is_loopback_host(host: str) -> bool:
    """The same of a name or address without brackets."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
