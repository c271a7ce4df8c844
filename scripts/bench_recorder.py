"""What the recorder takes in, beside a bare PULL loop that only counts, in the same run; what acknowledgements and keys cost of that; and what memory it
holds under overload.

python scripts/bench_recorder.py [--seconds S] [--rounds N] [--overload S]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Literal, TypeAlias

import zmq
from benchlib import Ratio, cpu_s, report

from frzmq.recorder.access import Role
from frzmq.recorder.keyring import KeyDirectory
from frzmq.transport.addresses import Endpoints, parse_address
from frzmq.transport.keys import ClientKey, read_client_key
from frzmq.transport.sockets import new_pair
from frzmq.wire.batch import (
    BatchType,
    EndMark,
    Header,
    Opening,
    WriterEnd,
    encode_batch,
    encode_end_mark,
    encode_opening,
)
from frzmq.wire.kinds import KINDS
from frzmq.wire.messages import (
    Advance,
    Hello,
    RecorderHeartbeat,
    TracerHeartbeat,
    Welcome,
    decode_message,
    encode_message,
)

MAX_BYTES = 64 << 20
SIZES = (100, 4 << 10, 64 << 10)
Kind: TypeAlias = Literal["bare", "recorder", "silent", "tcp", "keys"]
"""``silent``: a recorder that acknowledges nothing; ``keys``: on tcp, by CURVE."""
SILENT = "from frzmq.recorder.machine import RecorderMachine as M; M._acknowledge = lambda *_: None; from frzmq.cli import main; main()"


@dataclass(frozen=True)
class Place:
    """Where a receiver is, and how one gets in."""

    endpoints: Endpoints
    key: ClientKey | None = None
    pid: int = 0


class Producer:
    """A tracer that does nothing but send batches of one size, as fast as they are taken."""

    def __init__(self, place: Place, size_bytes: int) -> None:
        self.context = zmq.Context()
        self.push = self.context.socket(zmq.PUSH)
        self.push.set_hwm(8)
        self.link = self.context.socket(zmq.DEALER)
        for socket, endpoint in ((self.push, place.endpoints.data), (self.link, place.endpoints.link)):
            socket.setsockopt(zmq.LINGER, 0)
            if place.key is not None:
                socket.curve_publickey, socket.curve_secretkey = (
                    place.key.pair.public.encode(),
                    place.key.pair.secret.encode(),
                )
                socket.curve_serverkey = place.key.recorder.encode()
            socket.connect(endpoint)
        self.uuid = os.urandom(16)
        # `fixint 5, fixint 1, fixint 1, nil`: an event of 4 bytes
        self.body = b"\x05\x01\x01\xc0" * (size_bytes // 4)
        self.tseq = 0
        self.index = self.first_index = 0
        self.batches = 0
        self.nonce = self.generation = 0

    def hello(self) -> None:
        self.link.send(encode_message(Hello(self.uuid, 1, 1, 1, os.getpid(), "bench", 0)))
        welcome = decode_message(self.link.recv())
        assert isinstance(welcome, Welcome)
        self.nonce = welcome.nonce
        self.open(welcome.generation)

    def frame(self, kind: BatchType, body: bytes = b"", **fields: int) -> bytes:
        self.tseq += 1
        now = time.monotonic_ns()
        header = Header(kind, self.uuid, 1, self.nonce, self.generation, self.tseq, base_ns=now, last_ns=now, **fields)
        return encode_batch(header, body)

    def open(self, generation: int) -> None:
        if self.generation:
            mark = EndMark((WriterEnd(1, self.first_index, self.index),))
            self.push.send(self.frame(BatchType.END, encode_end_mark(mark), count=self.batches))
        self.generation, self.batches, self.first_index = generation, 0, self.index
        now = time.monotonic_ns()
        self.push.send(self.frame(BatchType.OPEN, encode_opening(Opening(now, now, time.time_ns(), KINDS))))

    def send(self) -> None:
        count = len(self.body) // 4
        self.push.send(self.frame(BatchType.RECORDS, self.body, writer=1, first_index=self.index, count=count))
        self.index += count
        self.batches += 1

    def serve_link(self) -> None:
        while self.link.poll(0):
            message = decode_message(self.link.recv())
            if isinstance(message, Advance | RecorderHeartbeat) and message.generation > self.generation:
                self.open(message.generation)


def produce(place: Place, size_bytes: int, real: bool, go: Event, end: Event, sent: mp.Queue[int]) -> None:
    producer = Producer(place, size_bytes)
    if real:
        producer.hello()
    go.wait(30)
    frames = 0
    beat = time.monotonic()
    while not end.is_set():
        for _ in range(32):
            producer.send()
        frames += 32
        if real:
            producer.serve_link()
            if time.monotonic() - beat > 0.5:
                beat = time.monotonic()
                producer.link.send(encode_message(TracerHeartbeat(producer.generation, producer.tseq)))
    sent.put(frames)
    producer.context.destroy(0)


def count_only(directory: str) -> None:
    """The bare PULL loop."""
    pull = zmq.Context().socket(zmq.PULL)
    pull.set_hwm(8)
    pull.bind(f"ipc://{directory}/data")
    print("ready", flush=True)
    frames = 0
    while True:
        pull.poll()
        for _ in range(64):
            try:
                pull.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            frames += 1


@contextmanager
def receiver(kind: Kind) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        os.chmod(directory, 0o700)
        address = f"tcp://127.0.0.1:{free_ports()}" if kind in ("tcp", "keys") else f"ipc://{directory}"
        key, keys = None, []
        if kind == "keys":
            key, keys = make_key(directory), ["--keys", f"{directory}/keys"]
        recorder = ["recorder", "--listen", address, "--max-bytes", str(MAX_BYTES), *keys]
        match kind:
            case "bare":
                command = [__file__, "--count-only", directory]
            case "silent":
                command = ["-c", SILENT, *recorder]
            case _:
                command = ["-m", "frzmq", *recorder]
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield Place(parse_address(address), key, process.pid)
        finally:
            process.send_signal(signal.SIGKILL if kind == "bare" else signal.SIGTERM)
            process.wait(30)
            process.stdout.close()


def make_key(directory: str) -> ClientKey:
    keys, path = KeyDirectory(f"{directory}/keys"), f"{directory}/bench.key"
    keys.init(new_pair)
    keys.add("bench", {Role.TRACER}, path, new_pair)
    return read_client_key(path)


def free_ports() -> int:
    """The first of three that are likely to be free: far from those that the system gives out by itself."""
    return 7000 + 3 * (os.getpid() % 1000)


def memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@dataclass(frozen=True)
class Measured:
    mb_s: float
    """What was sent and taken."""
    cpu_ms_mb: float
    """Of the receiver."""
    peak_kib: int
    """Of the receiver's memory."""


