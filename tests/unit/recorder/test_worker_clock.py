"""The time that a recorder says in an answer is one between the question's arrival and the answer: from it the other side computes how far apart the clocks are."""

from __future__ import annotations

import time

import pytest
from support.peers import dealer_to, until_let_in
from support.until import until

from frzmq.config import RecorderConfig
from frzmq.recorder.worker import Worker
from frzmq.transport.addresses import Endpoints
from frzmq.transport.sockets import Received, RecorderSockets, Socket, close_all, new_context
from frzmq.wire.messages import Ping, Pong, StatusReply, StatusRequest, decode_message, encode_message


def test_time_that_is_answered_is_after_the_question_came(
    recorder: RecorderSockets, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    came_ns: list[int] = []

    def receive(self: RecorderSockets, socket: Socket, most: int = 64) -> list[Received]:
        received = original(self, socket, most)
        if received:
            came_ns.append(time.monotonic_ns())
        return received

    original = RecorderSockets.receive
    monkeypatch.setattr(RecorderSockets, "receive", receive)
    worker = Worker(RecorderConfig(), recorder)
    context = new_context()
    client, tracer = dealer_to(context, endpoints.control), dealer_to(context, endpoints.link)
    try:

        def answered(socket: Socket) -> bool:
            worker.turn()
            return bool(socket.poll(0))

        until_let_in(worker.turn, client, tracer)
        client.send(encode_message(StatusRequest(1)))
        until(lambda: answered(client))
        status = decode_message(client.recv())
        assert isinstance(status, StatusReply)
        assert came_ns.pop() <= status.status.now_ns <= time.monotonic_ns()
        tracer.send(encode_message(Ping(5)))
        until(lambda: answered(tracer))
        pong = decode_message(tracer.recv())
        assert isinstance(pong, Pong)
        assert came_ns.pop() <= pong.recorder_ns <= time.monotonic_ns()
    finally:
        assert close_all(context, [client, tracer], 0)
        worker.close()
