"""What is to be said of a place. Pure: each check is a function from what was looked at to its findings, and `CHECKS` has them in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from frzmq.config import MIN_BUFFER_BYTES, format_duration, format_size
from frzmq.doctor.place import Place

Level: TypeAlias = Literal["ok", "warning", "problem"]

MEMORY_KINDS: Final = ("tmpfs", "ramfs")
DOCKER_SHM_BYTES: Final = 64 << 20
FEW_FILES: Final = 1024
"""Below it a recorder soon has none left, and lets nobody in."""
MANY_FILES: Final = 4096
RECORDER_BYTES: Final = 128 << 20
"""Of a recorder, beside what its ring holds (docs/running.md)."""
SLOW_NS: Final = 1_000_000_000
"""A round trip that takes longer."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    found: str
    advice: str = ""
    """What to do; "": nothing."""


def environment(place: Place) -> list[Finding]:
    name, settings = "environment", place.settings
    if settings.error:
        return [Finding(name, "problem", settings.error, "correct the variable, or leave it out")]
    if settings.disabled:
        return [Finding(name, "warning", "FRZMQ_DISABLE is set: nothing is recorded", "leave it out to record")]
    buffer, ring = format_size(settings.buffer_bytes), format_size(settings.max_bytes)
    return [Finding(name, "ok", f"buffers of {buffer}, {ring} in a recorder of one's own")]


def versions(place: Place) -> list[Finding]:
    has = place.versions
    libraries = f"pyzmq {has.pyzmq}, libzmq {has.libzmq}, msgpack {has.msgpack}"
    findings = [Finding("versions", "ok", f"frzmq {has.frzmq}, {has.python}, {libraries}")]
    if has.no_native:
        advice = "install a wheel, or a C compiler and frzmq anew: a record costs some thirty times as much without it"
        findings.append(Finding("native buffer", "warning", f"there is none: {has.no_native}", advice))
    else:
        findings.append(Finding("native buffer", "ok", "present"))
    if has.curve:
        findings.append(Finding("encryption", "ok", "libzmq has CURVE"))
    else:
        advice = "install pyzmq as a wheel, or a libzmq with libsodium, to record over a network"
        findings.append(Finding("encryption", "warning", "libzmq has no CURVE", advice))
    return findings


def user(place: Place) -> list[Finding]:
    uid, euid = place.user.uid, place.user.euid
    if uid != euid:
        found = f"the real user is {uid}, the effective one {euid}: all FRZMQ_* variables are ignored"
        return [Finding("user", "warning", found, "set what is needed in code: frzmq.start(recorder=...)")]
    if euid == 0:
        advice = "where workers drop root later, run the recorder as their user: its directory is that user's alone"
        return [Finding("user", "warning", "root", advice)]
    return [Finding("user", "ok", f"user {euid}")]


def namespaces(place: Place) -> list[Finding]:
    has = place.namespaces
    known = {"pid": has.pid, "user": has.user, "mount": has.mount}
    if set(known.values()) == {None}:
        return [Finding("namespaces", "ok", "the system does not tell")]
    own = [name for name, is_own in known.items() if is_own]
    if not own:
        return [Finding("namespaces", "ok", "those of the system")]
    found = f"of its own: {', '.join(own)}"
    if has.pid:
        advice = "when its first process ends all in it end at once: a recorder that is to outlive that runs in a container beside it (docs/running.md)"
        return [Finding("namespaces", "warning", f"{found}: a container", advice)]
    return [Finding("namespaces", "ok", found)]


def directory(place: Place) -> list[Finding]:
    has, name = place.directory, "directory"
    if has is None:
        found = "none: over tcp buffers are not shared, and a process that is killed loses what it had not sent"
        return [Finding(name, "ok", found)]
    if has.error:
        advice = "choose another by FRZMQ_RUNTIME_DIR or FRZMQ_RECORDER: short, this user's, and of mode 0700"
        return [Finding(name, "problem", has.error, advice)]
    where = has.path if has.exists else f"{has.path}, which is not there yet"
    if has.kind is None:
        return [Finding(name, "ok", where)]
    if has.kind not in MEMORY_KINDS:
        advice = "choose one in memory, such as /run or /dev/shm, by FRZMQ_RUNTIME_DIR: on a disk buffers are written out again and again"
        return [Finding(name, "warning", f"{where}, on {has.kind}", advice)]
    return [Finding(name, "ok", f"{where}, in memory ({has.kind})")]


def shared_memory(place: Place) -> list[Finding]:
    has, name, processes = place.directory, "shared memory", place.processes
    if has is None or has.error or has.free_bytes is None or has.total_bytes is None:
        return []
    size_bytes = place.settings.buffer_bytes
    free = f"{format_size(has.free_bytes)} free of {format_size(has.total_bytes)}"
    fit = has.free_bytes // size_bytes
    found = f"{free}, room for {fit} buffers of {format_size(size_bytes)}, wanted {processes}"
    if fit >= processes:
        return [Finding(name, "ok", found)]
    advice = f"make it larger, or buffers smaller (FRZMQ_BUFFER_BYTES): {format_size(processes * size_bytes)} for {processes} processes"
    if has.mount == "/dev/shm" and has.total_bytes == DOCKER_SHM_BYTES:  # noqa: S108  # it is compared
        advice += "; 64 MiB is Docker's default, see --shm-size"
    if has.free_bytes < MIN_BUFFER_BYTES:
        return [Finding(name, "problem", f"{free}: no buffer finds room", advice)]
    return [Finding(name, "warning", f"{found}: others are halved, or private", advice)]


