"""`FlightRecorder`: Go's flight recorder for a Python program and every child that it starts."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

from frzmq.config import TracerConfig
from frzmq.embedded import EmbeddedRecorder
from frzmq.errors import ControlCode, ControlError, FrzmqError, SnapshotActiveError, SnapshotWriteError, StateError
from frzmq.tracer import autostart, runtime

if TYPE_CHECKING:
    from frzmq.transport.keys import ClientKey

JOIN_S: Final = 2.0
"""For this process to be known to a recorder that runs."""
SHIP_S: Final = 5.0
"""For the rest, when asked to stop."""
SNAPSHOT_S: Final = 60.0
"""`FlightRecorder.stop` waits no longer for a snapshot that is being written."""


class FlightRecorder:
    """Keeps the last seconds of this process and of its children, to be written out when something goes wrong.

    ``min_age``: seconds that are kept at the least, if ``max_bytes`` allows it: ``max_bytes`` wins; None, both: ``FRZMQ_MIN_AGE`` and ``FRZMQ_MAX_BYTES``, else
    60 s and 64 MiB; 0 keeps one generation of each process. ``recorder``: the address of a running recorder to join (``ipc:///directory`` or
    ``tcp://host:port``); without one, and without ``FRZMQ_RECORDER`` in the environment, it starts an embedded recorder. ``triggers``: as in `frzmq.trigger`, one or
    several. The other arguments are those of `TracerConfig`, ``snapshots`` among them: the directory in which an embedded recorder leaves what triggers ask for.

    While it is on, children find the recorder by ``FRZMQ_RECORDER`` in their environment. A program has one at a time.
    """

    def __init__(
        self,
        min_age: float | None = None,
        max_bytes: int | None = None,
        *,
        service: str | None = None,
        recorder: str | None = None,
        triggers: str | Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        given = {"min_age_s": min_age, "max_bytes": max_bytes, "service": service, "recorder": recorder}
        changes = {name: value for name, value in given.items() if value is not None}
        if triggers is not None:
            changes["triggers"] = triggers if isinstance(triggers, str) else "; ".join(triggers)
        self._tracer = TracerConfig.from_env(os.environ).replace(**changes, **options)
        self._recorder = self._tracer.embedded()
        # the same thread may come again, in a signal handler
        self._lock = threading.RLock()
        self._embedded: EmbeddedRecorder | None = None
        self._address: str | None = None
        self._environ: dict[str, str | None] = {}
        self._writing = 0
        self._written = threading.Condition(self._lock)

    @property
    def enabled(self) -> bool:
        """True between `start` and `stop`."""
        return self._address is not None

    @property
    def address(self) -> str | None:
        """Of the recorder that is used, while on; "" when frzmq is disabled."""
        return self._address

    def start(self) -> None:
        """Begins to record. Raises StateError: this or another FlightRecorder of the process is on already, or the embedded recorder does not start."""
        global _current
        with self._lock, _current_lock:
            if self._address is not None or _current is not None:
                raise StateError(
                    "start: wanted a flight recorder that is off, got one that is on: a program has one at a time"
                )
            if not self._tracer.enabled:
                self._address = ""
                _current = self
                return
            address = self._tracer.recorder
            if address is None:
                self._embedded = EmbeddedRecorder(self._recorder, self._tracer.runtime_dir)
                address = self._embedded.address
            try:
                runtime.start(self._tracer.replace(recorder=address))
            except BaseException:
                self._close_embedded()
                raise
            if self._embedded is not None:
                # it serves: from here on every snapshot knows of this process
                runtime.flush(JOIN_S)
            self._address = address
            self._share_environment(address)
            _current = self

    def stop(self) -> FrzmqError | None:
        """Ships what is recorded, waits for a running snapshot, ends an embedded recorder. Returns the first error that stopped the
        recording before, if any. Raises StateError when off."""
        global _current
        with self._lock, _current_lock:
            address = self._address
            if address is None:
                raise StateError("stop: wanted a flight recorder that is on, got one that is off")
            if _current is self:
                _current = None
            self._address = None
            embedded, self._embedded = self._embedded, None
            self._restore_environment()
        # without the locks from here on: a signal handler may look at this recorder
        with self._written:
            self._written.wait_for(lambda: self._writing == 0, SNAPSHOT_S)
        if not self._tracer.enabled:
            return None
        error = runtime.stop(SHIP_S)
        if embedded is not None:
            error = _first_error(embedded, address) or error
            embedded.close()
        return StateError(error) if error else None

    def flush(self, timeout: float = 5.0) -> bool:
        """When it returns True, everything that this process recorded before is in the ring. False: not within ``timeout`` seconds."""
        self._need_on("flush")
        return runtime.flush(timeout)

    def write_to(self, file: BinaryIO, *, reason: str = "", last: float = 0.0) -> int:
        """Writes a snapshot of all processes (``last``: of the last so many seconds only) and returns its size in bytes.

        Raises StateError when off, SnapshotActiveError while another one is being made, SnapshotWriteError when ``file`` fails, ControlError.
        """
        with self._lock:
            address = self._need_on("write_to")
            self._writing += 1
        try:
            return _write_snapshot(address, runtime.key() or self._tracer.key, _Counted(file), reason, last)
        finally:
            with self._lock:
                self._writing -= 1
                self._written.notify_all()

    def __enter__(self) -> Self:
        """On from here, if it is not yet: ``with frzmq.start(...)`` is as good as ``with FlightRecorder(...)``."""
        if not self.enabled:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.enabled:
            self.stop()

    def _need_on(self, what: str) -> str:
        if self._address is None:
            raise StateError(f"{what}: wanted a flight recorder that is on, got one that is off")
        return self._address

    def _close_embedded(self) -> None:
        if self._embedded is not None:
            self._embedded.close()
            self._embedded = None

    def _share_environment(self, address: str) -> None:
        values = {
            "FRZMQ_RECORDER": address,
            "FRZMQ_KEY": os.path.abspath(self._tracer.key) if self._tracer.key else "",
            "FRZMQ_SERVICE": self._tracer.service,
            "FRZMQ_REDACT": ",".join(self._tracer.redact),
            "FRZMQ_LOGGING": _flag(self._tracer.logging),
            "FRZMQ_EXCEPTIONS": _flag(self._tracer.exceptions),
            "FRZMQ_THREADS": _flag(self._tracer.threads),
            "FRZMQ_DEBUG_ON_FAILURE": _flag(self._tracer.debug_on_failure),
            **self._tracer.calls_environment(),
            "FRZMQ_TRIGGERS": self._tracer.triggers,
            "FRZMQ_BUFFER_BYTES": str(self._tracer.buffer_bytes),
        }
        for name, value in values.items():
            self._environ[name] = os.environ.get(name)
            if value:
                os.environ[name] = value

    def _restore_environment(self) -> None:
        for name, value in self._environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environ = {}

    def _after_fork_in_child(self) -> None:
        """The recorder stays the parent's; this process goes on recording into it."""
        self._lock = threading.RLock()  # the lock's holder does not exist here
        self._written = threading.Condition(self._lock)
        self._writing = 0
        if self._embedded is not None:
            self._embedded.forget()


def _first_error(embedded: EmbeddedRecorder, address: str) -> str:
    """What a recorder of this process's own says at its end."""
    from frzmq.control.client import ControlClient

    if not embedded.mine:
        return ""
    try:
        with ControlClient(address) as client:
            client.stop()
    except ControlError as error:
        return str(error) if error.code is ControlCode.RECORDING else ""
    return ""


def _flag(on: bool) -> str:
    return "1" if on else "0"


class _Counted:
    """The destination of a snapshot, what it has taken so far, and its own error told from all others."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.written_bytes = 0

    def __call__(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                taken = self._file.write(rest)
            except Exception as error:
                raise SnapshotWriteError(
                    f"write_to: the file failed after {self.written_bytes} bytes: {error}", self.written_bytes
                ) from error
            taken = len(rest) if taken is None else taken
            self.written_bytes += taken
            rest = rest[taken:]


def _write_snapshot(
    address: str, key: ClientKey | str | None, write: Callable[[bytes], object], reason: str, last_s: float
) -> int:
    """Asks the recorder at ``address``; returns the size in bytes."""
    from frzmq.control.client import ControlClient

    if not address:
        raise StateError("snapshot: wanted a recorder, got none: frzmq is disabled by FRZMQ_DISABLE")
    # a snapshot waits for the processes that the recorder knows of: now it knows of this one
    runtime.flush(JOIN_S)
    try:
        with ControlClient(address, key=key) as client:
            return client.snapshot(write, reason=reason, last_ns=round(last_s * 1e9)).size_bytes
    except ControlError as error:
        if error.code is ControlCode.SNAPSHOT_ACTIVE:
            raise SnapshotActiveError(str(error)) from None
        raise


_current: FlightRecorder | None = None
_current_lock = threading.RLock()


def start(service: str | None = None, recorder: str | None = None, **options: Any) -> FlightRecorder:
    """A started `FlightRecorder`: joins the recorder at the address ``recorder`` (or ``FRZMQ_RECORDER``), or embeds one."""
    flight = FlightRecorder(service=service, recorder=recorder, **options)
    flight.start()
    return flight


def flush(timeout: float = 5.0) -> bool:
    """When it returns True, everything that this process recorded before is in the ring; also True when nothing records."""
    return runtime.flush(timeout)


def snapshot(path: str | os.PathLike[str], *, reason: str = "", last: float = 0.0, overwrite: bool = False) -> int:
    """Writes a snapshot of all processes of this one's recorder to ``path`` (mode 0600) and returns its size in bytes.

    Raises StateError when this process does not record, SnapshotActiveError, FileExistsError, OSError, ControlError.
    """
    from frzmq.snapfile.writer import atomic_file

    autostart.begin()
    address = runtime.address()
    if address is None:
        raise StateError(f"snapshot: wanted a process that records, got one that is off{_why_off()}")
    with atomic_file(path, overwrite=overwrite) as file:
        return _write_snapshot(address, runtime.key(), file.write, reason, last)


def _why_off() -> str:
    if os.environ.get("FRZMQ_DISABLE"):
        return ": FRZMQ_DISABLE"
    return f": {autostart.problem}" if autostart.problem else ""


def _after_fork_in_child() -> None:
    global _current, _current_lock
    _current_lock = threading.RLock()
    # the child may start one of its own, with another service's name
    current, _current = _current, None
    if current is not None:
        current._after_fork_in_child()


def _at_exit() -> None:
    if _current is not None and _current.enabled:
        _current.stop()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
