"""A tracer in one file: only zmq and msgpack, nothing of frzmq. What it does, and why, is in docs/protocol.md.

python tracer.py ADDRESS [--no-end-marks] [--seconds S]       (ADDRESS: a runtime directory or tcp://HOST:PORT)
"""

import argparse
import os
import struct
import time

import msgpack
import zmq

HEADER = struct.Struct("<2sBBI16sIIQQQQQQQII")
RECORDS, OPEN, END, STRINGS, FLUSH, GOODBYE = range(1, 7)
SPAN_BEGIN, SPAN_END, OPERATION_BEGIN, OPERATION_END, EVENT, CONTEXT = 1, 2, 3, 4, 5, 9
KINDS = [
    [SPAN_BEGIN, "span_begin", ["name:s", "attributes:m"]],
    [SPAN_END, "span_end", ["name:s", "error:s"]],
    [OPERATION_BEGIN, "operation_begin", ["name:s", "op:u", "parent:u", "trace:b", "remote:u", "attributes:m"]],
    [OPERATION_END, "operation_end", ["op:u", "error:s"]],
    [EVENT, "event", ["name:s", "attributes:m"]],
    [CONTEXT, "context", ["track:u", "label:s", "op:u"]],
]
WRITER = 1


class Tracer:
    def __init__(self, address, end_marks):
        self.uuid, self.incarnation, self.nonce, self.end_marks, self.beat_at = os.urandom(16), 0, 0, end_marks, 0.0
        context = zmq.Context()
        self.data, self.link = context.socket(zmq.PUSH), context.socket(zmq.DEALER)
        self.data.IMMEDIATE, self.data.SNDHWM = 1, 8
        self.data.LINGER = self.link.LINGER = 1000
        if address.startswith("tcp://"):
            host, port = address.rsplit(":", 1)
            endpoints = [f"{host}:{int(port) + n}" for n in range(2)]
        else:
            endpoints = [f"ipc://{address.removeprefix('ipc://')}/{name}" for name in ("data", "link")]
        self.data.connect(endpoints[0])
        self.link.connect(endpoints[1])
        self.join()

    def join(self):
        """As a new stream; also when the recorder has started anew: what was under way is lost then."""
        self.incarnation += 1
        self.generation = self.tseq = self.acknowledged = 0
        self.index = self.first_index = self.batches = 0  # of records: the next, the generation's first; its batches
        self.strings, self.body, self.count, self.base_ns, self.last_ns = {}, b"", 0, 0, 0
        while not self.generation:
            self.say(type="hello", uuid=self.uuid, incarnation=self.incarnation, wire_oldest=1, wire_newest=1, pid=os.getpid(),
                     service="example", generation=0, end_marks=self.end_marks, monotonic_ns=time.monotonic_ns(), nonce=self.nonce)  # fmt: skip
            self.listen(1000)

    def say(self, **message):
        self.link.send(msgpack.packb(message))

    def listen(self, timeout_ms):
        """Waits for the recorder at the most so long, and does what it asks for."""
        if time.monotonic() >= self.beat_at and self.generation:
            self.beat_at = time.monotonic() + 1
            self.say(type="heartbeat", generation=self.generation, tseq=self.tseq, recorded=self.index)
        while self.link.poll(timeout_ms):
            message = msgpack.unpackb(self.link.recv())
            match message["type"]:
                case "welcome" | "advance" | "level" if message["generation"] > self.generation:
                    self.nonce = message.get("nonce", self.nonce)
                    self.end()
                    self.open(message["generation"])
                case "level" if message["generation"] == 0 < self.generation:
                    self.join()
                case "ack":
                    self.acknowledged = message["stored_through"]
                case "stop" | "reject":
                    raise SystemExit(f"the recorder says {message['type']}: {message['reason']}")
            timeout_ms = 0

    def send(self, type_, body=b"", count=0, first_index=0, base_ns=0, last_ns=0):
        self.tseq += 1
        now = time.monotonic_ns()
        self.data.send(HEADER.pack(b"fz", 1, type_, len(body), self.uuid, self.incarnation, WRITER if type_ == RECORDS else 0, self.nonce,
                                   self.generation, self.tseq, base_ns or now, last_ns or now, first_index, 0, count, 0) + body)  # fmt: skip

    def open(self, generation):
        self.generation, self.first_index, self.batches = generation, self.index, 0
        clock = [time.monotonic_ns(), time.monotonic_ns(), time.time_ns()]
        self.send(OPEN, msgpack.packb({"clock": clock, "kinds": KINDS, "writers": [[WRITER, "main", os.getpid()]]}))

    def end(self):
        """The generation's end mark, if one is open: its batches, and its records by writer."""
        self.ship()
        if self.end_marks and self.generation:
            row = [WRITER, self.first_index, self.index, 0, []]
            self.send(END, msgpack.packb([row] if self.index > self.first_index else []), count=self.batches)

    def ship(self):
        """Sends the records that were made since the last time, as one batch."""
        if self.count:
            self.send(RECORDS, self.body, self.count, self.index - self.count, self.base_ns, self.last_ns)
            self.body, self.count, self.batches = b"", 0, self.batches + 1

    def name(self, text):
        """Its id in the stream's string table; a new one is sent before any record that uses it."""
        if text not in self.strings:
            self.strings[text] = len(self.strings) + 1
            self.send(STRINGS, msgpack.packb(text), count=1, first_index=self.strings[text])
        return self.strings[text]

    def record(self, kind, *arguments):
        now = time.monotonic_ns()
        if not self.count:
            self.base_ns = self.last_ns = now
        self.body += b"".join(map(msgpack.packb, (kind, now - self.last_ns, *arguments)))
        self.last_ns, self.count, self.index = now, self.count + 1, self.index + 1

    def goodbye(self):
        """Ends, and waits until the recorder has everything."""
        self.end()
        self.send(FLUSH)
        while self.acknowledged < self.tseq:
            self.listen(1000)
        self.send(GOODBYE)


def work(tracer, number):
    op = int.from_bytes(os.urandom(8)) | 1
    tracer.record(OPERATION_BEGIN, tracer.name("work"), op, 0, os.urandom(16), 0, {tracer.name("number"): number})
    tracer.record(CONTEXT, 0, None, op)
    tracer.record(SPAN_BEGIN, tracer.name("step"), None)
    tracer.record(EVENT, tracer.name("half way"), None)
    tracer.record(SPAN_END, tracer.name("step"), None)
    tracer.record(OPERATION_END, op, None)
    tracer.record(CONTEXT, 0, None, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--no-end-marks", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    tracer = Tracer(args.address, not args.no_end_marks)
    until, number = time.monotonic() + args.seconds, 0
    while time.monotonic() < until:
        work(tracer, number := number + 1)
        tracer.ship()
        tracer.listen(10)
    tracer.goodbye()
    print(number, flush=True)
