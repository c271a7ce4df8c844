"""The triggers of this process: what happens is held against their conditions, and one that is met is reported to the recorder by the agent.

Nothing here waits, logs, or raises into the program. Off, the hooks are None; a span is looked at only while a trigger is about spans.
"""

from __future__ import annotations

import re
import shlex
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import translate
from time import monotonic_ns as clock
from typing import Any, Final

from frzmq.config import format_duration
from frzmq.tracer import api, hub
from frzmq.tracer.answers import OWN_LOGGER
from frzmq.tracer.context import OperationState, current
from frzmq.tracer.faults import is_fault
from frzmq.tracer.quantiles import Quantiles
from frzmq.triggers import Trigger, parse_trigger, parse_triggers

MAX_NAMES: Final = 256
"""Operations and spans of which one trigger knows the percentiles."""
HOUR_NS: Final = 3600 * 10**9
MAX_DETAIL_CHARS: Final = 200
LINES_GAP_NS: Final = 10 * 10**9
"""Suppressed log lines are asked for no oftener."""

Report = Callable[[str, str, str], None]
"""The trigger's text, what met it, the trace in hex or ""."""


@dataclass(frozen=True, slots=True)
class EndedOperation:
    """What a predicate is asked about."""

    name: str
    seconds: float
    error: str
    """The type of the exception that ended it, or how it failed; ""."""
    trace: str
    """In hex."""
    attributes: dict[str, object]


Predicate = Callable[[EndedOperation], object]


class _Active:
    """A trigger with what it remembers."""

    __slots__ = ("_fired_ns", "_hour", "_matches", "faulty", "predicate", "quantiles", "trigger")

    def __init__(self, trigger: Trigger, predicate: Predicate | None) -> None:
        self.trigger = trigger
        self.predicate = predicate
        self.faulty = False
        """Its predicate raised: it is not asked any more."""
        self.quantiles: dict[str, Quantiles] = {}
        self._matches = re.compile(translate(trigger.pattern)).match if trigger.pattern != "*" else None
        self._fired_ns: int | None = None
        self._hour: deque[int] = deque(maxlen=trigger.per_hour)

    def matches(self, name: str) -> bool:
        return self._matches is None or self._matches(name) is not None

    def may_fire(self, now_ns: int) -> bool:
        """Once in its cooldown, and not too often an hour; the recorder asks the same of all processes together."""
        if self._fired_ns is not None and now_ns - self._fired_ns < self.trigger.cooldown_ns:
            return False
        if len(self._hour) == self.trigger.per_hour and now_ns - self._hour[0] < HOUR_NS:
            return False
        self._fired_ns = now_ns
        self._hour.append(now_ns)
        return True

    def is_slow(self, name: str, took_ns: int) -> bool:
        trigger = self.trigger
        if trigger.over_ns:
            return took_ns > trigger.over_ns
        known = self.quantiles.get(name)
        if known is None:
            if len(self.quantiles) < MAX_NAMES:
                self.quantiles[name] = Quantiles(clock())
                self.quantiles[name].add(took_ns)
            return False
        known.add(took_ns)
        return known.limit_ns is not None and took_ns > known.limit_ns * trigger.factor


