"""A control client in one file: only zmq and msgpack, nothing of frzmq. The messages are in docs/protocol.md.

python control.py ADDRESS status | start | stop | flush | snapshot FILE
"""

import json
import os
import sys

import msgpack
import zmq

CREDIT = 4


class Recorder:
    def __init__(self, address):
        if address.startswith("tcp://"):
            host, port = address.rsplit(":", 1)
            endpoint = f"{host}:{int(port) + 2}"
        else:
            endpoint = f"ipc://{address.removeprefix('ipc://')}/control"
        self.socket = zmq.Context().socket(zmq.DEALER)
        self.socket.LINGER = 0
        self.socket.connect(endpoint)
        self.last_id = 0

    def ask(self, type_, **fields):
        """Sends a request and returns its id."""
        self.last_id += 1
        self.socket.send(msgpack.packb({"type": type_, "id": self.last_id, **fields}))
        return self.last_id

    def reply(self, timeout_ms=10_000):
        if not self.socket.poll(timeout_ms):
            raise SystemExit("the recorder does not answer")
        message = msgpack.unpackb(self.socket.recv())
        if message["type"] == "error":
            raise SystemExit(f"{message['code']}: {message['message']}")
        return message

    def snapshot(self, path):
        """Chunks come as long as there is credit for them; each that came is worth one more."""
        id_ = self.ask("snapshot?", reason="control.py", credit=CREDIT)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            while (message := self.reply(60_000))["type"] == "chunk":
                file.write(message["data"])
                self.socket.send(msgpack.packb({"type": "credit", "id": id_, "chunks": 1}))
        return message


if __name__ == "__main__":
    address, command, *rest = sys.argv[1:]
    recorder = Recorder(address)
    if command == "snapshot":
        answer = recorder.snapshot(*rest)
    else:
        recorder.ask(command + "?", **({"timeout_ns": 2_000_000_000} if command == "flush" else {}))
        answer = recorder.reply()
    print(json.dumps(answer, default=bytes.hex, indent=2))
