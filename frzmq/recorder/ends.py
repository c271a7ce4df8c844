"""How a tracer ends: silent, dead, stopped, forgotten. A part of the recorder's machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frzmq.config import RecorderConfig
from frzmq.recorder.backoff import BackOff
from frzmq.recorder.control import RECOVERY_NS
from frzmq.recorder.events import ForgetTracer, ReadTail, Seal, SendLink, State, TailRead, TracerDied, Unwatched
from frzmq.recorder.tracers import MAX_ERROR_CHARS, Tracer
from frzmq.wire.messages import Stop

if TYPE_CHECKING:
    from frzmq.recorder.machine import RecorderMachine

DEATH_GRACE_NS = 100_000_000
"""For so long frames of a dead tracer, which were under way, are taken."""


@dataclass(slots=True)
class Ends:
    machine: RecorderMachine
    config: RecorderConfig
    _back_off: BackOff = field(default_factory=BackOff)

    def died(self, event: TracerDied, now_ns: int) -> None:
        tracer = self.machine.known.by_uuid.get(event.uuid)
        if tracer is not None and tracer.died_ns is None and tracer.state in (State.LIVE, State.SILENT):
            tracer.died_ns = now_ns
            tracer.ended_how = event.how
            self.machine.wake_at(now_ns + DEATH_GRACE_NS)

    def unwatched(self, event: Unwatched) -> None:
        tracer = self.machine.known.by_uuid.get(event.uuid)
        if tracer is not None:
            tracer.watched = False
            tracer.hello = dataclasses.replace(tracer.hello, lock=False)
            self.machine.ring.set_live(tracer.number, tracer.stands)

    def tail_read(self, event: TailRead, now_ns: int) -> bool:
        """True: of a dead tracer, which ends now, at a tick."""
        tracer = self.machine.known.by_uuid.get(event.uuid)
        if tracer is None or tracer.state not in (State.LIVE, State.SILENT):
            return False
        if tracer.recover_until_ns is None:
            self.machine.control.tail_read(tracer.number, event)
            return False
        tracer.recover_until_ns = now_ns
        problem = event.problem
        if event.tail is not None:
            tracer.stream.recover(event.tail, tracer.hello, tracer.nonce)
            tracer.says_end = event.tail.says_end
            problem = "; ".join(event.tail.problems)
        if problem:
            self.machine.note_error(f"{tracer.name}: its last moments: {problem}")
        return True

    def key_revoked(self, key: str, now_ns: int) -> None:
        for tracer in self.machine.known.by_uuid.values():
            if tracer.key == key and tracer.state in (State.LIVE, State.SILENT):
                self.stop(tracer, f"its key {key!r} was revoked", now_ns)

    def tick(self, now_ns: int) -> None:
        for tracer in self.machine.live():
            if tracer.died_ns is None and now_ns - tracer.heard_ns >= self.config.silence_ns:
                # what is open stays so: one that was suspended goes on where it was
                self.leave(tracer, State.SILENT)
        for tracer in self.machine.silent():
            if self._is_given_up(tracer, now_ns):
                self.machine.put(tracer, tracer.stream.close(Seal.SILENCE), now_ns)
                self.leave(tracer, State.SILENT)
        for tracer in self.machine.known.dying():
            self._bury_in_time(tracer, now_ns)

    def _bury_in_time(self, tracer: Tracer, now_ns: int) -> None:
        assert tracer.died_ns is not None
        if now_ns - tracer.died_ns < DEATH_GRACE_NS:
            self.machine.wake_at(tracer.died_ns + DEATH_GRACE_NS)
            return
        if tracer.hello.shared and tracer.recover_until_ns is None:
            tracer.recover_until_ns = now_ns + RECOVERY_NS
            self.machine.emit(ReadTail(tracer.hello.uuid, tracer.stream.stored_records()))
        if tracer.recover_until_ns is not None and now_ns < tracer.recover_until_ns:
            self.machine.wake_at(tracer.recover_until_ns)
            return
        self.machine.put(tracer, tracer.stream.close(Seal.DEATH), now_ns)
        tracer.error = "it ended unheard" if tracer.says_end else f"it died: {tracer.ended_how}"
        self.leave(tracer, State.DEAD)
        if self.machine.on and self.config.on_death and not tracer.says_end:
            self.machine.control.incidents.death(tracer.name, tracer.ended_how, tracer.hello.service, now_ns)

    def leave(self, tracer: Tracer, state: State) -> None:
        """Nothing of it is open any more."""
        self.machine.changed.add(tracer.number)
        tracer.state = state
        self.machine.ring.charge(tracer.number, tracer.stream.charged_bytes)
        self.machine.ring.set_live(tracer.number, tracer.stands)
        if tracer.watched and state is not State.SILENT:
            tracer.watched = False
            self.machine.emit(ForgetTracer(tracer.hello.uuid))

    def stop(self, tracer: Tracer, error: str, now_ns: int) -> None:
        """It sent what it must not: it alone is stopped."""
        tracer.error = error[:MAX_ERROR_CHARS]
        tracer.unacknowledged_bytes = 0
        tracer.ack_now = False
        if self.config.mode != "embedded":
            tracer.rejoin_at_ns = now_ns + self._back_off.stopped(tracer.hello.uuid, now_ns)
        self.machine.put(tracer, tracer.stream.close(Seal.STOP), now_ns)
        self.leave(tracer, State.STOPPED)
        self.machine.note_error(f"{tracer.name}: {error}")
        self.send_stop(tracer, now_ns)

    def send_stop(self, tracer: Tracer, now_ns: int) -> None:
        rejoin_ns = 0 if self.config.mode == "embedded" else max(tracer.rejoin_at_ns - now_ns, 1)
        self.machine.emit(SendLink(tracer.peer, Stop(tracer.error, rejoin_ns)))

    def forget(self, now_ns: int) -> None:
        """Those that are not to go on, and of which nothing is kept."""
        for tracer in list(self.machine.known.by_number.values()):
            if (
                tracer.stands
                or self.machine.ring.kept(tracer.number)
                or (tracer.state is State.STOPPED and now_ns < tracer.rejoin_at_ns)
            ):
                continue
            if tracer.state is State.SILENT and not self._is_given_up(tracer, now_ns):
                continue
            if tracer.watched:
                self.machine.emit(ForgetTracer(tracer.hello.uuid))
            self.machine.ring.forget(tracer.number)
            self.machine.known.remove(tracer)

    def _is_given_up(self, tracer: Tracer, now_ns: int) -> bool:
        """Nobody can tell whether it lives, and what it had recorded when it fell silent is too old by now."""
        waited_ns = now_ns - tracer.heard_ns
        return not tracer.stands and not tracer.dying and waited_ns >= self.config.silence_ns + self.config.min_age_ns
