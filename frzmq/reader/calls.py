"""The calls of functions, from their records: begins and ends on each track, what was open when a generation began, and what was too frequent to be recorded."""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from frzmq.reader.model import Call, CallFilter, Code, QuietCalls, Record

KINDS: Final = frozenset(
    {
        "call_begin", "call_end", "call_fail", "call_resume", "call_suspend", "call_open", "call_quiet", "calls",
    }
)  # fmt: skip
_NAME: Final = re.compile(r"(.*) \((.*):([0-9]{1,9})\)", re.DOTALL)


@lru_cache(maxsize=65536)
def code_of(text: str) -> Code:
    """``module.qualname (file:line)``, taken apart."""
    found = _NAME.fullmatch(text)
    return Code(found[1], found[2], int(found[3])) if found else Code(text, "", 0)


@dataclass(slots=True)
class OpenCall:
    """One that is being read."""

    number: int
    thread: int
    code: str
    begin_ns: int | None
    operation: int | None
    depth: int
    resumed: bool = False
    begin_held: bool = True
    end_ns: int | None = None
    end_held: bool = False
    error: str = ""
    suspended: bool = False


@dataclass(slots=True)
class CallTrack:
    """What is open on one track, and (``over``) what may have ended in a gap."""

    process: int
    track: int
    stack: list[OpenCall] = field(default_factory=list)
    over: list[OpenCall] = field(default_factory=list)


class Calls:
    """Give it every record of `KINDS` in the order of time, and the gaps, then ask once for `built`."""

    def __init__(self) -> None:
        self._all: list[tuple[CallTrack, OpenCall]] = []
        self._tracks: dict[int, CallTrack] = {}
        self._quiet: list[QuietCalls] = []
        self._filters: dict[tuple[int, str, str, int], CallFilter] = {}

    def take(self, record: Record, process: int, track: int, thread: int, operation: int | None) -> bool:
        """Of a record on the track of that number; of `call_open` on the track that it names. False: an end without a begin."""
        fields: Any = record.fields
        on = self._track(process, track)
        time_ns = record.time_ns
        match record.name:
            case "call_begin" | "call_resume":
                call = self._new(on, thread, fields["code"], time_ns, operation, len(on.stack))
                call.resumed = record.name == "call_resume"
                on.stack.append(call)
            case "call_open":
                self._open(on, thread, fields["code"], time_ns - fields["age"])
            case "call_quiet":
                self._take_quiet(process, time_ns, fields)
            case "calls":
                key = (process, fields["include"], fields["exclude"], fields["limit"])
                self._filters.setdefault(key, CallFilter(process, time_ns, *key[1:]))
            case _:
                return self._end(on, thread, operation, record)
        return True

    def lost(self, process: int, tracks: Iterable[int], time_ns: int) -> None:
        """Records of these tracks are missing from here on: what is open may have ended."""
        for number in tracks:
            on = self._track(process, number)
            for call in on.stack:
                call.end_ns = time_ns
            on.over += on.stack
            on.stack.clear()

    def thread_ended(self, process: int, track: int, time_ns: int) -> None:
        self.lost(process, (track,), time_ns)

    def built(self) -> tuple[Call, ...]:
        """At the end: what it was built of goes as it is built."""
        unbuilt: list[Any] = self._all
        self._all = []
        for n, (on, call) in enumerate(unbuilt):
            unbuilt[n] = Call(
                call.number,
                on.process,
                call.thread,
                on.track,
                code_of(call.code),
                call.begin_ns,
                call.end_ns,
                call.error,
                call.operation,
                call.depth,
                call.resumed,
                call.suspended,
                call.begin_held,
                call.end_held,
            )
        return tuple(unbuilt)

    def quiet(self) -> tuple[QuietCalls, ...]:
        return tuple(self._quiet)

    def filters(self) -> tuple[CallFilter, ...]:
        return tuple(self._filters.values())

    def _track(self, process: int, track: int) -> CallTrack:
        found = self._tracks.get(track)
        if found is None:
            found = self._tracks[track] = CallTrack(process, track)
        return found

    def _new(
        self, on: CallTrack, thread: int, code: str, begin_ns: int | None, operation: int | None, depth: int
    ) -> OpenCall:
        call = OpenCall(len(self._all), thread, code, begin_ns, operation, depth)
        self._all.append((on, call))
        return call

    def _open(self, on: CallTrack, thread: int, code: str, begin_ns: int) -> None:
        key = (begin_ns, code)
        if any((call.begin_ns, call.code) == key for call in on.stack):
            return
        call = next((call for call in on.over if (call.begin_ns, call.code) == key), None)
        if call is not None:
            on.over.remove(call)
            call.end_ns = None
        else:
            call = self._new(on, thread, code, begin_ns, None, sum(_begin_of(c) <= begin_ns for c in on.stack))
            call.begin_held = False
        insort(on.stack, call, key=_begin_of)

    def _end(self, on: CallTrack, thread: int, operation: int | None, record: Record) -> bool:
        fields: Any = record.fields
        code = fields["code"]
        call = None
        at = _innermost(on.stack, code)
        if at is not None:
            call = on.stack[at]
            # the ends of those inside of it are lost
            for inner in on.stack[at + 1 :]:
                inner.end_ns = record.time_ns
            del on.stack[at:]
        elif (at := _innermost(on.over, code)) is not None:
            call = on.over.pop(at)
        begun = call is not None
        if call is None:
            call = self._new(on, thread, code, None, operation, len(on.stack))
            call.begin_held = False
        call.end_ns, call.end_held, call.error = record.time_ns, True, fields.get("error", "")
        call.suspended = record.name == "call_suspend"
        return begun

    def _take_quiet(self, process: int, time_ns: int, fields: Any) -> None:
        state, code = fields["state"], code_of(fields["code"])
        begin_ns = time_ns - fields["ns"]
        self._quiet.append(
            QuietCalls(process, code, begin_ns, time_ns, fields["count"], state == "uncounted", state == "calm")
        )


def _begin_of(call: OpenCall) -> int:
    return call.begin_ns or 0


def _innermost(calls: list[OpenCall], code: str) -> int | None:
    for n in range(len(calls) - 1, -1, -1):
        if calls[n].code == code:
            return n
    return None
