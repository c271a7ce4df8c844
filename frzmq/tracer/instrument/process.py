"""The end of the process, as far as it comes to say so."""

from __future__ import annotations

from frzmq.tracer import hub
from frzmq.tracer.attributes import pack_text

_PROCESS_END = 13


def record_process_end(reason: str) -> None:
    """``reason``: such as "exit" or "SIGTERM"."""
    try:
        writer = hub.writer()
        if writer is not None:
            writer.append(_PROCESS_END, pack_text(reason))
    except BaseException as fault:  # noqa: BLE001  # raised again unless it is ours
        hub.swallow(fault)
