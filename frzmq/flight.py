"""`FlightRecorder`: Go's flight recorder for a Python program and every child that it starts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from frzmq.config import RecorderConfig, TracerConfig
from frzmq.embedded import EmbeddedRecorder
from frzmq.errors import ControlCode, ControlError, FrzmqError, SnapshotActiveError, SnapshotWriteError, StateError
from frzmq.tracer import runtime

if TYPE_CHECKING:
    from frzmq.control.client import ControlClient

_INHERITED = ("FRZMQ_RECORDER", "FRZMQ_SERVICE", "FRZMQ_REDACT")


class FlightRecorder:
    """Keeps the last seconds of this process and of its children, to be written out when something goes wrong.

    ``min_age``: seconds that are kept at the least, if ``max_bytes`` allows it: ``max_bytes`` wins. ``recorder``: the address of a running
    recorder to join (``ipc:///directory`` or ``tcp://host:port``); without one, and without ``FRZMQ_RECORDER`` in the environment,
    it starts an embedded recorder. The other arguments are those of `TracerConfig`.

    While it is on, children find the recorder by ``FRZMQ_RECORDER`` in their environment. A program has one at a time.
    """

    def __init__(
        self,
        min_age: float = 60.0,
        max_bytes: int = 64 << 20,
        *,
        service: str | None = None,
        recorder: str | None = None,
        **options: Any,
    ) -> None:
        environment = TracerConfig.from_env(os.environ)
        changes: dict[str, Any] = {"min_age_s": min_age, "max_bytes": max_bytes, **options}
        if service is not None:
            changes["service"] = service
        if recorder is not None:
            changes["recorder"] = recorder
        self._tracer = environment.replace(**changes)
        self._recorder = RecorderConfig(min_age_ns=round(min_age * 1e9), max_bytes=max_bytes, mode="embedded")
        self._lock = threading.Lock()
        self._embedded: EmbeddedRecorder | None = None
        self._address: str | None = None
        self._environ: dict[str, str | None] = {}

    @property
    def enabled(self) -> bool:
        """True between `start` and `stop`."""
        return self._address is not None

    @property
    def address(self) -> str | None:
        """Of the recorder that is used, while on."""
        return self._address

    def start(self) -> None:
        """Begins to record. Raises StateError when this or another FlightRecorder of the process is on already."""
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
            self._address = address
            self._share_environment(address)
            _current = self

    def stop(self) -> FrzmqError | None:
        """Ships what is recorded, waits for a running snapshot, ends an embedded recorder. Returns the first error that stopped the
        recording before, if any. Raises StateError when off."""
        global _current
        with self._lock, _current_lock:
            if self._address is None:
                raise StateError("stop: wanted a flight recorder that is on, got one that is off")
            _current = None
            self._address = None
            self._restore_environment()
            if not self._tracer.enabled:
                return None
            error = runtime.stop()
            self._close_embedded()
            return StateError(error) if error else None

    def flush(self, timeout: float = 5.0) -> bool:
        """When it returns True, everything that this process recorded before is in the ring. False: not within ``timeout`` seconds."""
        self._need_on("flush")
        return not self._tracer.enabled or runtime.flush(timeout)

    def write_to(self, file: BinaryIO, *, reason: str = "", last: float = 0.0) -> int:
        """Writes a snapshot of all processes (``last``: of the last so many seconds only) and returns its size in bytes.

        Raises StateError when off, SnapshotActiveError while another one is being made, SnapshotWriteError when ``file`` fails.
        """
        self._need_on("write_to")
        written = 0

        def write(data: bytes) -> None:
            nonlocal written
            try:
                file.write(data)
            except Exception as error:
                raise SnapshotWriteError(
                    f"write_to: the file failed after {written} bytes: {error}", written
                ) from error
            written += len(data)

        with self._client() as client:
            try:
                client.snapshot(write, reason=reason, last_ns=round(last * 1e9))
            except ControlError as error:
                if error.code is ControlCode.SNAPSHOT_ACTIVE:
                    raise SnapshotActiveError(str(error)) from None
                raise
        return written

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.enabled:
            self.stop()

    def _need_on(self, what: str) -> None:
        if self._address is None:
            raise StateError(f"{what}: wanted a flight recorder that is on, got one that is off")

    def _client(self) -> ControlClient:
        from frzmq.control.client import ControlClient

        if not self._address:
            raise StateError("wanted a recorder, got none: frzmq is disabled by FRZMQ_DISABLE")
        return ControlClient(self._address)

    def _close_embedded(self) -> None:
        if self._embedded is not None:
            self._embedded.close()
            self._embedded = None

    def _share_environment(self, address: str) -> None:
        values = {
            "FRZMQ_RECORDER": address,
            "FRZMQ_SERVICE": self._tracer.service,
            "FRZMQ_REDACT": ",".join(self._tracer.redact),
        }
        for name in _INHERITED:
            self._environ[name] = os.environ.get(name)
            if values[name]:
                os.environ[name] = values[name]

    def _restore_environment(self) -> None:
        for name, value in self._environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environ = {}


_current: FlightRecorder | None = None
_current_lock = threading.Lock()


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

    Raises StateError when this process does not record, FileExistsError, ControlError.
    """
    from frzmq.control.client import ControlClient

    address = runtime.address()
    if address is None:
        raise StateError("snapshot: wanted a process that records, got one that is off")
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with (
            open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            ControlClient(address) as client,
        ):
            size_bytes = client.snapshot(file, reason=reason, last_ns=round(last * 1e9)).size_bytes
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
        return size_bytes
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _after_fork_in_child() -> None:
    """The recorder stays the parent's; this process goes on recording into it by `runtime`."""
    global _current_lock
    _current_lock = threading.Lock()
    if _current is not None:
        _current._lock = threading.Lock()  # the lock's holder does not exist here
        if _current._embedded is not None:
            _current._embedded.forget()


def _at_exit() -> None:
    if _current is not None and _current.enabled:
        _current.stop()


def _register() -> None:
    import atexit

    register_at_fork: Callable[..., None] | None = getattr(os, "register_at_fork", None)
    if register_at_fork is not None:
        register_at_fork(after_in_child=_after_fork_in_child)
    atexit.register(_at_exit)


_register()
