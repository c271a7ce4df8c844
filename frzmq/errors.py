"""All errors that frzmq raises::

    FrzmqError
    ├── WireError                   the peer's bytes are wrong
    │   └── SnapshotError           a snapshot file's bytes are
    ├── StateError                  our caller is wrong: this cannot be done now
    │   ├── ConfigError             or not with this configuration
    │   └── SnapshotActiveError     another snapshot is being made
    ├── SnapshotWriteError          the file that a snapshot went to failed: ``.written_bytes``
    └── ControlError                the recorder said no, or nothing: ``.code``

A message says what was wanted, what was got, and where.
"""

from __future__ import annotations

from enum import Enum


class FrzmqError(Exception):
    """The root: whatever frzmq raises on its own account is one."""


class WireError(FrzmqError):
    """A peer sent bytes that do not follow the protocol."""


class SnapshotError(WireError):
    """A file is no snapshot, or a damaged one."""


class StateError(FrzmqError):
    """A call that is wrong in the present state: start twice, stop twice, a snapshot while off."""


class ConfigError(StateError):
    """A configuration, an address or a directory that cannot be used."""


class SnapshotActiveError(StateError):
    """A snapshot was asked for while another one is being made."""


class SnapshotWriteError(FrzmqError):
    """The destination of a snapshot failed half-way; the recorder is unharmed. ``written_bytes``: what it had taken before."""

    def __init__(self, message: str, written_bytes: int) -> None:
        super().__init__(message, written_bytes)
        self.written_bytes = written_bytes

    def __str__(self) -> str:
        return str(self.args[0])


class ControlCode(Enum):
    """Why a control request failed. The values are what the wire carries."""

    UNREACHABLE = "unreachable"
    """Nobody listens at the address."""
    TIMEOUT = "timeout"
    """The deadline passed without a reply."""
    STATE = "state"
    """The request is wrong in the recorder's present state."""
    SNAPSHOT_ACTIVE = "snapshot_active"
    """Another snapshot is being made."""
    SNAPSHOT_FAILED = "snapshot_failed"
    """The snapshot could not be written or sent."""
    BAD_REQUEST = "bad_request"
    """The recorder could not read the request."""
    DENIED = "denied"
    """The recorder does not admit this key, or not for this request."""
    BUSY = "busy"
    """The recorder has as many requests of this kind at work as it takes."""
    RECORDING = "recording"
    """An error had stopped the recording of a tracer before."""
    STOPPED = "stopped"
    """The recorder is ending."""
    PROTOCOL = "protocol"
    """The reply could not be read, or was not one to this request."""
    INTERNAL = "internal"
    """A bug of the recorder."""


class ControlError(FrzmqError):
    """A control request failed; ``code`` says why."""

    def __init__(self, code: ControlCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])


def os_error_text(error: OSError) -> str:
    """What the system says, for people: with the file, where it names one."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what
