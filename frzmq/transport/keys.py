"""Key files: what proves, on tcp, who a peer is. CURVE's keys are 32 bytes, as 40 characters of Z85.

A client's file, ``NAME.key``, is TOML: ``name``, ``public`` and ``secret``, and ``recorder``, the public key of the one recorder that it is for: so the client
knows the recorder as well. A file with a secret belongs to this user or to root, and nobody else may read it: or it is refused.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from typing import Any, Final

from frzmq.errors import ConfigError
from frzmq.wire.codec import shown

MAX_KEY_BYTES: Final = 4096
"""Of a file with one key."""
_KEY: Final = re.compile(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class KeyPair:
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public!r}, ...)"


@dataclass(frozen=True, slots=True)
class ClientKey:
    """What a tracer or a control client proves itself with, and the ``recorder``'s public key."""

    name: str
    pair: KeyPair
    recorder: str


def read_client_key(path: str) -> ClientKey:
    """Raises ConfigError: no such file, not one of a client, or others can read it."""
    values = read_toml(path, MAX_KEY_BYTES, secret=True)
    return ClientKey(name_of(values, path), pair_of(values, path), key_of(values, "recorder", path))


def format_client_key(key: ClientKey) -> str:
    """What `read_client_key` reads."""
    return f'name = "{key.name}"\npublic = "{key.pair.public}"\nsecret = "{key.pair.secret}"\nrecorder = "{key.recorder}"\n'


def read_toml(path: str, max_bytes: int, *, secret: bool) -> dict[str, Any]:
    """The values of a file of at most so many bytes; ``secret``: one that nobody else may read. Raises ConfigError."""
    try:
        with open(path, "rb", opener=_open_now) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{path}: wanted a key file, got something else")
            if secret:
                _check_private(path, status)
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this key file: {error.strerror}") from None
    if len(data) > max_bytes:
        raise ConfigError(f"{path}: wanted a key file of at most {max_bytes} bytes, got more")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: wanted a key file, in TOML: {error}") from None


def _open_now(path: str, flags: int) -> int:
    """A fifo would keep whoever opens it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_private(path: str, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path}: wanted a file of user {os.geteuid()}, got one of user {status.st_uid}")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(
            f"{path}: wanted mode 0600, got {mode:04o}: others can read the secret in it (chmod 600, and a new key if they may have)"
        )


def name_of(values: dict[str, Any], where: str) -> str:
    """Of a client: what `check_name` takes. Raises ConfigError."""
    return check_name(values.get("name"), where)


def check_name(name: object, where: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: wanted a name of 1 to 64 letters, digits, '.', '_' and '-', got {shown(name)}")
    return name


def pair_of(values: dict[str, Any], where: str) -> KeyPair:
    return KeyPair(key_of(values, "public", where), key_of(values, "secret", where))


def key_of(values: dict[str, Any], name: str, where: str) -> str:
    key = values.get(name)
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        # what stands there may be most of a secret
        raise ConfigError(f"{where}: {name}: wanted a key of 40 characters (Z85), got another value or none")
    return key
