"""What goes wrong, and what people ask for meanwhile. Each draws for itself whom it befalls, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from frzmq.tracer.events import State
from frzmq.wire.batch import BatchType, Header, encode_batch
from support.simulated.process import Process
from support.simulated.world import MS, S

if TYPE_CHECKING:
    from support.simulated.scenario import Scenario

MAX_HOSTILE = 2
"""Of one process: after the fourth error it stays away for an hour."""


class Faults:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._world = scenario.world
        self._recorder = scenario.recorder
        self._all: dict[str, tuple[int, Callable[[], None]]] = {
            "cut": (6, self._cut),
            "partition": (3, self._partition),
            "slow": (3, self._slow),
            "drops": (2, self._drops),
            "stall recorder": (4, self._stall_recorder),
            "stall process": (4, self._stall_process),
            "starve agent": (3, self._starve_agent),
            "kill recorder": (4, self._kill_recorder),
            "kill process": (4, self._kill_process),
            "end process": (3, self._end_process),
            "park": (2, self._park),
            "new process": (3, scenario.new_process),
            "storm": (4, self._storm),
            "contradict": (3, self._contradict),
            "junk": (2, self._junk),
            "no space": (1, self._no_space),
            "slow disk": (2, self._slow_disk),
        }
        self._requests: dict[str, tuple[int, Callable[[], None]]] = {
            "flush": (5, self._flush),
            "snapshot": (6, self._snapshot),
            "many": (2, self._many),
            "cancel": (2, self._cancel),
            "status": (1, self._status),
            "off and on": (1, self._off_and_on),
            "flush of a program": (4, self._flush_of_program),
        }

    def fault(self) -> None:
        """One of them, and often somebody who asks for something meanwhile."""
        self._draw(self._all)
        if self._world.chance(0.6):
            self._world.after(self._world.between(1, 500 * MS), self.request)

    def request(self) -> None:
        self._draw(self._requests)

    def _draw(self, kinds: dict[str, tuple[int, Callable[[], None]]]) -> None:
        (name,) = self._world.random.choices(list(kinds), [weight for weight, _ in kinds.values()])
        self._world.note("scenario", name)
        kinds[name][1]()

    def _process(self) -> Process | None:
        alive = [process for process in self._scenario.processes.values() if process.alive]
        return self._world.random.choice(alive) if alive else None

    # --- the network

    def _cut(self) -> None:
        process = self._process()
        if process is None:
            return
        wait_ns = 0
        if self._world.chance(0.4):
            # what comes before the cut waits, and is read beside what comes after it
            stalled_ns = self._world.between(50 * MS, 800 * MS)
            self._recorder.stall(stalled_ns)
            wait_ns = stalled_ns // 2
        drawn = self._world.random.random()
        self._world.after(wait_ns, lambda: _cut(process, data=drawn < 0.8, link=drawn > 0.4))

    def _partition(self) -> None:
        if (process := self._process()) is not None:
            process.wire.broken_until_ns = self._world.now_ns + self._world.between(10 * MS, 4 * S)
            for connection in (process.data, process.link):
                if connection is not None:
                    connection.cut()

    def _slow(self) -> None:
        if (process := self._process()) is not None:
            wire = process.wire
            before_ns, wire.most_ns = wire.most_ns, self._world.between(20 * MS, 1500 * MS)
            self._world.after(self._world.between(100 * MS, 2 * S), lambda: setattr(wire, "most_ns", before_ns))

    def _drops(self) -> None:
        if (process := self._process()) is not None:
            wire = process.wire
            wire.drops = 0.4
            self._world.after(self._world.between(100 * MS, 2 * S), lambda: setattr(wire, "drops", 0.0))

    # --- the processes

    def _stall_process(self) -> None:
        if (process := self._process()) is not None:
            process.stall(self._world.between(5 * MS, 4 * S))

    def _starve_agent(self) -> None:
        """The program goes on."""
        if (process := self._process()) is not None:
            process.stall(self._world.between(5 * MS, 1 * S))
            process.program.step(self._world.between(1, 30))

    def _kill_process(self) -> None:
        if (process := self._process()) is not None:
            process.kill()

    def _end_process(self) -> None:
        if (process := self._process()) is not None:
            process.end(self._world.between(10 * MS, 2 * S))

    def _park(self) -> None:
        if (process := self._process()) is not None:
            process.park(self._world.between(100_000, 500 * MS))

    def _storm(self) -> None:
        """More than its buffer holds."""
        if (process := self._process()) is not None:
            process.program.storm(self._world.between(10, 250))

    # --- the recorder

    def _stall_recorder(self) -> None:
        self._recorder.stall(self._world.between(5 * MS, 4 * S))

    def _kill_recorder(self) -> None:
        if not self._recorder.up:
            return
        self._scenario.kill_recorder()
        self._world.after(self._world.between(1 * MS, 3 * S), self._scenario.start_recorder)

    def _no_space(self) -> None:
        self._recorder.write_fails = 0.5
        self._world.after(self._world.between(1 * S, 3 * S), lambda: setattr(self._recorder, "write_fails", 0.0))

    def _slow_disk(self) -> None:
        self._recorder.tail_ns = 3 * S
        self._world.after(self._world.between(1 * S, 4 * S), lambda: setattr(self._recorder, "tail_ns", 20 * MS))

    # --- hostile senders

    def _contradict(self) -> None:
        """A frame of a proven sender that cannot be."""
        process = self._process()
        if process is None or process.data is None or process.machine.state is not State.RECORDING:
            return
        if self._scenario.oracle.hostile.count(process.uuid) >= MAX_HOSTILE:
            return
        _, nonce = process.session
        generation = process.machine.generation + self._world.random.choice([1000, 2000, 3000])
        header = Header(BatchType.OPEN, process.uuid, process.machine.incarnation, nonce, generation, 10**6)
        frame = encode_batch(header, b"?")
        frame = frame if self._world.chance(0.5) else frame[:-1]
        self._scenario.oracle.forge(frame, process.uuid)
        process.data.send(frame)

    def _junk(self) -> None:
        """Of nobody."""
        process = self._process()
        if process is not None and process.data is not None:
            header = Header(BatchType.RECORDS, process.uuid, 1, self._world.random.getrandbits(64), 1, 1, 1, count=1)
            frame = encode_batch(header, b"12") if self._world.chance(0.5) else b"GET / HTTP/1.1"
            self._scenario.oracle.forged.add(frame)
            process.data.send(frame)

    # --- requests

    def _flush(self) -> None:
        timeout_ns = self._world.random.choice([0, 0, 50 * MS, 500 * MS, 4 * S])
        self._world.random.choice(self._scenario.clients).flush(timeout_ns, double=self._world.chance(0.2))

    def _snapshot(self) -> None:
        world = self._world
        world.random.choice(self._scenario.clients).snapshot(
            last_ns=world.random.choice([0, 0, 0, 1 * S]),
            share=world.chance(0.3),
            credit=world.random.choice([0, 1, 4]),
            timeout_ns=world.random.choice([0, 0, 50 * MS, 1 * S]),
        )

    def _many(self) -> None:
        for client in self._scenario.clients:
            for _ in range(2):
                client.flush()
                client.snapshot(share=True)

    def _cancel(self) -> None:
        client = self._world.random.choice(self._scenario.clients)
        id_ = client.snapshot()
        self._world.after(self._world.between(1, 500 * MS), lambda: client.cancel(id_))

    def _status(self) -> None:
        self._world.random.choice(self._scenario.clients).status()

    def _off_and_on(self) -> None:
        client = self._world.random.choice(self._scenario.clients)
        client.stop()
        self._world.after(self._world.between(1 * MS, 2 * S), client.start)

    def _flush_of_program(self) -> None:
        if (process := self._process()) is not None:
            process.flush()


def _cut(process: Process, *, data: bool, link: bool) -> None:
    if data and process.data is not None:
        process.data.cut()
    if link and process.link is not None:
        process.link.cut()
