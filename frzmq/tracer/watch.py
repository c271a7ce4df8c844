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
from frzmq.tracer import api
from frzmq.tracer.context import OperationState, current
from frzmq.tracer.faults import is_fault
from frzmq.tracer.instrument.logs import GIVEN_BACK
from frzmq.tracer.quantiles import Quantiles
from frzmq.triggers import Trigger, parse_trigger, parse_triggers
from frzmq.wire.messages import Lines

MAX_NAMES: Final = 256
"""Operations and spans of which one trigger knows the percentiles."""
HOUR_NS: Final = 3600 * 10**9
MAX_DETAIL_CHARS: Final = 200
LINES_GAP_NS: Final = 10 * 10**9
"""Suppressed log lines are asked for no oftener."""
OWN_LOGGER: Final = "frzmq"

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
        api.on_operation = self.operation_ended if self._operations or self._lines else None
        api.on_exception = self.exception_uncaught if self._errors else None
        api.on_log = self.logged if self._logs else None
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
            api.writer()
            for active in list(self._active.values()):
                if active.trigger.signal == number:
                    self._fire(active, f"{signal.Signals(number).name} received")
        except Exception as fault:  # noqa: BLE001  # between two lines of the program
            if is_fault(fault):
                api.swallow(fault)


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


def warn(path: str, reason: str, error: str) -> None:
    """One line in the program's log, from a thread of its own: a handler of the program's may wait, and the agent must not."""

    def say() -> None:
        import logging

        logger = logging.getLogger(OWN_LOGGER)
        if error:
            logger.warning("no snapshot: %s; %s", error, reason)
        else:
            logger.warning("snapshot %s: %s", path, reason)

    _aside(say)


def give_back(found: Lines) -> None:
    """The suppressed lines to the loggers that they were meant for, each marked with the trace, by a thread of its own."""

    def say() -> None:
        import logging

        mark = found.trace[:8]
        if found.error:
            logging.getLogger(OWN_LOGGER).warning("no suppressed lines of trace %s: %s", found.trace, found.error)
        if found.more:
            logging.getLogger(OWN_LOGGER).warning("%d earlier suppressed lines of trace %s", found.more, found.trace)
        for line in found.lines:
            logger = logging.getLogger(line.logger)
            message = f"[frzmq {mark}] {line.process}: {line.message}"
            record = logger.makeRecord(
                line.logger, line.level, "", 0, message, (), None, extra={GIVEN_BACK: found.trace}
            )
            record.created = line.wall_ns / 1e9
            record.msecs = line.wall_ns // 10**6 % 1000
            _handle(logger, record)

    if found.lines or found.error:
        _aside(say)


def _handle(logger: Any, record: Any) -> None:
    """As ``logger.handle`` does, but for handlers that cannot format it: such as uvicorn's, which want the arguments. They would show a traceback."""
    if not logger.filter(record):
        return
    while logger is not None:
        for handler in logger.handlers:
            if record.levelno >= handler.level and _can_format(handler, record):
                handler.handle(record)
        logger = logger.parent if logger.propagate else None


def _can_format(handler: Any, record: Any) -> bool:
    try:
        handler.format(record)
    except Exception:  # noqa: BLE001  # a formatter of the program's
        return False
    return True


def _aside(say: Callable[[], None]) -> None:
    try:
        threading.Thread(target=say, name="frzmq-log", daemon=True).start()
    except RuntimeError:
        # an interpreter that ends
        watch.errors += 1
