"""What the triggers of all processes report, and the deaths that the recorder sees, made into few snapshots.

A report begins an incident; what is reported until its snapshot is due joins it, whoever reports it and by whichever trigger. A trigger in its cooldown, or over its
number an hour, begins none, but still joins one that is there. Pure: no IO, no clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from frzmq.triggers import Trigger
from frzmq.wire.messages import Report

COALESCE_NS: Final = 20_000_000
"""What happens together is reported within so long."""
MIN_GAP_NS: Final = 5 * 10**9
"""From the begin of one snapshot to the next, when different triggers follow each other."""
MAX_REASONS: Final = 16
"""The rest is a number."""
MAX_KNOWN: Final = 1024
"""Triggers whose cooldowns are remembered."""
HOUR_NS: Final = 3600 * 10**9
MAX_REASON_CHARS: Final = 1024
WISHED: Final = frozenset({"exit status 0", "SIGTERM", "SIGINT", "SIGHUP"})
DEATH: Final = Trigger("death", "death", cooldown_ns=MIN_GAP_NS, per_hour=30)
"""Of the recorder itself: a process that is killed looks out for nothing. A worker that crashes again and again does not fill the directory."""


@dataclass(slots=True)
class Incident:
    """One snapshot to be made. ``tell``: peer and id of the report that began it; None: nobody waits for an answer."""

    tell: tuple[bytes, int] | None
    service: str
    on: str
    begun_ns: int
    due_ns: int
    before_ns: int
    """0: all that is held."""
    reasons: list[str] = field(default_factory=list)
    more: int = 0

    def reason(self) -> str:
        parts = [*self.reasons, f"and {self.more} more"] if self.more else self.reasons
        return "; ".join(parts)[:MAX_REASON_CHARS]

    def last_ns(self, now_ns: int) -> int:
        """As in a SnapshotRequest."""
        return self.before_ns + now_ns - self.begun_ns if self.before_ns else 0


class Incidents:
    """``reports``, ``suppressed``: how many came, and how many of these are in no snapshot."""

    def __init__(self) -> None:
        self.reports = 0
        self.suppressed = 0
        self._fired: OrderedDict[str, deque[int]] = OrderedDict()
        self._next: Incident | None = None
        self._not_before_ns = 0

    def report(self, peer: bytes, report: Report, trigger: Trigger, process: str, service: str, now_ns: int) -> None:
        self._add((peer, report.id), trigger, _reason(report, trigger, process), service, now_ns)

    def death(self, process: str, how: str, service: str, now_ns: int) -> None:
        """Nothing, where somebody wished it, or the process says that all is well."""
        if how not in WISHED:
            self._add(None, DEATH, _printable(f"death: {process} ended by {how}"), service, now_ns)

    def _add(self, tell: tuple[bytes, int] | None, trigger: Trigger, reason: str, service: str, now_ns: int) -> None:
        self.reports += 1
        incident = self._next
        if not self._may_fire(trigger, now_ns, joins=incident is not None):
            self.suppressed += 1
            return
        if incident is None:
            due_ns = max(now_ns + max(trigger.after_ns, COALESCE_NS), self._not_before_ns)
            self._next = Incident(tell, service, trigger.on, now_ns, due_ns, trigger.before_ns, [reason])
            return
        incident.due_ns = max(incident.due_ns, now_ns + trigger.after_ns)
        if incident.before_ns:
            incident.before_ns = max(incident.before_ns, trigger.before_ns) if trigger.before_ns else 0
        if len(incident.reasons) < MAX_REASONS:
            incident.reasons.append(reason)
        else:
            incident.more += 1

    def deadline_ns(self) -> int | None:
        return self._next.due_ns if self._next is not None else None

    def take_due(self, now_ns: int) -> Incident | None:
        """The incident whose snapshot is to begin now."""
        incident = self._next
        if incident is None or now_ns < incident.due_ns:
            return None
        self._next = None
        self._not_before_ns = now_ns + MIN_GAP_NS
        return incident

    @property
    def pending(self) -> bool:
        return self._next is not None

    def hurry(self, now_ns: int) -> None:
        """The recorder is to end: the next snapshot begins now, or never."""
        if self._next is not None:
            self._next.due_ns = now_ns

    def clear(self) -> None:
        """The recorder is off: what is under way comes to nothing."""
        if self._next is not None:
            self.suppressed += len(self._next.reasons) + self._next.more
            self._next = None

    def _may_fire(self, trigger: Trigger, now_ns: int, *, joins: bool) -> bool:
        fired = self._fired.get(trigger.text)
        if fired is None:
            fired = self._fired[trigger.text] = deque(maxlen=trigger.per_hour)
            if len(self._fired) > MAX_KNOWN:
                self._fired.popitem(last=False)
        if joins:
            # one line of the reasons costs nothing: also the second process of a storm is named
            if not fired or now_ns - fired[-1] >= trigger.cooldown_ns:
                fired.append(now_ns)
            return True
        if fired and now_ns - fired[-1] < trigger.cooldown_ns:
            return False
        if len(fired) == trigger.per_hour and now_ns - fired[0] < HOUR_NS:
            return False
        fired.append(now_ns)
        return True


def _reason(report: Report, trigger: Trigger, process: str) -> str:
    labels = "".join(f", {name}={value}" for name, value in trigger.labels)
    trace = f", trace {report.trace}" if report.trace else ""
    text = f"{trigger.on}: {report.detail or trigger.text} in {process}{trace}{labels}"
    return _printable(text)


def _printable(text: str) -> str:
    """It goes into logs, line by line, and what it names is often a client's to choose."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
