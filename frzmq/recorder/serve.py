"""Around the recorder's loop: what must stand before `Worker` serves, and goes when it ends."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from frzmq.clock import machine_id
from frzmq.config import RecorderConfig, ensure_private_dir
from frzmq.errors import ConfigError, WireError, os_error_text
from frzmq.recorder.keyring import WatchedKeys
from frzmq.recorder.leftovers import left_buffers, store_directories, store_leftovers
from frzmq.recorder.liveness import DirectoryLock
from frzmq.recorder.log import log
from frzmq.recorder.worker import Worker
from frzmq.transport.addresses import Endpoints, is_loopback, parse_address
from frzmq.transport.sockets import RecorderSockets

LINGER_MS: Final = 500


def run_recorder(
    config: RecorderConfig,
    address: str,
    *,
    ready: Callable[[], object] | None = None,
    parent_fd: int | None = None,
    started: Callable[[Worker], object] | None = None,
    siblings: bool = False,
    metrics: str | None = None,
) -> None:
    """Serve at ``address`` until SIGTERM, SIGINT (not when embedded), or end-of-file on ``parent_fd``; returns after a graceful end.

    ``siblings``: of the directories beside its own, those that killed recorders of this kind have left are cleared up. ``metrics``: where Prometheus
    may ask, ``HOST:PORT``, also beyond this host with ``config.insecure``. ``ready`` is called once it serves, ``started`` with the worker just before.
    Signals are handled in the main thread only. Raises ConfigError: an address that cannot be served, another recorder in the directory, tcp beyond this
    host with neither ``config.keys`` nor ``config.insecure``, keys on ipc, or keys that cannot be read.
    """
    endpoints = parse_address(address)
    if config.keys is None and not is_loopback(endpoints) and not config.insecure:
        raise ConfigError(
            f"{address}: wanted a loopback address or --keys: beyond this host anybody could read and forge records (--insecure: all the same)"
        )
    if config.keys is not None and endpoints.directory is not None:
        raise ConfigError(f"{address}: wanted tcp:// for --keys: a directory is guarded by its mode")
    keys = WatchedKeys(config.keys) if config.keys is not None else None
    raise_file_limit()
    with _locked(endpoints):
        _store_what_is_left(config, endpoints.directory, siblings=siblings)
        sockets = RecorderSockets(endpoints, admission=keys)
        try:
            worker = Worker(config, sockets, directory=endpoints.directory, parent_fd=parent_fd, keys=keys)
            try:
                with (
                    _signals(worker, embedded=parent_fd is not None),
                    _metrics(metrics, worker, insecure=config.insecure),
                ):
                    if started is not None:
                        started(worker)
                    if ready is not None:
                        ready()
                    worker.run()
            finally:
                worker.close()
        finally:
            sockets.close(LINGER_MS)


def _store_what_is_left(config: RecorderConfig, directory: str | None, *, siblings: bool) -> None:
    """Of processes that died while no recorder was there: made into a snapshot aside, while this one begins to serve."""
    if directory is None:
        return
    paths = left_buffers(directory)
    parent = Path(directory).parent if siblings else None
    if paths or parent is not None:
        threading.Thread(target=_store, args=(paths, parent, config), name="frzmq-leftovers", daemon=True).start()


def _store(paths: list[Path], parent: Path | None, config: RecorderConfig) -> None:
    try:
        path = store_leftovers(paths, config.store, machine_id())
        if parent is not None:
            store_directories(parent, config.store, machine_id())
    except (OSError, WireError) as error:
        said = os_error_text(error) if isinstance(error, OSError) else str(error)
        log(f"what dead processes left: {said}")
    else:
        if path:
            log(f"what dead processes left is in {path}")


@contextlib.contextmanager
def _locked(endpoints: Endpoints) -> Iterator[None]:
    if endpoints.directory is None:
        yield
        return
    ensure_private_dir(endpoints.directory)
    lock = DirectoryLock(endpoints.directory)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _metrics(address: str | None, worker: Worker, *, insecure: bool) -> Iterator[None]:
    if address is None:
        yield
        return
    from frzmq.recorder.metrics import MetricsServer

    server = MetricsServer(address, worker.status, lambda: worker.faults, insecure=insecure)
    log(f"metrics on port {server.port}")
    try:
        yield
    finally:
        server.close()


@contextlib.contextmanager
def _signals(worker: Worker, *, embedded: bool) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {
        signal.SIGTERM: lambda *_: worker.stop(),
        signal.SIGINT: signal.SIG_IGN if embedded else lambda *_: worker.stop(),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wakeup = signal.set_wakeup_fd(worker.wake_end, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_file_limit() -> None:
    """The soft limit of open files to the hard one: out of descriptors, zmq's thread would spin."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
