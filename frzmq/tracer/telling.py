"""What the agent tells of itself: to the recorder its hello and its heartbeats, to the program its counts."""

from __future__ import annotations

import os
from dataclasses import dataclass

from frzmq.clock import Clocks
from frzmq.tracer.events import SendHeartbeat, SendHello
from frzmq.tracer.identity import Identity
from frzmq.tracer.ports import AgentBuffer
from frzmq.tracer.slices import Totals
from frzmq.tracer.watch import Watch
from frzmq.transport.addresses import Endpoints
from frzmq.wire.messages import Hello, TracerHeartbeat
from frzmq.wire.version import OLDEST_WIRE_VERSION, WIRE_VERSION


@dataclass(frozen=True, slots=True)
class AgentStats:
    """``state``: of the machine, or ``broken``. Counts are of records unless the name says otherwise."""

    state: str
    uuid: bytes
    incarnation: int
    generation: int
    tseq: int
    recorded: int
    dropped: int
    overwritten: int
    lost: int
    """Overwritten after they were sent, before they were acknowledged."""
    unacknowledged: int
    """Batches."""
    resent: int
    """Batches."""
    frames: int
    frame_bytes: int
    refused: int
    """Frames, each time that the data socket did not take one."""
    errors: int
    ignored: int
    """Messages that no honest recorder says."""
    error: str
    """The last fault of the agent, or why the recorder stopped this tracer."""
    cpu_ns: int


def make_hello(said: SendHello, identity: Identity, buffer: AgentBuffer, endpoints: Endpoints, *, lock: bool) -> Hello:
    clocks = Clocks.now()
    directory, path = endpoints.directory, buffer.path
    shared = directory is not None and path is not None and os.path.dirname(path) == directory
    return Hello(
        uuid=identity.uuid,
        incarnation=said.incarnation,
        wire_oldest=OLDEST_WIRE_VERSION,
        wire_newest=WIRE_VERSION,
        pid=identity.pid,
        service=identity.service,
        generation=said.generation,
        parent_pid=identity.parent_pid,
        host=identity.host,
        machine=identity.machine,
        program=identity.program,
        python=identity.python,
        buffer_kind=buffer.kind if shared else f"{buffer.kind} private",
        buffer_bytes=buffer.size_bytes,
        shared=shared,
        lock=lock,
        monotonic_ns=clocks.monotonic_ns,
        boottime_ns=clocks.boottime_ns,
        wall_ns=clocks.wall_ns,
        nonce=said.nonce,
    )


def make_heartbeat(beat: SendHeartbeat, totals: Totals, watch: Watch, *, cpu_ns: int, errors: int) -> TracerHeartbeat:
    return TracerHeartbeat(
        generation=beat.generation,
        tseq=beat.tseq,
        recorded=totals.recorded,
        dropped=totals.dropped,
        overwritten=totals.overwritten,
        agent_cpu_ns=cpu_ns,
        errors=errors,
        offset_ns=beat.offset_ns,
        rtt_ns=beat.rtt_ns,
        sampled_ns=beat.sampled_ns,
        trigger_errors=watch.errors,
        trigger_problem=watch.problem[:256],
    )