class Watch:
    """Of this process. ``report`` is the agent's."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.errors = 0
        """Predicates that raised."""
        self.problem = ""
        """Why a trigger does not work, the last time."""
        # a signal handler may come to it in the midst of it
        self._lock = threading.RLock()
        self._active: dict[str, _Active] = {}
        self._operations: tuple[_Active, ...] = ()
        self._spans: tuple[_Active, ...] = ()
        self._errors: tuple[_Active, ...] = ()
        self._logs: tuple[_Active, ...] = ()
        self._handlers: dict[int, Any] = {}
        self.want_lines: Callable[[str], None] | None = None
        """Asks for the suppressed log lines of a trace."""
        self._lines = False
        self._lines_at_ns: int | None = None

    def add(self, triggers: Iterable[Trigger], predicate: Predicate | None = None, *, lines: bool = False) -> None:
        """Those that are there already stay as they are. ``lines``: operations that fail, or are too slow for a trigger, get their suppressed log lines back."""
        with self._lock:
            self._lines = self._lines or lines
            for trigger in triggers:
                if trigger.text not in self._active:
                    self._active[trigger.text] = _Active(trigger, predicate)
                    if trigger.on == "signal":
                        self._catch(trigger)
            self._arrange()

    def clear(self) -> None:
        with self._lock:
            self._active.clear()
            self._lines = False
            self._arrange()
            for number, before in self._handlers.items():
                if threading.current_thread() is threading.main_thread():
                    signal.signal(number, before)
            self._handlers.clear()

    def after_fork(self) -> None:
        """In the child, which has no agent yet: what it reports goes to its own."""
        self._lock = threading.RLock()
        self.report = self.want_lines = None

    def refresh(self, now_ns: int) -> None:
        """By the agent, about once a second."""
        for active in (*self._operations, *self._spans):
            if active.trigger.percentile:
                for quantiles in list(active.quantiles.values()):
                    quantiles.refresh(active.trigger.percentile, now_ns)

    def _arrange(self) -> None:
        all_ = list(self._active.values())
        spans = tuple(a for a in all_ if a.trigger.target == "span")
        self._operations = tuple(a for a in all_ if a.trigger.on in ("slow", "error", "when") and a not in spans)
        self._errors = tuple(a for a in all_ if a.trigger.on == "error" and a.trigger.pattern == "*")
        self._logs = tuple(a for a in all_ if a.trigger.on == "log")
        self._spans = spans
        hub.on_operation = self.operation_ended if self._operations or self._lines else None
        hub.on_exception = self.exception_uncaught if self._errors else None
        hub.on_log = self.logged if self._logs else None
        api.watch_spans(self.span_ended if spans else None)

    # --- what happens

    def operation_ended(self, state: OperationState, took_ns: int, error: str) -> None:
        name = state.name
        bad = bool(error)
        for active in self._operations:
            trigger = active.trigger
            if not active.matches(name):
                continue
            if trigger.on == "slow":
                if active.is_slow(name, took_ns):
                    bad = True
                    self._fire(active, f"{name} took {format_duration(took_ns)}", state.trace)
            elif trigger.on == "error":
                if error:
                    self._fire(active, f"{name} failed: {error}", state.trace)
            elif not active.faulty and self._asked(active, state, took_ns, error):
                self._fire(active, name, state.trace)
        if bad and self._lines:
            self._ask_lines(state)

    def _ask_lines(self, state: OperationState) -> None:
        """Of the outermost operation of a trace in this process: what it is about has then all been said."""
        around = state.parent
        now_ns = clock()
        if (around is not None and around.trace == state.trace) or self.want_lines is None:
            return
        if self._lines_at_ns is None or now_ns - self._lines_at_ns >= LINES_GAP_NS:
            self._lines_at_ns = now_ns
            self.want_lines(state.trace.hex())

    def span_ended(self, name: str, took_ns: int) -> None:
        for active in self._spans:
            if active.matches(name) and active.is_slow(name, took_ns):
                self._fire(active, f"{name} took {format_duration(took_ns)}")

    def exception_uncaught(self, error: str, where: str) -> None:
        for active in self._errors:
            self._fire(active, f"uncaught {error} ({where})")

    def logged(self, level: int, logger: str, message: str) -> None:
        if logger == OWN_LOGGER:
            return
        for active in self._logs:
            if level >= active.trigger.level and active.matches(logger):
                self._fire(active, f"{logger}: {message}")

    def _asked(self, active: _Active, state: OperationState, took_ns: int, error: str) -> bool:
        assert active.predicate is not None
        ended = EndedOperation(state.name, took_ns / 1e9, error, state.trace.hex(), state.notes or {})
        try:
            return bool(active.predicate(ended))
        except Exception as fault:  # noqa: BLE001  # it is the program's, and of a request that is none the worse for it
            active.faulty = True
            self.errors += 1
            self.problem = (
                f"{active.trigger.text}: its predicate raised {type(fault).__name__}, and is not asked any more"
            )
            return False

    def _fire(self, active: _Active, detail: str, trace: bytes | None = None) -> None:
        report = self.report
        if report is None or not active.may_fire(clock()):
            return
        if trace is None:
            state = current.get()
            trace = state.trace if state is not None else b""
        report(active.trigger.text, detail[:MAX_DETAIL_CHARS], trace.hex())

    # --- signals

    def _catch(self, trigger: Trigger) -> None:
        """Only the main thread may ask for a signal; the handler that was there is called too."""
        number = trigger.signal
        if number in self._handlers:
            return
        try:
            before = signal.getsignal(number)

            def handler(received: int, frame: Any) -> None:
                self._signalled(received)
                if callable(before):
                    before(received, frame)

            signal.signal(number, handler)
        except ValueError:
            self.problem = f"{trigger.text}: wanted the main thread to ask for a signal, got another"
            return
        self._handlers[number] = before

    def _signalled(self, number: int) -> None:
        try:
            # a process that has recorded nothing yet joins now
            hub.writer()
            for active in list(self._active.values()):
                if active.trigger.signal == number:
                    self._fire(active, f"{signal.Signals(number).name} received")
        except Exception as fault:  # noqa: BLE001  # between two lines of the program
            if is_fault(fault):
                hub.swallow(fault)


watch: Final = Watch()


def trigger(on: str | Predicate, /, **options: object) -> None:
    """From now on a snapshot of all processes is left in the recorder's directory when ``on`` is so in this one.

    ``on``: a text such as "slow 500ms", "slow p99*3", "error", "log ERROR" or "signal SIGUSR2", or a function that is asked about each operation that has ended
    (`EndedOperation`) and says whether it is one. ``options``: operation, span, logger (patterns), before, after, cooldown (seconds, or a text such as "2m"), per_hour; others are labels.
    Raises ConfigError.
    """
    predicate = None
    if callable(on):
        predicate = on
        name = options.pop("name", None) or getattr(on, "__qualname__", type(on).__name__)
        on = f"when {shlex.quote(str(name))}"
    text = " ".join([on, *(f"{name}={shlex.quote(_text(name, value))}" for name, value in options.items())])
    if predicate is None:
        watch.add(parse_triggers(text, "trigger"))
    else:
        watch.add([parse_trigger(text, "trigger")], predicate)


def _text(name: str, value: object) -> str:
    return f"{value}s" if name in ("before", "after", "cooldown") and type(value) in (int, float) else str(value)
