"""What a RecorderMachine must answer, and what its generations must be, by an oracle of plain dicts and sets: the half of the model that predicts and compares.

An action changes the oracle, which puts into ``expected`` what it awaits, and gives the machine its event (`RecorderPredicted.give`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)

from frzmq.config import RecorderConfig
from frzmq.recorder.events import (
    SendLink,
    SendReply,
    WriteSnapshot,
)
from frzmq.recorder.machine import RecorderMachine
from frzmq.wire.batch import Header
from frzmq.wire.ledger import PLACES, WriterLedger, writers_disagree
from frzmq.wire.messages import (
    Ack,
    Advance,
    ErrorReply,
    FlushReply,
    Reject,
    Stop,
    Welcome,
)
from support.recorder_oracle import END, FLUSH, GOODBYE, MS, OPEN, RECORDS, STRINGS, Known, S, Tracer, raw

BOOT = b"boot" * 4
CONFIG = RecorderConfig(
    min_age_ns=10**17,
    max_bytes=1 << 30,
    max_generation_bytes=1 << 28,
    advance_every_ns=S,
    heartbeat_ns=250 * MS,
    silence_ns=5 * S,
    flush_timeout_ns=2 * S,
    mode="service",
    on_death=False,  # a snapshot of its own accord is test_machine's
)
CONTROL = b"client"


class RecorderPredicted(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100 * S
        self.nonces = 0
        self.machine = RecorderMachine(CONFIG, BOOT, self._nonce, self.now)
        self.tracers: list[Tracer] = []
        self.known: dict[bytes, Known] = {}
        self.old: list[Known] = []
        self.on = True
        self.expected: list[Any] = []
        self.flushes: list[dict[str, Any]] = []
        self.snapshot: dict[str, Any] | None = None
        self.stopping: int | None = None
        self.errors = 0
        self.next_advance = self.now + S
        self.next_heartbeat = self.now + 250 * MS
        self.ids = 0
        self.stops: dict[bytes, list[int]] = {}
        self.snapshots = 0

    def _nonce(self) -> int:
        self.nonces += 1
        return self.nonces * 1000

    # --- the comparison

    def give(self, event: Any) -> list[Any]:
        """The machine's instructions must be what the oracle put into ``expected`` (in any order)."""
        self._progress()
        got = self.machine.handle(event, self.now)
        plain = [
            g
            for g in got
            if not isinstance(g, WriteSnapshot) and type(g).__name__ not in ("WatchTracer", "ForgetTracer")
        ]
        want, self.expected = self.expected, []
        written = [w for w in want if isinstance(w, tuple)]
        assert [_plain(g) for g in sorted(plain, key=repr)] == [
            _plain(w) for w in sorted((w for w in want if not isinstance(w, tuple)), key=repr)
        ]
        views = [g for g in got if isinstance(g, WriteSnapshot)]
        assert [("write", v.snapshot, v.clients, v.missing) for v in views] == written
        for view in views:
            assert len(view.view.streams) == len(self.known) + len(self.old)
        for g in got:
            if isinstance(g, SendLink) and isinstance(g.message, Advance | Welcome):
                for tracer in self.tracers:
                    if tracer.peer == g.peer:
                        tracer.told = g.message.generation
        return got

    @invariant()
    def streams_are_the_oracles(self) -> None:
        view = self.machine.telling.view(self.now, 0)
        oracle = {(k.uuid, k.incarnation): k for k in [*self.known.values(), *self.old]}
        assert {(s.hello.uuid, s.hello.incarnation) for s in view.streams} == set(oracle)
        for stream in view.streams:
            k = oracle[stream.hello.uuid, stream.hello.incarnation]
            assert stream.state.value == k.state
            assert bool(stream.error) == (bool(k.error) or k.state == "dead")
            sealed = [
                {
                    "generation": g.generation, "complete": g.complete, "seal": g.seal.value, "records": g.records, "frames": b"".join(g.frames),
                    "end_mark": g.end_mark, "lost": g.lost, "last": g.last_ns,
                } for g in stream.sealed
            ]  # fmt: skip
            assert sealed == k.sealed
            assert b"".join(stream.strings) == b"".join(k.strings)
            counts = k.ledger()
            ledger = stream.ledger
            opened = counts["open"]
            assert (ledger.held, ledger.evicted, ledger.late, ledger.overwritten, ledger.missing, ledger.open) == (
                counts["held"], counts["evicted"], counts["late"], counts["overwritten"], counts["missing"], opened,
            )  # fmt: skip
            assert (ledger.duplicate, ledger.rejected) == (k.duplicate, k.rejected)
            assert ledger.balanced
            assert {row.writer: _counts(row) for row in stream.writers if row.recorded} == k.by_writer()
            assert writers_disagree(ledger, stream.writers, stream.other_writers) == ""
        status = self.machine.status(self.now)
        assert (status.state, status.snapshots) == ("on" if self.on else "off", self.snapshots)
        deadline = self.machine.deadline_ns()
        assert deadline is None or deadline <= self.now + S

    # --- the oracle's rules

    def _live(self) -> list[Known]:
        return [k for k in self.known.values() if k.state == "live"]

    def _say(self, k: Known, message: Any) -> None:
        self.expected.append(SendLink(k.peer, message))

    def _advance(self, k: Known) -> None:
        k.asked += 1
        k.shared = self.now
        self._say(k, Advance(k.asked))

    def _advance_if_settled(self, k: Known) -> None:
        if self.on and k.opened >= k.asked:
            self._advance(k)

    def _progress(self) -> None:
        for flush in list(self.flushes):
            for k, (target, again) in list(flush["targets"].items()):
                while k.state == "live" and k.settled(target) and again:
                    target, again = target + 1, False
                flush["targets"][k] = (target, again)
                if k.state != "live" or k.settled(target):
                    del flush["targets"][k]
                elif k.asked <= target:
                    self._advance_if_settled(k)
            if not flush["targets"] or self.now >= flush["deadline"]:
                self.flushes.remove(flush)
                missing = ("svc[7]",) * len(flush["targets"])
                if flush["id"] is not None:
                    self.expected.append(SendReply(CONTROL, FlushReply(flush["id"], missing)))
                else:
                    assert self.snapshot is not None
                    self.snapshot["writing"] = True
                    missing += ("svc[7]",) * sum(k.state == "silent" for k in [*self.known.values(), *self.old])
                    self.expected.append(("write", self.snapshot["number"], tuple(self.snapshot["clients"]), missing))

    def _begin_flush(self, id_: int | None, timeout: int, double: bool) -> None:
        targets = {}
        for k in self._live():
            self._advance_if_settled(k)
            under_way = k.shared != self.now
            targets[k] = (k.asked if under_way else k.asked - 1, double or not k.end_marks)
        self.flushes.append({"id": id_, "deadline": self.now + (timeout or 2 * S), "targets": targets})

    def _take(self, part: tuple[Header, bytes]) -> None:
        """One batch of any sender."""
        h, _ = part
        k = self.known.get(h.uuid)
        if k is None:
            return
        records = h.count if h.type is RECORDS else 0
        if (h.nonce, h.incarnation) != (k.nonce, k.incarnation):
            k.rejected += records
            return
        k.dirty = True
        k.heard = self.now
        if k.state == "silent" and k.died is None:
            k.state = "live"
            self._advance(k)
        if h.type in (FLUSH, END):
            k.ack_now = True
        if h.tseq in k.seen:
            k.duplicate += records
            return
        k.seen.add(h.tseq)
        k.first_seen = k.first_seen or h.tseq
        if h.type in (OPEN, RECORDS, END):
            k.left = max(k.left, h.generation + (h.type is END))
        if h.type is STRINGS:
            ids = set(range(h.first_index, h.first_index + h.count))
            if ids - k.string_ids:
                k.strings.append(raw(part))
                k.string_ids |= ids
        elif k.state in ("live", "silent") and h.type is GOODBYE:
            k.goodbye = h.tseq
        elif h.type in (OPEN, RECORDS, END) and h.generation >= k.record_from:
            if k.state not in ("live", "silent") or h.generation <= k.sealed_through:
                self._late(k, h)
                k.sealed_through = max(k.sealed_through, h.generation)
            else:
                k.parts.setdefault(h.generation, {})[h.tseq] = part
                k.opened = max(k.opened, h.generation)
        if k.state in ("live", "silent"):
            self._settle(k)

    def _late(self, k: Known, h: Header) -> None:
        if h.type is not RECORDS:
            return
        mine = range(h.first_index, h.first_index + h.count)
        place = k.place.setdefault(h.writer, {})
        known = (
            max(max(place, default=-1) + 1, k.ends.get(h.writer, 0))
            if place or h.writer in k.ends
            else k.begin(mine.start)
        )
        for n in range(known, mine.start):
            place[n] = "missing"
        for n in range(mine.stop, min(place, default=k.ends.get(h.writer, 0))):
            place[n] = "missing"
        place.update(dict.fromkeys(mine, "late"))

    def _settle(self, k: Known) -> None:
        while k.parts:
            number = min(k.parts)
            part = k.parts[number]
            types = Counter(h.type for h, _ in part.values())
            mark = next((h for h, _ in part.values() if h.type is END), None)
            start = min(part) if types[OPEN] else 1
            later = [min(p) for g, p in k.parts.items() if g > number]
            proven = bool(types[OPEN]) and mark is None and start >= k.low
            if types[OPEN] and mark is not None and types[RECORDS] == mark.count:
                self._seal(k, "end mark", True)
            elif later and k.all_seen(start, min(later)):
                self._seal(k, "later generation", proven)
            elif len(k.parts) > 2:
                self._seal(k, "later generation", False)
            elif k.goodbye and k.all_seen(start, k.goodbye):
                self._seal(k, "goodbye", proven)
            else:
                return
        if k.goodbye:
            k.state = "gone"

    def _seal(self, k: Known, seal: str, complete: bool) -> None:
        number = min(k.parts)
        part = k.parts.pop(number)
        k.sealed_through = number
        rows: dict[int, list[Any]] = {}
        end_mark = b""
        for h, body in part.values():
            if h.type is END:
                end_mark = body
                tracer = next(t for t in self.tracers if t.uuid == k.uuid)
                rows = {w: [first, next_, over] for w, first, next_, over in tracer.marks[h.tseq]}  # type: ignore[attr-defined]
        came: dict[int, set[int]] = {}
        for h, _ in part.values():
            if h.type is RECORDS:
                came.setdefault(h.writer, set()).update(range(h.first_index, h.first_index + h.count))
        lost = 0
        for writer in came.keys() | rows.keys():
            place = k.place.setdefault(writer, {})
            here = came.get(writer, set())
            first, next_, over = rows.get(writer) or [min(here), max(here) + 1, ()]
            gone = {n for a, b in over for n in range(a, b)}
            k_first = (
                max(max(place, default=-1) + 1, k.ends.get(writer, 0)) if place or writer in k.ends else k.begin(first)
            )
            for n in range(min(k_first, first), next_):
                if n in place:
                    continue
                cause = "held" if n in here else "overwritten" if n in gone else "missing"
                place[n] = cause
                lost += n >= first and cause != "held"
            k.ends[writer] = next_
        ordered = [raw(part[t]) for t in sorted(part) if part[t][0].type is not END]
        k.sealed.append(
            {
                "generation": number, "complete": complete, "seal": seal, "records": sum(map(len, came.values())),
                "frames": b"".join(ordered), "end_mark": end_mark, "lost": lost, "last": max(h.last_ns for h, _ in part.values()),
            }
        )  # fmt: skip

    def _close(self, k: Known, seal: str) -> None:
        while k.parts:
            part = k.parts[min(k.parts)]
            types = Counter(h.type for h, _ in part.values())
            mark = next((h for h, _ in part.values() if h.type is END), None)
            self._seal(k, seal, bool(types[OPEN]) and mark is not None and mark.count == types[RECORDS])

    def _acks(self, *, all_: bool) -> None:
        for k in self.known.values():
            if k.ack_now or (all_ and k.dirty):
                k.ack_now = k.dirty = False
                self._say(k, Ack(BOOT, *k.stored()))


def _counts(row: WriterLedger) -> Counter[str]:
    return +Counter({name: getattr(row, name) for name in PLACES})


def _plain(instruction: Any) -> Any:
    """Without the words of a message, which are for people."""
    message = getattr(instruction, "message", None)
    match message:
        case Reject():
            return (instruction.peer, "reject")
        case Stop():
            return (instruction.peer, "stop", message.rejoin_ns)
        case ErrorReply():
            return (instruction.peer, "error", message.id, message.code)
    return instruction
