"""This process's one tracer: joins the api, the buffer and the agent, and sees to forks and to the end.

Nothing begins at import. `configure` only arms the api: the first record makes the buffer and starts the agent; `start` does so at once. The agent is
parked for the time of a fork; the first record of the child makes a tracer of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from frzmq.clock import monotonic_ns
from frzmq.config import TracerConfig, ensure_private_dir
from frzmq.errors import FrzmqError, StateError, os_error_text
from frzmq.tracer import api, calls, hub, instrument, redact
from frzmq.tracer.agent import Agent
from frzmq.tracer.answers import warn_not_recorded
from frzmq.tracer.attributes import pack_text
from frzmq.tracer.buffer import make_buffer
from frzmq.tracer.identity import new_identity
from frzmq.tracer.instrument import ends, suppressed
from frzmq.tracer.instrument.process import record_process_end
from frzmq.tracer.telling import AgentStats
from frzmq.tracer.watch import watch
from frzmq.transport.addresses import parse_address
from frzmq.transport.keys import ClientKey, read_client_key
from frzmq.transport.outbound import TracerSockets
from frzmq.transport.sockets import NO_DESCRIPTORS
from frzmq.triggers import parse_triggers

if TYPE_CHECKING:
    from frzmq.tracer.buffer import Buffer

__all__ = ["address", "configure", "flush", "recording", "start", "stats", "stop"]

END_S: Final = 0.7
"""For shipping the rest and saying goodbye; what comes on top keeps the end below 1 s."""
PARK_S: Final = 1.0
RETRY_NS: Final = 10**9
LOCK_S: Final = 1.0
"""A record waits no longer for another thread that is starting the tracer."""
_HELPERS: Final = ("from multiprocessing.resource_tracker import", "from multiprocessing.forkserver import")


class _Armed:
    """In the place of a buffer: the next record calls ``begin``, which puts the real one there."""

    def __init__(self, begin: Callable[[], Buffer | None]) -> None:
        self.local: Any = threading.local()
        """Without a writer: each thread's record goes the slow way, which asks for `writer`."""
        self.errors = 0
        self._begin = begin

    def writer(self) -> Any:
        buffer = self._begin()
        return buffer.writer() if buffer is not None else None

    def intern(self, text: str) -> bytes:
        """Of the buffer that took this one's place."""
        buffer = _runtime.buffer
        return buffer.intern(text) if buffer is not None else pack_text(text)

    def slow_spans(self, slow: bool) -> None:
        """The real one is told when it comes."""


