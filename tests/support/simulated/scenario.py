"""One history of a whole system, drawn from a seed, and what has to hold at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from frzmq.config import RecorderConfig
from frzmq.wire.messages import FlushReply, SnapshotEnd
from support.simulated.clients import Client
from support.simulated.faults import Faults
from support.simulated.network import Wire
from support.simulated.oracle import Oracle
from support.simulated.process import Process, Traits
from support.simulated.recorder import Recorder
from support.simulated.world import MS, START_NS, S, SimulationError, World

ANSWERED_NS = 120 * S
QUIET_NS = 10 * S
"""After the last fault: so long everything may take to be as it was, the back-off of a stopped tracer not counted."""
BACK_OFF_NS = 22 * S


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drawn for the whole of it."""

    config: RecorderConfig
    processes: int
    busy_ns: int
    """For so long things happen."""
    faults: int
    requests: int
    pause_ns: int
    """Between two bursts of a program at the most."""


@dataclass(slots=True)
class Outcome:
    events: int
    records: int
    snapshots: int


class Scenario:
    """``faults``, ``requests``: not more of them; None: as many as are drawn."""

    def __init__(self, seed: int, directory: Path, plan: Plan | None = None) -> None:
        self.world = world = World(seed)
        self.plan = plan or _plan(world)
        self.processes: dict[bytes, Process] = {}
        self.oracle = Oracle(world, self.processes, directory)
        self.recorder = self.oracle.recorder = Recorder(world, self.plan.config, self.oracle, self.processes)
        self.clients: list[Client] = []
        self.faults = Faults(self)

    def run(self) -> Outcome:
        """Raises SimulationError with the seed and the last events."""
        try:
            with self.world.in_place():
                return self._run()
        except Exception as error:
            text = f"seed {self.world.seed}: {type(error).__name__}: {error}\n\n{self.world.trace()}"
            raise SimulationError(text) from error
        finally:
            self.recorder.close()
            for process in self.processes.values():
                # the collector would end its threads in the middle of a later simulation
                process.buffer.close()

    def _run(self) -> Outcome:
        world, plan = self.world, self.plan
        world.note("scenario", plan)
        self.start_recorder()
        self.clients = [Client(world, n, self.recorder, self.oracle, slow=world.chance(0.2)) for n in range(2)]
        for _ in range(plan.processes):
            world.after(world.between(1, S // 2), self.new_process)
        for what, number in ((self.faults.fault, plan.faults), (self.faults.request, plan.requests)):
            for _ in range(number):
                world.after(world.random.randrange(plan.busy_ns), what)
        world.run_until(START_NS + plan.busy_ns)
        world.note("scenario", "no more faults")
        self._settle()
        self._end()
        records = sum(sum(process.program.counts().values()) for process in self.processes.values())
        return Outcome(world.events, records, self.oracle.snapshots)

    # --- what happens

    def new_process(self) -> None:
        world = self.world
        number = len(self.processes) + 1
        process = Process(world, number, Wire(world), self.recorder, _traits(world))
        process.on_flushed = self.oracle.flushed_by_program
        process.on_end = self.recorder.notice_death
        self.processes[process.uuid] = process
        process.start()
        self._work(process)

    def _work(self, process: Process) -> None:
        world = self.world
        if world.now_ns < START_NS + self.plan.busy_ns and process.alive:
            process.record(world.between(1, 6))
            world.after(world.between(20 * MS, self.plan.pause_ns), lambda: self._work(process))

    def kill_recorder(self) -> None:
        self.recorder.kill()
        for client in self.clients:
            client.lost()

    def start_recorder(self) -> None:
        self.oracle.restarted()
        self.recorder.start()

    # --- its end

    def _settle(self) -> None:
        """All is well again, and after some time everybody is live."""
        world = self.world
        for process in self.processes.values():
            process.quiet = True
            process.wire.drops, process.wire.most_ns = 0.0, 2 * MS
        self.recorder.write_fails, self.recorder.tail_ns = 0.0, 20 * MS
        end_ns = world.now_ns + QUIET_NS + (BACK_OFF_NS if self.oracle.hostile else 0)
        while (late := self._unsettled()) and world.now_ns < end_ns:
            world.run_until(world.now_ns + 50 * MS)
        world.check(not late, f"it does not come to rest: {late}")

    def _unsettled(self) -> list[str]:
        if not self.recorder.up:
            return ["recorder"]
        live = {tracer.hello.uuid for tracer in self.recorder.machine.live()}
        gone = [p.name for p in self.processes.values() if not p.alive and p.uuid in live]
        apart = [p.name for p in self.processes.values() if p.alive and p.wire.broken]
        late = [p.name for p in self._recording() if not p.settled or p.uuid not in live]
        return gone + apart + late

    def _recording(self) -> list[Process]:
        """Who is to record at the end."""
        stays_away = self.oracle.hostile if self.plan.config.mode == "embedded" else ()
        return [p for p in self.processes.values() if p.alive and not p.ending and p.uuid not in stays_away]

    def _end(self) -> None:
        """Everything works again: a flush reaches everybody, and a snapshot has all that there was to have."""
        world = self.world
        client = Client(world, 99, self.recorder, self.oracle, slow=False)
        self.clients.append(client)
        world.run_until(world.now_ns + 100 * MS)
        self._wait(*self.clients)
        if not self.recorder.machine.on:
            client.start()
            self._wait(client)
            world.run_until(world.now_ns + 500 * MS)
        # an Advance that was lost before is said again by the next heartbeats
        world.run_until(world.now_ns + 2 * self.plan.config.heartbeat_ns)
        client.answers.clear()
        client.flush()
        self._wait(client)
        self.oracle.at_rest = True
        client.snapshot()
        self._wait(*self.clients)
        for each in self.clients:
            world.check(not each.waiting, f"{each.peer!r} waits in vain for {[*each.waiting.values()]}")
        replies = [reply for _, reply in client.answers]
        match replies:
            case [FlushReply(_, ()), SnapshotEnd() as end]:
                # of whose end it could not be told it says that they do not answer
                dead = {process.name for process in self.processes.values() if not process.alive}
                world.check(dead.issuperset(end.missing), f"at the end: {end.missing} are missing")
            case _:
                world.check(False, f"at the end: {replies}")

    def _wait(self, *clients: Client) -> None:
        end_ns = self.world.now_ns + ANSWERED_NS
        while any(client.waiting for client in clients) and self.world.now_ns < end_ns:
            self.world.run_until(self.world.now_ns + 20 * MS)


def _plan(world: World) -> Plan:
    draw = world.random
    heartbeat_ns = draw.choice([S // 4, S // 2, S])
    config = RecorderConfig(
        min_age_ns=draw.choice([0, 1 * S, 60 * S, 60 * S]),
        max_bytes=draw.choice([0, 20_000, 200_000, 64 << 20, 64 << 20, 64 << 20]),
        max_generation_bytes=draw.choice([0, 0, 30_000, 3_000]),
        advance_every_ns=draw.choice([S // 4, S, S]),
        heartbeat_ns=heartbeat_ns,
        silence_ns=2 * heartbeat_ns + draw.choice([1, S, 3 * S]),
        flush_timeout_ns=draw.choice([S // 4, 2 * S]),
        mode=draw.choice(["service", "service", "embedded"]),
        on_death=draw.random() < 0.3,
    )
    return Plan(
        config,
        processes=draw.choice([1, 1, 2, 3]),
        busy_ns=draw.choice([2 * S, 3 * S, 5 * S]),
        faults=draw.choice([0, 1, 2, 3, 5, 8]),
        requests=draw.choice([0, 1, 2, 4]),
        pause_ns=draw.choice([300 * MS, 1 * S, 2 * S]),
    )


def _traits(world: World) -> Traits:
    draw = world.random
    same_machine = draw.random() < 0.6
    shared = draw.random() < 0.7
    return Traits(
        skew_ns=0 if same_machine else draw.choice([-1, 1]) * world.between(1 * MS, 10**13),
        same_machine=same_machine,
        shared=shared,
        lock=shared or draw.random() < 0.5,
        window_bytes=draw.choice([4 << 20, 4 << 20, 20_000]),
        bulk=draw.choice([0.0, 0.0, 0.1, 0.5]),
        names=draw.choice([1, 10, 300]),
    )
