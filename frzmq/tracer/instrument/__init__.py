"""What is recorded without a line of the program's: its log records, the exceptions that nothing caught, its threads, the end of the process.

The begin of the process and the begin and end of a thread are records of the buffer itself.
"""

from __future__ import annotations

from frzmq.tracer.instrument import exceptions, logs, threads

__all__ = ["install", "uninstall"]


def install(*, with_logging: bool = True, with_exceptions: bool = True, with_threads: bool = True) -> None:
    """Hooks in; doing it twice is doing it once. What is hooked records while `frzmq.tracer.api` does."""
    if with_logging:
        logs.install()
    if with_exceptions:
        exceptions.install()
    if with_threads:
        threads.install()


def uninstall() -> None:
    """Takes out what nothing else has wrapped since; the rest passes everything on."""
    logs.uninstall()
    exceptions.uninstall()
    threads.uninstall()