def limits(place: Place) -> list[Finding]:
    return [_files(place), _file_size(place), _memory(place)]


def _files(place: Place) -> Finding:
    name, hard = "file descriptors", place.limits.files_hard
    if hard is None:
        return Finding(name, "ok", "no limit")
    found = f"at most {hard}, {place.limits.files_soft} unless raised"
    advice = f"raise the hard limit (LimitNOFILE=, --ulimit nofile) to {MANY_FILES} or more: a recorder takes four for each process, one for each client"
    if hard >= MANY_FILES:
        return Finding(name, "ok", found)
    return Finding(name, "warning" if hard >= FEW_FILES else "problem", found, advice)


def _file_size(place: Place) -> Finding:
    name, limit, ring = "file size", place.limits.file_bytes, place.settings.max_bytes
    if limit is None:
        return Finding(name, "ok", "no limit")
    found = f"at most {format_size(limit)}"
    if limit >= 2 * ring:
        return Finding(name, "ok", found)
    return Finding(name, "warning", found, f"raise it (ulimit -f): a snapshot may take {format_size(2 * ring)}")


def _memory(place: Place) -> Finding:
    name, limit = "memory", place.limits.memory_bytes
    if limit is None:
        return Finding(name, "ok", "no limit of a control group")
    free = max(0, limit - (place.limits.memory_used_bytes or 0))
    found = f"{format_size(free)} free of {format_size(limit)}, by its control group"
    wanted = place.settings.max_bytes + RECORDER_BYTES
    if free >= wanted:
        return Finding(name, "ok", found)
    advice = f"a recorder here may take {format_size(wanted)}: raise the limit, or lower max-bytes"
    return Finding(name, "warning", found, advice)


def key(place: Place) -> list[Finding]:
    has, name = place.key, "key"
    if place.directory is not None:
        return []
    if has is None:
        if place.beyond:
            advice = "give it keys (docs/keys.md): frzmq recorder --keys DIR there, FRZMQ_KEY here"
            return [Finding(name, "warning", "none: a recorder on a network without keys is anybody's", advice)]
        return [Finding(name, "ok", "none")]
    if has.error:
        return [Finding(name, "problem", has.error, "move the file that frzmq keys add wrote here, mode 0600")]
    return [Finding(name, "ok", f"{has.name}, of {has.path}")]


def recorder(place: Place) -> list[Finding]:
    has, name = place.recorder, "recorder"
    status = has.status
    if status is None:
        if has.takes_records:
            return [Finding(name, "ok", f"at {has.address}, takes records with this key, and tells it nothing")]
        if has.denied:
            advice = "FRZMQ_KEY or --key names the file of a key that it admits (docs/keys.md)"
            return [Finding(name, "problem", has.error, advice)]
        if has.asked:
            advice = "is it running, at this address, and as this user? frzmq recorder --listen ADDRESS starts one"
            return [Finding(name, "problem", has.error, advice)]
        return [Finding(name, "ok", f"none at {has.address}: a program that records brings one of its own")]
    found = f"at {has.address}, version {status.version}, {status.state}, {len(status.tracers)} processes, answers in {format_duration(has.rtt_ns)}"
    if status.state != "on":
        return [Finding(name, "warning", found, "frzmq start lets it record again")]
    if has.rtt_ns > SLOW_NS:
        return [Finding(name, "warning", found, "it, or the way to it, is overloaded")]
    if status.version != place.versions.frzmq:
        return [Finding(name, "warning", found, f"install one version everywhere: here it is {place.versions.frzmq}")]
    return [Finding(name, "ok", found)]


def recorder_troubles(place: Place) -> list[Finding]:
    """What its status complains about."""
    status, name = place.recorder.status, "recorded"
    if status is None:
        return []
    stopped = [
        f"{tracer.service}[{tracer.pid}]: {tracer.error}" for tracer in status.tracers if tracer.state == "stopped"
    ]
    told = [*stopped, *status.errors]
    if told:
        more = f", and {len(told) - 1} more" if len(told) > 1 else ""
        return [Finding(name, "warning", f"{told[0]}{more}", "frzmq status has all of it")]
    lost = sum(t.dropped + t.overwritten + t.missing + t.late for t in status.tracers)
    if lost:
        return [Finding(name, "warning", f"{lost} records are lost", "frzmq status says whose, and by which cause")]
    return [Finding(name, "ok", "nothing is lost")]


def clock(place: Place) -> list[Finding]:
    has = place.recorder
    if has.status is None:
        return []
    bound_ns = -(-has.rtt_ns // 2)
    found = f"the recorder's is {format_duration(abs(has.offset_ns))} {'ahead' if has.offset_ns >= 0 else 'behind'}, +- {format_duration(bound_ns)}"
    if abs(has.offset_ns) <= bound_ns:
        found = f"the recorder's, to +- {format_duration(bound_ns)}"
    if has.rtt_ns > SLOW_NS:
        return [Finding("clock", "warning", found, "what happened first on which host is not known better than that")]
    return [Finding("clock", "ok", found)]


CHECKS: Final[tuple[Callable[[Place], list[Finding]], ...]] = (
    environment,
    versions,
    user,
    namespaces,
    directory,
    shared_memory,
    limits,
    key,
    recorder,
    recorder_troubles,
    clock,
)


def findings(place: Place) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(place)]
