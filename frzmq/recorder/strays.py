"""Tracers that are dead and of whom nobody has told: a recorder that was stopped, or kept waiting, for longer than they lived never got their hello.

It is in their lock files, beside the buffers that they left.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Container
from typing import Final

from frzmq.errors import WireError
from frzmq.recorder.liveness import is_free
from frzmq.wire.messages import Hello, decode_message

LOOK_NS: Final = 1_000_000_000
"""Between two looks at the directory."""
MAX_HELLO_BYTES: Final = 64 << 10
MAX_A_LOOK: Final = 64
_SUFFIX: Final = ".lock"


class Strays:
    """Of a runtime directory, which this recorder holds."""

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._met: set[bytes] = set()
        """Whoever has a file there and was known once: its end is told otherwise."""
        self.next_ns = 0
        """When it is time to look again."""

    def find(self, known: Container[bytes], now_ns: int) -> list[Hello]:
        """At most MAX_A_LOOK of them, each once. ``known``: uuids that the recorder has heard of. Raises OSError."""
        if self._directory is None:
            return []
        self.next_ns = now_ns + LOOK_NS
        there = {uuid for name in os.listdir(self._directory) if (uuid := _uuid_of(name))}
        self._met &= there
        self._met |= {uuid for uuid in there if uuid in known}
        found = []
        for uuid in there - self._met:
            hello = left_hello(os.path.join(self._directory, uuid.hex() + _SUFFIX), uuid)
            if hello is not None and hello.shared:
                self._met.add(uuid)
                found.append(hello)
                if len(found) == MAX_A_LOOK:
                    break
        return found


def _uuid_of(name: str) -> bytes:
    stem = name.removesuffix(_SUFFIX)
    with contextlib.suppress(ValueError):
        if stem != name and len(uuid := bytes.fromhex(stem)) == 16 and uuid.hex() == stem:
            return uuid
    return b""


def left_hello(path: str, uuid: bytes) -> Hello | None:
    """What tracer ``uuid`` wrote into its lock file; None: it lives, or has said nothing there that can be believed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not is_free(fd):
            return None
        found = decode_message(os.pread(fd, MAX_HELLO_BYTES, 0))
    except (OSError, WireError):
        return None
    finally:
        os.close(fd)
    return found if isinstance(found, Hello) and found.uuid == uuid else None
