"""The tracer's agent: one daemon thread that owns both sockets and their context, and moves bytes as `TracerMachine` says.

It never raises into the program: a fault of its own ends it, is counted, and turns recording off.
"""

from __future__ import annotations

import dataclasses
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final, assert_never

from frzmq.clock import Clocks, monotonic_ns
from frzmq.errors import ConfigError, WireError
from frzmq.tracer.answers import warn_not_taken
from frzmq.tracer.calls import not_here
from frzmq.tracer.events import (
    Close,
    Collect,
    Collected,
    CompleteFlush,
    CutTo,
    EndAsked,
    Event,
    FlushAsked,
    FrameRefused,
    FrameSent,
    GenerationCut,
    Instruction,
    LinkReceived,
    Parked,
    ReadSlices,
    ReadStrings,
    Release,
    ResumeRecording,
    SendFrame,
    SendHeartbeat,
    SendHello,
    SendPing,
    SlicesRead,
    Started,
    State,
    StopRecording,
    StringsRead,
    Ticked,
)
from frzmq.tracer.identity import Identity, LifeLock
from frzmq.tracer.leaving import is_awaited
from frzmq.tracer.machine import TracerMachine
from frzmq.tracer.ports import AgentBuffer, AgentSockets
from frzmq.tracer.reports import Reports
from frzmq.tracer.telling import AgentStats, make_heartbeat, make_hello
from frzmq.tracer.watch import Watch
from frzmq.transport.addresses import Endpoints
from frzmq.transport.sockets import NO_DESCRIPTORS
from frzmq.triggers import parse_triggers
from frzmq.wire.batch import Opening
from frzmq.wire.kinds import KINDS
from frzmq.wire.messages import (
    Ack,
    Advance,
    Lines,
    Ping,
    Pong,
    RecorderHeartbeat,
    Reject,
    Reported,
    Stop,
    ToRecorder,
    Welcome,
    decode_message,
    encode_message,
)

MAX_WAIT_MS: Final = 1_000
RETRY_MS: Final = 500
"""Until sockets are tried again for which there were no file descriptors."""
REFUSAL_NS: Final = 60_000_000_000
REFRESH_NS: Final = 1_000_000_000
"""The percentiles of triggers are so old at the most, while the agent is awake."""
START_S: Final = 1.0
"""Nobody waits longer for another thread that starts the agent."""
FORCE_S: Final = 0.25
"""After the time of an end is over, until the thread is left to itself."""
CLOSE_LINGER_MS: Final = 100
"""For the goodbye: it was acknowledged, or there is no time left."""