class _Runtime:
    """The state of this process. ``lock`` guards all of it but what the api reads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.config: TracerConfig | None = None
        self.key: ClientKey | None = None
        """Read once: a child that has another user by then may not read it."""
        self.agent: Agent | None = None
        self.buffer: Buffer | None = None
        self.error = ""
        """Why the recording ended, when it was not asked to."""
        self.made_directory: str | None = None
        """That of the recorder, which is not there, or no more."""
        self.forked = False
        self.automatic = False
        """It records because the environment says so, or as the child of a process that does: an explicit start may take its place."""
        self.beginning = False
        self.retry_ns = 0
        """Before that it is not begun again: there were no file descriptors."""
        self.ended = False

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """False: another thread has it, for too long."""
        got = self.lock.acquire(timeout=LOCK_S)
        try:
            yield got
        finally:
            if got:
                self.lock.release()

    # --- on and off

    def configure(self, config: TracerConfig | None) -> None:
        """None: nothing is recorded."""
        self.config = config
        self.key = None
        self.error = ""
        if config is None:
            api.uninstall()
            instrument.uninstall()
            suppressed.uninstall()
            ends.uninstall()
            watch.clear()
            calls.stop()
            return
        redact.configure(config.redact)
        watch.add(parse_triggers(config.triggers, "triggers"), lines=config.debug_on_failure)
        if config.debug_on_failure:
            suppressed.install()
        instrument.install(with_logging=config.logging, with_exceptions=config.exceptions, with_threads=config.threads)

    def arm(self) -> None:
        api.install(cast(Any, _Armed(self.begin)))

    def begin(self) -> Buffer | None:
        """From a record: the tracer is made, or its agent started again. None: this record, and where it is no use, none after it, is recorded."""
        if self.beginning or (self.retry_ns and monotonic_ns() < self.retry_ns):
            return None
        with self.locked() as got:
            if not got or self.beginning:
                return None
            self.beginning = True
            try:
                self._begin()
            except Exception as error:  # noqa: BLE001  # it is the program's thread: it must not see it
                self.error = f"{type(error).__name__}: {error}"
                self.discard()
                if isinstance(error, OSError) and error.errno in NO_DESCRIPTORS:
                    self.retry_ns = monotonic_ns() + RETRY_NS
                    self.arm()
                else:
                    warn_not_recorded(self.error)
            finally:
                self.beginning = False
            return self.buffer

    def _begin(self) -> None:
        if self.config is None or self.ended or sys.is_finalizing() or self._is_helper():
            api.uninstall()
            return
        if self.agent is None:
            self.make(self.config)
        elif self.buffer is not None:
            api.install(self.buffer)
        if self.agent is not None and not self.agent.start():
            # an interpreter that ends: what is recorded now the end ships
            self.ended = self.ended or sys.is_finalizing()

    def make(self, config: TracerConfig) -> None:
        """Raises FrzmqError: an address that is none, a key file that cannot be used, calls that cannot be recorded; OSError: no file descriptors."""
        assert config.recorder is not None
        calls.check(config)
        endpoints = parse_address(config.recorder)
        identity = new_identity(config.service)
        directory = endpoints.directory
        if directory is None:
            self.key = self.key or (read_client_key(config.key) if config.key is not None else None)
        else:
            missing = not os.path.lexists(directory)
            try:
                ensure_private_dir(directory)
                self.made_directory = directory if missing else None
            except FrzmqError:
                directory = None  # another user's, or none that can be made: private memory
        buffer = make_buffer(config.buffer_kind, identity.uuid, 1, directory, config.buffer_bytes)
        try:
            self.agent = Agent(
                identity,
                buffer,
                endpoints,
                on_stop=lambda reason: self.stopped(buffer, reason),
                on_resume=lambda: self.resumed(buffer),
                watch=watch,
                make_sockets=partial(TracerSockets, key=self.key),
            )
        except OSError:
            buffer.close()
            raise
        self.buffer = buffer
        watch.report, watch.want_lines = self.agent.report, self.agent.want_lines
        ends.install(_end_process)
        api.install(buffer)
        if config.calls:
            calls.start(config)

    def stopped(self, buffer: Buffer, reason: str) -> None:
        """By the agent's thread: without the lock, which `end` holds while it waits for that thread."""
        self.error = self.error or reason
        if self.buffer is buffer:
            api.uninstall()

    def resumed(self, buffer: Buffer) -> None:
        if self.buffer is buffer:
            api.install(buffer)

    def _is_helper(self) -> bool:
        """The main process of multiprocessing's resource tracker or fork server, which run nothing of the program."""
        if self.forked or not any(start in word for word in sys.orig_argv for start in _HELPERS):
            return False
        server = sys.modules.get("multiprocessing.forkserver")
        return server is None or server._forkserver._forkserver_alive_fd is None

    def end(self, timeout_s: float) -> None:
        """Ships everything and says goodbye. What could not be shipped stays in the shared file, for the recorder to find."""
        agent, buffer = self.agent, self.buffer
        api.uninstall()
        self.agent = self.buffer = None
        if agent is None or buffer is None:
            return
        whole = agent.stop(timeout_s)
        self._unwatch(agent)
        if whole or not agent.heard_of:
            buffer.close()
            agent.lock.release()
        else:
            # the lock goes with the process: then the recorder looks at the file
            buffer.abandon()
        agent.dispose()
        if self.made_directory is not None:
            # one of a program that was replaced (`exec`) and whose recorder has gone would be left behind; it goes only if it is empty
            with contextlib.suppress(OSError):
                os.rmdir(self.made_directory)
            self.made_directory = None

    def discard(self) -> None:
        """Forgets the tracer, which is another process's or could not be made, without touching its file."""
        agent, buffer = self.agent, self.buffer
        api.uninstall()
        self.agent = self.buffer = None
        if buffer is not None:
            buffer.abandon()
        if agent is not None:
            self._unwatch(agent)
            agent.lock.abandon()
            agent.dispose()

    def _unwatch(self, agent: Agent) -> None:
        """Or the triggers would hold it, and with it the buffer and its memory."""
        if watch.report == agent.report:
            watch.report = watch.want_lines = None

    # --- forks

    def before_fork(self) -> None:
        self.lock.acquire(timeout=LOCK_S)
        if self.agent is not None:
            self.agent.park_for_fork(PARK_S)

    def after_fork_in_parent(self) -> None:
        # Python 3.12 and later have counted the threads, to warn of a fork beside them, before they come here
        if self.agent is not None and not self.agent.start_after_fork() and hub.recording is self.buffer:
            self.arm()
        with contextlib.suppress(RuntimeError):
            self.lock.release()

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        self.forked = self.automatic = True
        self.made_directory = None
        watch.after_fork()
        self.beginning = False
        self.error = ""
        self.discard()
        if self.config is not None and not self.ended:
            self.arm()


