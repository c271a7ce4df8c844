"""What triggers found and who asks for lines, until the recorder is told; and its answers to that."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import Final

from frzmq.tracer.answers import give_back, warn
from frzmq.wire.messages import Lines, LinesWanted, Report, Reported

MAX_REPORTS: Final = 64


class Reports:
    """The program's threads add to it, and the agent's takes."""

    def __init__(self) -> None:
        self._waiting: deque[Report | LinesWanted] = deque(maxlen=MAX_REPORTS)
        self._ids = count(1)
        self._unanswered: deque[int] = deque(maxlen=MAX_REPORTS)
        """Ids of those that were sent: nobody else is to write into the program's log."""

    def report(self, trigger: str, detail: str, trace: str) -> None:
        self._waiting.append(Report(next(self._ids), trigger, detail, trace))

    def want_lines(self, trace: str) -> None:
        self._waiting.append(LinesWanted(next(self._ids), trace))

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> Report | LinesWanted:
        """The next, which is sent now."""
        message = self._waiting.popleft()
        self._unanswered.append(message.id)
        return message

    def answered(self, answer: Reported | Lines) -> bool:
        """Says it in the program's log. False: nobody asked."""
        if answer.id not in self._unanswered:
            return False
        self._unanswered.remove(answer.id)
        if isinstance(answer, Reported):
            warn(answer.path, answer.reason, answer.error)
        else:
            give_back(answer)
        return True
