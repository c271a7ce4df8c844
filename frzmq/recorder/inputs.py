"""What the messages that come are to the recorder's machine."""

from __future__ import annotations

from frzmq.errors import WireError
from frzmq.recorder.events import LinkGarbage, LinkReceived, RequestGarbage, RequestReceived
from frzmq.wire.messages import (
    Cancel,
    Credit,
    FlushRequest,
    Hello,
    LinesWanted,
    Ping,
    Report,
    SnapshotRequest,
    StartRequest,
    StatusRequest,
    StopRequest,
    TracerHeartbeat,
    decode_message,
)


def link_input(parts: list[bytes], key: str = "") -> LinkReceived | LinkGarbage:
    """What a message on the link, in its parts, is to the machine; ``key``: the name of the key that it came with."""
    peer = parts[0]
    if len(parts) != 2:
        return LinkGarbage(peer, f"wanted messages of one part, got {len(parts) - 1}")
    try:
        message = decode_message(parts[1])
    except WireError as error:
        return LinkGarbage(peer, str(error))
    match message:
        case Hello() | TracerHeartbeat() | Ping() | Report() | LinesWanted():
            return LinkReceived(peer, message, key)
        case _:
            return LinkGarbage(peer, f"wanted a message of a tracer, got {type(message).__name__}")


def control_input(parts: list[bytes]) -> RequestReceived | RequestGarbage:
    """What a message on the control socket, in its parts, is to the machine."""
    peer = parts[0]
    if len(parts) != 2:
        return RequestGarbage(peer, f"wanted requests of one part, got {len(parts) - 1}")
    try:
        message = decode_message(parts[1])
    except WireError as error:
        return RequestGarbage(peer, str(error))
    match message:
        case (
            StatusRequest() | StartRequest() | StopRequest() | FlushRequest() | SnapshotRequest() | Credit() | Cancel()
        ):
            return RequestReceived(peer, message)
        case _:
            return RequestGarbage(peer, f"wanted a request, got {type(message).__name__}")