Pair: TypeAlias = tuple[Measured, Measured]


def measure(kind: Kind, producers: int, size_bytes: int, seconds: float) -> Measured:
    go, end = mp.Event(), mp.Event()
    sent: mp.Queue[int] = mp.Queue()
    with receiver(kind) as place:
        children = [
            mp.Process(target=produce, args=(place, size_bytes, kind != "bare", go, end, sent))
            for _ in range(producers)
        ]
        for child in children:
            child.start()
        go.set()
        begin, before_s = time.perf_counter(), cpu_s(place.pid)
        time.sleep(seconds)
        end.set()
        frames = sum(sent.get(timeout=60) for _ in children)
        took, used_s = time.perf_counter() - begin, cpu_s(place.pid) - before_s
        for child in children:
            child.join(30)
        mb = frames * size_bytes / 1e6
        return Measured(mb / took, 1e3 * used_s / mb, memory_kib(place.pid))


def compare(one: Kind, other: Kind, producers: int, size_bytes: int, seconds: float, rounds: int) -> list[Pair]:
    """Round by round, in turns the one first and the other."""
    pairs: list[Pair] = []
    for n in range(rounds):
        order = (one, other) if n % 2 == 0 else (other, one)
        found = {kind: measure(kind, producers, size_bytes, seconds) for kind in order}
        pairs.append((found[one], found[other]))
    return pairs


def rates(pairs: list[Pair]) -> tuple[list[float], list[float]]:
    return [a.mb_s for a, _ in pairs], [b.mb_s for _, b in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload", type=float, default=60.0, help="seconds of the memory run, at each size")
    parser.add_argument("--count-only", metavar="DIRECTORY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count_only:
        count_only(arguments.count_only)
    rows: list[tuple[str, ...]] = []
    ratios: list[Ratio] = []
    data: list[dict[str, int | list[float]]] = []
    for producers in (1, 2, 8):
        for size_bytes in SIZES:
            pairs = compare("bare", "recorder", producers, size_bytes, arguments.seconds, arguments.rounds)
            bare, full = rates(pairs)
            of_bare = statistics.median(full) / statistics.median(bare)
            rows.append(
                (
                    f"{producers} x {size_bytes} B",
                    f"{statistics.median(bare):.0f}",
                    f"{statistics.median(full):.0f}",
                    f"{of_bare:.2f}",
                )
            )
            data.append({"producers": producers, "batch_bytes": size_bytes, "bare": bare, "recorder": full})
            if size_bytes == SIZES[-1]:
                ratios.append(
                    Ratio(f"ingest of {producers} producers, 64 KiB, of the bare loop's", of_bare, 0.8, at_least=True)
                )
    parts: tuple[tuple[str, Kind, Kind, float | None], ...] = (
        ("without acknowledgements", "silent", "recorder", 0.97),
        ("tcp without keys", "tcp", "keys", None),
    )
    for name, one, other, limit in parts:
        for size_bytes in SIZES:
            pairs = compare(one, other, 1, size_bytes, arguments.seconds, 4 * arguments.rounds)
            before, after = rates(pairs)
            # of neighbours: what else the machine does weighs on both
            ratio = statistics.median(b.mb_s / a.mb_s for a, b in pairs)
            cpu = statistics.median(b.cpu_ms_mb / a.cpu_ms_mb for a, b in pairs)
            rows.append(
                (
                    f"{other}, {size_bytes} B, of {name}",
                    f"{statistics.median(before):.0f}",
                    f"{statistics.median(after):.0f}",
                    f"{ratio:.3f} (CPU for a MB {cpu:.3f})",
                )
            )
            data.append({"producers": 1, "batch_bytes": size_bytes, one: before, other: after})
            if limit is not None:
                ratios.append(Ratio(f"ingest of {size_bytes} B, of that {name}", ratio, limit, at_least=True))
    for size_bytes in SIZES:
        peak_kib = measure("recorder", 2, size_bytes, arguments.overload).peak_kib
        limit = (1.25 * MAX_BYTES + 60e6) / 1e6
        ratios.append(
            Ratio(f"peak memory after {arguments.overload:g} s, {size_bytes} B, MB", peak_kib * 1024 / 1e6, limit)
        )
    report("ingest, MB/s", rows, ("", "bare", "recorder", "ratio"), ratios, json.loads(json.dumps(data)))


if __name__ == "__main__":
    main()