class Agent:
    """Ships ``buffer`` to the recorder at ``endpoints``. ``on_stop(reason)`` and ``on_resume()`` turn recording off and on; they are called by the
    agent's thread. Every method may be called from any thread but the agent's."""

    def __init__(
        self,
        identity: Identity,
        buffer: AgentBuffer,
        endpoints: Endpoints,
        *,
        on_stop: Callable[[str], object],
        on_resume: Callable[[], object],
        watch: Watch,
        make_sockets: Callable[[Endpoints], AgentSockets],
    ) -> None:
        self._identity = identity
        self._buffer = buffer
        self._endpoints = endpoints
        self._on_stop, self._on_resume = on_stop, on_resume
        self._watch = watch
        self._reports = Reports()
        self._refresh_ns = 0
        self._make_sockets = make_sockets
        self._machine = TracerMachine(identity.uuid)
        self.lock = LifeLock(identity.uuid, endpoints.directory)
        self._wake_fd, self._wake_end = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(self._wake_end, False)
        self._asked: deque[Event] = deque()
        self._tokens = count(1)
        self._waiters: dict[int, _Waiter] = {}
        self._thread: threading.Thread | None = None
        self._start_lock = threading.RLock()
        self._starting = False
        self._held = False
        self._parking = False
        self._until_ns: int | None = None
        self._sockets: AgentSockets | None = None
        self._broken = False
        self._errors = self._ignored = 0
        self._error = ""
        self._not_taken = ""
        self._findable = False
        """What it leaves in the directory says whose it is."""
        self._refusal_ns = 0
        self._frames = self._frame_bytes = self._refused = 0
        self._cpu_ns = 0

    # --- from the program's threads

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def finished(self) -> bool:
        """It ended in order, or is broken: it cannot be started any more."""
        return self._broken or self._machine.state is State.CLOSED

    @property
    def heard_of(self) -> bool:
        """A recorder knows of it; or one that has not refused it will find what it leaves in the directory."""
        return self._machine.joined or (self._findable and not self._not_taken and is_awaited(self._endpoints))

    def start(self) -> bool:
        """Starts the thread unless it runs. False: it cannot run, in an interpreter that ends or as it is finished."""
        if self.running:
            return True
        # two would share the sockets; a signal handler in the midst of it finds that it is being done
        if not self._start_lock.acquire(timeout=START_S):
            return self.running
        try:
            if self.running or self._starting:
                return True
            if self.finished:
                return False
            self._starting = True
            self._parking = False
            thread = threading.Thread(target=self._run_apart, name="frzmq-agent", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:
                return False
            finally:
                self._starting = False
            return True
        finally:
            self._start_lock.release()

    def park(self, timeout_s: float) -> bool:
        """Closes the sockets and ends the thread; `start` goes on from there. True when done in time."""
        self._parking = True
        return self._join(timeout_s)

    def park_for_fork(self, timeout_s: float) -> None:
        """And nobody else starts it before `start_after_fork`, by the same thread."""
        self._held = self._start_lock.acquire(timeout=START_S)
        self.park(timeout_s)

    def start_after_fork(self) -> bool:
        try:
            return self.start()
        finally:
            if self._held:
                self._held = False
                self._start_lock.release()

    def flush(self, timeout_s: float) -> bool:
        """True once all that was recorded before is in the ring; False when the time is over or nothing is recorded any more."""
        if not self.start():
            return False
        token, waiter = next(self._tokens), _Waiter()
        self._waiters[token] = waiter
        self._asked.append(FlushAsked(token))
        self._wake()
        if self._broken:
            self._complete(token, False)
        waiter.done.wait(timeout_s)
        self._waiters.pop(token, None)
        return waiter.ok

    def report(self, trigger: str, detail: str, trace: str) -> None:
        """Tells the recorder of a trigger whose condition is met. Waits for nothing."""
        self._reports.report(trigger, detail, trace)
        self._wake()

    def want_lines(self, trace: str) -> None:
        """Asks for the suppressed log lines of a trace; they come back to `give_back`."""
        self._reports.want_lines(trace)
        self._wake()

    def stop(self, timeout_s: float) -> bool:
        """Ships everything, says goodbye, ends the thread, within ``timeout_s`` and a little. True when all of it was acknowledged.

        Where no thread can be started any more the calling one does the work.
        """
        self._asked.append(EndAsked())
        if self.start():
            if not self._join(timeout_s):
                self.park(FORCE_S)
        elif not self.finished:
            self._parking = False
            self._until_ns = monotonic_ns() + round(timeout_s * 1e9)
            self._run()
        return self._machine.state is State.CLOSED and not self._machine.unacknowledged

    def dispose(self) -> None:
        """Lets go of its file descriptors; the thread has ended."""
        fd, self._wake_end = self._wake_end, -1
        if fd >= 0 and not self.running:
            os.close(fd)
            os.close(self._wake_fd)

    def stats(self) -> AgentStats:
        machine, totals = self._machine, self._buffer.totals()
        return AgentStats(
            state="broken" if self._broken else machine.state.value,
            uuid=self._identity.uuid,
            incarnation=machine.incarnation,
            generation=machine.generation,
            tseq=machine.tseq,
            recorded=totals.recorded,
            dropped=totals.dropped,
            overwritten=totals.overwritten,
            lost=machine.lost_records,
            unacknowledged=machine.unacknowledged,
            resent=machine.resent,
            frames=self._frames,
            frame_bytes=self._frame_bytes,
            refused=self._refused,
            errors=self._errors,
            ignored=self._ignored + machine.ignored,
            error=self._error or self._not_taken or machine.error,
            cpu_ns=self._cpu_ns,
        )

    def _join(self, timeout_s: float) -> bool:
        self._wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    def _wake(self) -> None:
        try:
            os.write(self._wake_end, b"w")
        except OSError:
            pass  # a full pipe wakes too; a closed one is of an agent that has ended

    # --- the agent's thread

    def _run_apart(self) -> None:
        not_here()
        self._run()

    def _run(self) -> None:
        before_ns = self._cpu_ns - time.thread_time_ns()
        try:
            self._sockets = sockets = self._sockets_in_time()
            if sockets is None:
                return
            try:
                self._loop(sockets, before_ns)
            finally:
                sockets.close(CLOSE_LINGER_MS if self._machine.state is State.CLOSED else 0)
        except Exception as error:  # noqa: BLE001  # whatever it is: the program must not see it
            self._fault(error)
        self._cpu_ns = before_ns + time.thread_time_ns()

    def _sockets_in_time(self) -> AgentSockets | None:
        """Once there are descriptors for them; until then the buffer holds what is recorded. None: the agent is to end before."""
        before = self._error
        while not self._parking and not self._over():
            try:
                sockets = self._make_sockets(self._endpoints)
            except OSError as error:
                if error.errno not in NO_DESCRIPTORS:
                    raise
                self._error = f"no connection to the recorder: {error.strerror}"
            else:
                self._error = before
                return sockets
            # not select: a descriptor may be above what that takes
            waits = select.poll()
            waits.register(self._wake_fd, select.POLLIN)
            waits.poll(RETRY_MS)
            self._drain_wake()
        return None

    def _loop(self, sockets: AgentSockets, before_ns: int) -> None:
        machine = self._machine
        self._give(Started())
        while machine.state is not State.CLOSED and not self._parking and not self._over():
            sockets.poll(self._timeout_ms(), self._wake_fd, room=machine.wants_room)
            self._drain_wake()
            while self._asked:
                self._give(self._asked.popleft())
            for data in sockets.receive():
                self._receive(data)
            self._take_refusal(sockets.problem)
            self._give(Ticked())
            self._watch_over()
            self._cpu_ns = before_ns + time.thread_time_ns()
        # what ended the program may have been a reason
        self._watch_over()
        self._give(Parked())

    def _watch_over(self) -> None:
        """Reports what the triggers found, once there is a recorder to tell."""
        while self._reports and self._machine.state in (State.RECORDING, State.CLOSED) and self._machine.joined:
            self._send(self._reports.take())
        now_ns = monotonic_ns()
        if now_ns >= self._refresh_ns:
            self._refresh_ns = now_ns + REFRESH_NS
            self._watch.refresh(now_ns)

    def _over(self) -> bool:
        return self._until_ns is not None and monotonic_ns() >= self._until_ns

    def _timeout_ms(self) -> int:
        if self._asked:
            return 0
        deadlines = [at for at in (self._machine.deadline_ns(), self._until_ns) if at is not None]
        if not deadlines:
            return MAX_WAIT_MS
        return max(0, min(MAX_WAIT_MS, -((monotonic_ns() - min(deadlines)) // 1_000_000)))

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake_fd, 4096)
        except BlockingIOError:
            pass  # nobody woke it

    def _receive(self, data: bytes) -> None:
        try:
            message = decode_message(data)
        except WireError as error:
            self._note(error)
            return
        match message:
            case Reported() | Lines():
                self._ignored += not self._reports.answered(message)
            case Welcome() | Reject() | Advance() | RecorderHeartbeat() | Ack() | Stop() | Pong():
                if isinstance(message, Welcome):
                    self._not_taken = ""
                    self._take_triggers(message.triggers)
                elif isinstance(message, Reject):
                    self._take_refusal(message.reason)
                self._give(LinkReceived(message))
            case _:
                self._note(WireError(f"link: wanted a message of a recorder, got {type(message).__name__}"))

    def _take_refusal(self, reason: str) -> None:
        """Said in the program's log, not oftener than once in REFUSAL_NS whatever a recorder says: nothing of this process is kept while it is so."""
        if not reason or reason == self._not_taken:
            return
        self._not_taken = reason
        now_ns = monotonic_ns()
        if now_ns >= self._refusal_ns:
            self._refusal_ns = now_ns + REFUSAL_NS
            warn_not_taken(reason)

    def _take_triggers(self, text: str) -> None:
        if not text:
            return
        try:
            self._watch.add(parse_triggers(text, "welcome: triggers"))
        except ConfigError as error:
            self._note(error)

    def _give(self, event: Event) -> None:
        """One event, and the answers to the questions that follow from it."""
        answer: Event | None = event
        while answer is not None:
            instructions = self._machine.handle(answer, monotonic_ns())
            answer = None
            for instruction in instructions:
                answer = self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> Event | None:
        """The answer, when it is a question."""
        match instruction:
            case SendFrame(data):
                return self._send_frame(data)
            case Collect(max_bytes):
                slices = tuple(self._buffer.slices(max_bytes))
                return Collected(slices, self._buffer.new_strings(), self._buffer.totals().dropped)
            case CutTo():
                return self._cut(instruction)
            case ReadSlices(slices):
                return SlicesRead(tuple(self._buffer.read(piece) for piece in slices))
            case ReadStrings():
                return StringsRead(self._buffer.strings_from_start())
            case SendHello():
                hello = make_hello(instruction, self._identity, self._buffer, self._endpoints, lock=self.lock.take())
                # whoever may read the file is not to speak for this tracer
                self.lock.say(encode_message(dataclasses.replace(hello, nonce=0)))
                self._findable = hello.shared and hello.lock
                self._send(hello)
            case SendHeartbeat():
                totals = self._buffer.totals()
                self._send(make_heartbeat(instruction, totals, self._watch, cpu_ns=self._cpu_ns, errors=self._errors))
            case SendPing(sent_ns):
                self._send(Ping(sent_ns))
            case Release(chunk, serial):
                self._buffer.release(chunk, serial)
            case CompleteFlush(token, ok):
                self._complete(token, ok)
            case StopRecording(reason):
                self._on_stop(reason)
            case ResumeRecording():
                self._on_resume()
            case Close():
                pass
            case _:
                assert_never(instruction)
        return None

    def _send(self, message: ToRecorder) -> None:
        """What is not taken is said again in time."""
        assert self._sockets is not None
        self._sockets.send(encode_message(message))

    def _send_frame(self, data: bytes) -> FrameSent | FrameRefused:
        assert self._sockets is not None
        if not self._sockets.send_batch(data):
            self._refused += 1
            return FrameRefused()
        self._frames += 1
        self._frame_bytes += len(data)
        return FrameSent()

    def _cut(self, asked: CutTo) -> GenerationCut:
        buffer = self._buffer
        clocks = Clocks.now()
        cut = buffer.cut(asked.generation)
        at_ns = clocks.monotonic_ns
        items, omitted = buffer.open_items(at_ns, cut.moments(at_ns, carry=asked.carry))
        back_ns = at_ns - cut.begin_ns(at_ns, carry=asked.carry)
        opening = Opening(
            at_ns - back_ns,
            max(0, clocks.boottime_ns - back_ns),
            clocks.wall_ns - back_ns,
            KINDS,
            tuple(buffer.writer_infos()),
            tuple(items),
            omitted,
        )
        return GenerationCut(
            at_ns, tuple(cut.slices), cut.writers, opening, buffer.new_strings(), buffer.totals().dropped
        )

    def _complete(self, token: int, ok: bool) -> None:
        for waiting in [t for t in list(self._waiters) if t <= token]:
            waiter = self._waiters.pop(waiting, None)
            if waiter is not None:
                waiter.ok = ok
                waiter.done.set()

    def _note(self, error: Exception) -> None:
        self._errors += 1
        self._error = f"{type(error).__name__}: {error}"[:1024]

    def _fault(self, error: Exception) -> None:
        """A bug of ours: nothing is recorded any more."""
        self._broken = True
        self._note(error)
        self._complete(1 << 64, False)
        try:
            self._on_stop(self._error)
        except Exception:  # noqa: BLE001  # it is what turns recording off: there is nothing further down to turn to
            self._errors += 1


class _Waiter:
    """A flush that is waited for."""

    __slots__ = ("done", "ok")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.ok = False