_runtime = _Runtime()


# --- what the package calls


def configure(config: TracerConfig, *, automatic: bool = False) -> None:
    """From the next record on this process records to ``config.recorder``; without one, or disabled, it does not. Nothing is started yet.

    ``automatic``: a later `start` may take its place. Raises StateError when it records already; ConfigError: calls that cannot be recorded.
    """
    with _runtime.locked():
        if _runtime.agent is not None:
            raise StateError("configure: wanted a process that does not record yet, got one that does")
        usable = config.enabled and config.recorder is not None
        if usable:
            calls.check(config)
        _runtime.configure(config if usable else None)
        _runtime.automatic = automatic
        if usable:
            _runtime.arm()


def start(config: TracerConfig | None = None) -> None:
    """Records from now on, to ``config.recorder`` (None: as configured). Raises StateError: it does so already, there is no recorder, or no
    thread can be started; ConfigError: an address that is none, a key file that cannot be used."""
    with _runtime.locked():
        if _runtime.agent is not None and _runtime.automatic:
            _runtime.end(END_S)
        if _runtime.agent is not None:
            raise StateError("start: wanted a process that does not record, got one that does")
        config = config or _runtime.config
        if config is None or config.recorder is None:
            raise StateError("start: wanted the address of a recorder, got none")
        if not config.enabled:
            return
        try:
            _runtime.configure(config)
            _runtime.automatic = False
            _runtime.make(config)
            assert _runtime.agent is not None
            if not _runtime.agent.start():
                raise StateError("start: wanted an interpreter that can start a thread, got one that ends")
        except BaseException as error:
            _runtime.end(0.0)
            _runtime.configure(None)
            if isinstance(error, OSError):
                raise StateError(f"start: wanted file descriptors, got none: {os_error_text(error)}") from None
            raise


def stop(timeout_s: float = END_S) -> str:
    """Ships what is recorded, within ``timeout_s``, and records no more. Returns why the recording had ended before, or ""."""
    with _runtime.locked():
        _runtime.end(timeout_s)
        error = _runtime.error
        _runtime.configure(None)
        return error


def recording() -> bool:
    """True while a record is kept, or would start the tracer."""
    return hub.recording is not None


def address() -> str | None:
    """Of the recorder; None while this process does not record."""
    config = _runtime.config
    return config.recorder if config is not None else None


def key() -> ClientKey | str | None:
    """For requests to that recorder: as it was read when the recording began, which a process that has another user by now could not do; else the file."""
    config = _runtime.config
    return _runtime.key or (config.key if config is not None else None)


def flush(timeout_s: float) -> bool:
    """True when everything that this process recorded before is in the ring, or nothing is recorded. False: not within ``timeout_s``."""
    agent = _runtime.agent
    return True if agent is None else agent.flush(timeout_s)


def stats() -> AgentStats | None:
    """None while there is no tracer."""
    agent = _runtime.agent
    return agent.stats() if agent is not None else None


# --- the end


def _end_process(reason: str = "exit") -> None:
    with _runtime.locked():
        _runtime.ended = True
        try:
            if _runtime.agent is not None:
                record_process_end(reason)
            _runtime.end(END_S)
            calls.stop()
        except Exception as error:  # noqa: BLE001  # the program ends, and nothing of ours is to be seen
            _runtime.error = f"{type(error).__name__}: {error}"


os.register_at_fork(
    before=_runtime.before_fork,
    after_in_parent=_runtime.after_fork_in_parent,
    after_in_child=_runtime.after_fork_in_child,
)
atexit.register(_end_process)
