"""``frzmq doctor``: what is said of a place, what is seen of one, and the command."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from support.keyed import keyed_recorder
from support.recorder_process import recorder_process
from support.until import until

from frzmq.cli import main
from frzmq.doctor import look as module
from frzmq.doctor.checks import CHECKS, Finding, findings
from frzmq.doctor.look import look, look_at_directory
from frzmq.doctor.place import Directory, Key, Limits, Namespaces, Place, Recorder, Settings, User, Versions
from frzmq.wire.messages import Status, TracerStatus

MB = 1 << 20
SHM = Directory("/dev/shm/frzmq-7", "", True, "tmpfs", "/dev/shm", 100 * MB, 40 * MB)
STATUS = Status("on", "1.0", 5, b"b" * 16, 10, 5, 60 * 10**9, 64 * MB)
SERVES = Recorder("/run/fr", True, "", STATUS, 200_000, 50_000)
GOOD = Place(
    Settings(),
    Versions("1.0", "CPython 3.12.1", "1.1", "27.1", "4.3.5", True),
    User(7, 7),
    Namespaces(False, False, False),
    Limits(1024, 65536, None, None, None),
    10,
    SHM,
    SERVES,
)


def place(part: str, **changes: Any) -> Place:
    """The good one, with changes in one part of it."""
    return dataclasses.replace(GOOD, **{part: dataclasses.replace(getattr(GOOD, part), **changes)})


def worse(changed: Place) -> list[tuple[str, str, str]]:
    """Check, level and what was found of all that is not well; each has an advice."""
    found = [finding for finding in findings(changed) if finding.level != "ok"]
    assert all(finding.advice for finding in found)
    return [(finding.check, finding.level, finding.found) for finding in found]


def status(**changes: Any) -> Status:
    return dataclasses.replace(STATUS, **changes)


def test_checks_of_a_good_place_are_all_well_and_say_what_they_saw() -> None:
    assert findings(GOOD) == [
        Finding("environment", "ok", "buffers of 4MiB, 64MiB in a recorder of one's own"),
        Finding("versions", "ok", "frzmq 1.0, CPython 3.12.1, pyzmq 27.1, libzmq 4.3.5, msgpack 1.1"),
        Finding("native buffer", "ok", "present"),
        Finding("encryption", "ok", "libzmq has CURVE"),
        Finding("user", "ok", "user 7"),
        Finding("namespaces", "ok", "those of the system"),
        Finding("directory", "ok", "/dev/shm/frzmq-7, in memory (tmpfs)"),
        Finding("shared memory", "ok", "40MiB free of 100MiB, room for 10 buffers of 4MiB, wanted 10"),
        Finding("file descriptors", "ok", "at most 65536, 1024 unless raised"),
        Finding("file size", "ok", "no limit"),
        Finding("memory", "ok", "no limit of a control group"),
        Finding("recorder", "ok", "at /run/fr, version 1.0, on, 0 processes, answers in 200us"),
        Finding("recorded", "ok", "nothing is lost"),
        Finding("clock", "ok", "the recorder's, to +- 100us"),
    ]


@pytest.mark.parametrize(
    ("part", "changes", "check", "level", "found"),
    [
        ("settings", {"error": "FRZMQ_CALLS: wanted 1 or 0"}, "environment", "problem", "FRZMQ_CALLS: wanted 1 or 0"),
        ("settings", {"disabled": True}, "environment", "warning", "FRZMQ_DISABLE is set: nothing is recorded"),
        ("versions", {"no_native": "No module"}, "native buffer", "warning", "there is none: No module"),
        ("versions", {"curve": False}, "encryption", "warning", "libzmq has no CURVE"),
        ("user", {"uid": 0, "euid": 0}, "user", "warning", "root"),
        (
            "user", {"uid": 7, "euid": 0}, "user", "warning",
            "the real user is 7, the effective one 0: all FRZMQ_* variables are ignored",
        ),
        ("namespaces", {"pid": True, "user": None, "mount": True}, "namespaces", "warning", "of its own: pid, mount: a container"),
        ("directory", {"error": "/x: wanted a directory of mode 0700"}, "directory", "problem", "/x: wanted a directory of mode 0700"),
        ("directory", {"kind": "ext4", "exists": False}, "directory", "warning", "/dev/shm/frzmq-7, which is not there yet, on ext4"),
        (
            "directory", {"free_bytes": 40 * MB - 1}, "shared memory", "warning",
            "40MiB free of 100MiB, room for 9 buffers of 4MiB, wanted 10: others are halved, or private",
        ),
        ("directory", {"free_bytes": 1000}, "shared memory", "problem", "1000B free of 100MiB: no buffer finds room"),
        ("limits", {"files_hard": 4095}, "file descriptors", "warning", "at most 4095, 1024 unless raised"),
        ("limits", {"files_hard": 1023, "files_soft": 64}, "file descriptors", "problem", "at most 1023, 64 unless raised"),
        ("limits", {"file_bytes": MB}, "file size", "warning", "at most 1MiB"),
        (
            "limits", {"memory_bytes": 256 * MB, "memory_used_bytes": 100 * MB}, "memory", "warning",
            "156MiB free of 256MiB, by its control group",
        ),
        ("recorder", {"status": None, "error": "no recorder at /run/fr"}, "recorder", "problem", "no recorder at /run/fr"),
        (
            "recorder", {"status": status(state="off")}, "recorder", "warning",
            "at /run/fr, version 1.0, off, 0 processes, answers in 200us",
        ),
        (
            "recorder", {"status": status(version="0.9")}, "recorder", "warning",
            "at /run/fr, version 0.9, on, 0 processes, answers in 200us",
        ),
        ("recorder", {"status": status(errors=("a", "b", "c"))}, "recorded", "warning", "a, and 2 more"),
        (
            "recorder", {"status": status(tracers=(TracerStatus(b"u" * 16, "web", 4, "stopped", 1, error="malformed"),))},
            "recorded", "warning", "web[4]: malformed",
        ),
        (
            "recorder", {"status": status(tracers=(TracerStatus(b"u" * 16, "web", 4, "live", 1, late=2, dropped=3),))},
            "recorded", "warning", "5 records are lost",
        ),
    ],
)  # fmt: skip
def test_check_finds_what_is_wrong_and_nothing_else(
    part: str, changes: dict[str, Any], check: str, level: str, found: str
) -> None:
    assert worse(place(part, **changes)) == [(check, level, found)]


def test_check_of_a_slow_recorder_tells_of_it_and_of_the_clock() -> None:
    assert worse(place("recorder", rtt_ns=3 * 10**9, offset_ns=-(10**12))) == [
        ("recorder", "warning", "at /run/fr, version 1.0, on, 0 processes, answers in 3s"),
        ("clock", "warning", "the recorder's is 16.67m behind, +- 1.5s"),
    ]


@pytest.mark.parametrize(
    ("key", "beyond", "level", "found"),
    [
        (None, False, "ok", "none"),
        (None, True, "warning", "none: a recorder on a network without keys is anybody's"),
        (Key("/k", "shop"), True, "ok", "shop, of /k"),
        (Key("/k", "", "/k: wanted mode 0600"), True, "problem", "/k: wanted mode 0600"),
    ],
)
def test_check_of_the_key_is_about_tcp(key: Key | None, beyond: bool, level: str, found: str) -> None:
    on_tcp = dataclasses.replace(GOOD, directory=None, key=key, beyond=beyond)
    assert [(f.level, f.found) for f in findings(on_tcp) if f.check == "key"] == [(level, found)]
    assert not any(f.check == "key" for f in findings(dataclasses.replace(on_tcp, directory=SHM)))


def test_check_names_dockers_default_of_shared_memory() -> None:
    docker = place("directory", total_bytes=64 * MB, free_bytes=30 * MB)
    [finding] = [finding for finding in findings(docker) if finding.check == "shared memory"]
    assert finding.advice.endswith("64 MiB is Docker's default, see --shm-size")


def test_check_of_a_recorder_that_does_not_take_the_key_speaks_of_the_key() -> None:
    [finding] = [
        f
        for f in findings(place("recorder", status=None, error="tcp://h:1 does not admit the key", denied=True))
        if f.check == "recorder"
    ]
    assert (finding.level, finding.found) == ("problem", "tcp://h:1 does not admit the key")
    assert finding.advice == "FRZMQ_KEY or --key names the file of a key that it admits (docs/keys.md)"


def test_checks_where_nobody_asked_for_a_recorder_or_a_directory_are_content() -> None:
    alone = dataclasses.replace(GOOD, directory=None, recorder=Recorder("tcp://h:1", False, "no recorder at tcp://h:1"))
    assert worse(alone) == []
    assert {f.check for f in findings(GOOD)} - {f.check for f in findings(alone)} == {
        "shared memory",
        "recorded",
        "clock",
    }


def test_checks_where_the_system_tells_nothing_are_content() -> None:
    silent = dataclasses.replace(
        GOOD,
        namespaces=Namespaces(None, None, None),
        limits=Limits(None, None, None, None, None),
        directory=Directory("/x", "", True),
    )
    assert worse(silent) == []


def test_checks_have_names_of_their_own() -> None:
    names = [finding.check for finding in findings(GOOD)]
    assert len(set(names)) == len(names) >= len(CHECKS)


# --- what is seen


def test_look_makes_no_directory_and_finds_where_it_would_be(tmp_path: Path) -> None:
    found = look_at_directory(str(tmp_path / "a" / "b"))
    assert (found.error, found.exists) == ("", False)
    assert found.total_bytes and found.free_bytes is not None
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("mode", "link", "said"),
    [(0o755, False, "wanted a directory of mode 0700, got 0755"), (0o700, True, "got a symbolic link")],
)
def test_look_at_a_directory_that_cannot_be_used_says_why(tmp_path: Path, mode: int, link: bool, said: str) -> None:
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    path.chmod(mode)
    if link:
        path = tmp_path / "link"
        path.symlink_to(tmp_path / "d")
    assert said in look_at_directory(str(path)).error
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == mode


def test_look_where_nothing_can_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert look_at_directory(str(tmp_path / "file" / "d")).error.endswith(f"{tmp_path / 'file'} is not writable")


def test_look_at_a_path_that_is_too_long_for_a_socket_is_a_problem(tmp_path: Path) -> None:
    found = look(str(tmp_path / ("x" * 120)), None, 1, {})
    assert found.directory is not None
    assert "wanted socket paths of at most 107 bytes" in found.directory.error


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="wants /proc, which says what is mounted")
def test_look_sees_the_kind_of_a_file_system() -> None:
    assert module._mount(os.stat("/proc").st_dev, "/proc") == ("/proc", "proc")


def test_look_reads_the_tightest_control_group(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    values = {tmp_path: ("max", "9"), tmp_path / "outer": ("500", "450"), inner: ("300", "100")}
    for group, (limit, used) in values.items():
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
    groups = [(group, "memory.max", "memory.current") for group in (inner, tmp_path / "outer", tmp_path)]
    assert module._memory(groups) == (500, 450)
    assert module._memory([]) == (None, None)


def test_look_knows_control_groups_of_both_versions() -> None:
    lines = ["5:cpu:/a", "4:memory,hugetlb:/b/c", "0::/d"]
    assert [str(group) for group, _, _ in module._groups(lines)] == [
        "/sys/fs/cgroup/memory/b/c",
        "/sys/fs/cgroup/memory/b",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/d",
        "/sys/fs/cgroup",
    ]


def test_look_reads_the_environment_and_says_what_is_wrong_with_it() -> None:
    assert module.settings({"FRZMQ_BUFFER_BYTES": "1M", "FRZMQ_MAX_BYTES": "8M"}) == Settings("", False, MB, 8 * MB)
    assert module.settings({"FRZMQ_DISABLE": "1"}).disabled
    assert module.settings({"FRZMQ_BUFFER": "x"}).error == "FRZMQ_BUFFER: wanted auto, py or c, got 'x'"


# --- the command


def test_doctor_with_a_recorder_reaches_it_and_exits_0(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path_factory.mktemp("r")
    directory.chmod(0o700)
    with recorder_process(str(directory)) as recorder:
        assert main(["doctor", "--recorder", recorder.address, "--json", "--processes", "1"]) == 0
        printed = json.loads(capsys.readouterr().out)
        levels = {finding["check"]: finding["level"] for finding in printed["findings"]}
        assert (levels["recorder"], levels["recorded"], levels["clock"]) == ("ok", "ok", "ok")
        [clock] = [finding["found"] for finding in printed["findings"] if finding["check"] == "clock"]
        assert clock.startswith("the recorder's, to +- ")
        assert main(["doctor", "--recorder", recorder.address, "--processes", "1"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert sum(line.split(maxsplit=1)[0] in ("ok", "warning") for line in out.splitlines()) == len(levels)


def test_doctor_without_the_recorder_that_was_named_exits_1_and_says_what_to_do(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path_factory.mktemp("r") / "none"
    assert main(["doctor", "--recorder", str(directory)]) == 1
    lines = capsys.readouterr().out.splitlines()
    [at] = [n for n, line in enumerate(lines) if line.startswith("problem")]
    assert lines[at].split(maxsplit=2) == ["problem", "recorder", f"no recorder at {directory}"]
    assert lines[at + 1].strip().startswith("is it running")
    assert not directory.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recorder", "gopher://x"], "wanted a directory, ipc://DIRECTORY or tcp://HOST:PORT"),
        (["--processes", "many"], "--processes: wanted a number"),
    ],
)
def test_doctor_asked_wrongly_exits_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_doctor_says_whether_a_key_is_taken_and_as_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(address: str, key: Path) -> dict[str, tuple[str, str]]:
        main(["doctor", "--recorder", address, "--key", str(key), "--json", "--processes", "1"])
        printed = json.loads(capsys.readouterr().out)
        return {f["check"]: (f["level"], f["found"]) for f in printed["findings"]}

    with keyed_recorder(tmp_path) as keyed:
        for name in ("ann", "grafana"):
            assert said(keyed.address, tmp_path / f"{name}.key")["recorder"][0] == "ok"
        tracer = said(keyed.address, tmp_path / "checkout.key")
        assert tracer["key"] == ("ok", f"checkout, of {tmp_path / 'checkout.key'}")
        assert tracer["recorder"] == ("ok", f"at {keyed.address}, takes records with this key, and tells it nothing")
        keyed.directory.revoke("checkout")
        until(lambda: said(keyed.address, tmp_path / "checkout.key")["recorder"][0] == "problem", "it is still taken")
        (tmp_path / "stock.key").chmod(0o644)
        stock = said(keyed.address, tmp_path / "stock.key")
        assert stock["key"][0] == "problem" and "others can read the secret" in stock["key"][1]
