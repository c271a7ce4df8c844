"""The answers that libzmq asks of its program for each CURVE handshake: ZAP, https://rfc.zeromq.org/spec/27/, version 1.0.

Without them CURVE takes any client that knows the server's key.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_CURVE_KEY_BYTES: Final = 32


class Domain(Enum):
    """Sockets that are for the same peers; the values are ZAP's domains."""

    RECORD = "frzmq.record"
    """The data socket and the link."""
    CONTROL = "frzmq.control"


_DOMAINS: Final = {domain.value.encode(): domain for domain in Domain}


def zap_reply(request: list[bytes], admit: Callable[[Domain, bytes], str]) -> list[bytes]:
    """``admit(domain, key)``: the user id that messages of this client's public key (32 bytes) carry from then on; "": it is refused."""
    version, request_id, name = (*request, b"", b"", b"")[:3]
    domain = _DOMAINS.get(name)
    curve = len(request) == 7 and request[5] == b"CURVE" and len(request[6]) == _CURVE_KEY_BYTES
    if version != _VERSION or domain is None or not curve:
        return [_VERSION, request_id, b"500", b"wanted a request for CURVE", b"", b""]
    user = admit(domain, request[6])
    if not user:
        # a client is told of 400, which says that it is of no use to try again, and not of 300
        return [_VERSION, request_id, b"400", b"this key is not admitted", b"", b""]
    return [_VERSION, request_id, b"200", b"", user.encode(), b""]
