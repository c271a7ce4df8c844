"""One turn of the recorder's loop takes something of everything that waits."""

from __future__ import annotations

import pytest
from support.peers import dealer_to, push_to, until_let_in
from support.until import until

from frzmq.config import RecorderConfig
from frzmq.recorder import worker as module
from frzmq.recorder.worker import Worker
from frzmq.transport.addresses import Endpoints
from frzmq.transport.sockets import RecorderSockets, Socket, close_all, new_context
from frzmq.wire.messages import StatusReply, StatusRequest, decode_message, encode_message


def answers(client: Socket, count: int) -> list[int]:
    """So many, and no more."""
    ids: list[int] = []
    for _ in range(count):
        assert client.poll(10_000), ids
        reply = decode_message(client.recv())
        assert isinstance(reply, StatusReply)
        ids.append(reply.id)
    assert not client.poll(100)
    return ids


def test_requests_that_take_long_take_turns_with_frames(
    recorder: RecorderSockets, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(RecorderConfig(), recorder)
    context = new_context()
    client = dealer_to(context, endpoints.control)
    push = push_to(context, endpoints.data)
    try:
        until_let_in(worker.turn, client, push)
        for n in range(1, 11):
            client.send(encode_message(StatusRequest(n)))
        push.send(b"no batch")
        until(lambda: recorder.control.poll(0) and recorder.pull.poll(0))
        # every request takes longer
        monkeypatch.setattr(module, "REQUESTS_A_TURN_NS", 1)
        worker.turn()
        assert worker.stats().frames == 1
        assert answers(client, 1) == [1]
        worker.turn()
        assert answers(client, 1) == [2]
        monkeypatch.setattr(module, "REQUESTS_A_TURN_NS", 60 * 10**9)
        worker.turn()
        assert answers(client, 8) == [*range(3, 11)]
    finally:
        assert close_all(context, [client, push], 0)
        worker.close()
