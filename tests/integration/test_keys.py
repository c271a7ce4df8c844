"""A recorder on tcp with keys: who gets in, as what, and what those are told who do not."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.keyed import VIEWER, Keyed, keyed_recorder
from support.programs import Program
from support.raw_tracer import RawTracer
from support.recorder_process import DEADLINE_S, recorder_process
from support.until import until

import frzmq
from frzmq.cli import main
from frzmq.control.client import ControlClient
from frzmq.errors import ControlCode, ControlError
from frzmq.recorder.keyring import KeyDirectory
from frzmq.transport.addresses import parse_address
from frzmq.transport.sockets import new_pair
from frzmq.wire.messages import TracerStatus

PROGRAM = """
import logging, sys
import frzmq
logging.basicConfig(format="%(name)s: %(message)s", filename=sys.argv[1])
frzmq.event("first")
print(frzmq.flush(float(sys.argv[2])), flush=True)
sys.stdin.readline()
frzmq.event("last")
print(frzmq.flush(float(sys.argv[2])), flush=True)
"""
PATIENCE_S = 20.0
"""Of a client that is denied what it asks."""


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    with keyed_recorder(tmp_path) as found:
        yield found


@pytest.fixture
def ann(keyed: Keyed) -> Iterator[ControlClient]:
    with ControlClient(keyed.address, key=str(keyed.files / "ann.key")) as client:
        yield client


def patient(address: str, key: str | Path | None) -> ControlClient:
    return ControlClient(address, PATIENCE_S, key=None if key is None else str(key))


def denied(act: Callable[[], object]) -> str:
    """``act``: of a patient client."""
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frzmq.control.client.CONNECT_S", PATIENCE_S)
        with pytest.raises(ControlError) as refused:
            act()
    assert refused.value.code is ControlCode.DENIED
    # it is told, and need not wait for the end of its patience
    assert time.monotonic() - began < PATIENCE_S - 5
    return str(refused.value)


def admits(keyed: Keyed, viewer: str) -> bool:
    with ControlClient(keyed.address, key=str(keyed.files / f"{viewer}.key")) as client:
        try:
            client.status()
        except ControlError:
            return False
    return True


def replace(path: Path, text: str) -> None:
    """In one step, as `frzmq keys` does."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def log_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def tracers(client: ControlClient) -> list[TracerStatus]:
    return sorted(client.status().tracers, key=lambda tracer: tracer.service)


def with_key(keyed: Keyed, tmp_path: Path, key: str, flush_s: str, **variables: str) -> Program:
    """PROGRAM, which records with the key of that name."""
    variables |= {"FRZMQ_RECORDER": keyed.address, "FRZMQ_KEY": str(tmp_path / f"{key}.key")}
    return Program(tmp_path / "p.py", PROGRAM, str(tmp_path / "log"), flush_s, **variables)


def test_keyed_recorder_takes_records_and_gives_snapshots_by_role(keyed: Keyed, tmp_path: Path) -> None:
    program = with_key(keyed, tmp_path, "checkout", "20", FRZMQ_SERVICE="checkout")
    assert program.line() == "True"
    with ControlClient(keyed.address, key=str(tmp_path / "grafana.key")) as grafana:
        assert [t.service for t in tracers(grafana)] == ["checkout"]
        path = tmp_path / "s.frz"
        with path.open("wb") as file:
            grafana.snapshot(file)
        assert [event.name for event in frzmq.open_snapshot(path).events] == ["first"]
    program.tell("")
    assert program.line() == "True"
    program.end()
    assert log_of(tmp_path / "log") == ""


def test_viewer_may_not_start_or_stop_and_an_operator_may(keyed: Keyed, ann: ControlClient) -> None:
    with patient(keyed.address, keyed.files / "grafana.key") as grafana:
        assert denied(grafana.stop) == "wanted a key of role operator, got 'grafana', viewer"
        assert denied(grafana.start) == "wanted a key of role operator, got 'grafana', viewer"
        ann.stop()
        assert grafana.status().state == "off"
        ann.start()


def test_key_of_a_tracer_asks_for_nothing_and_that_of_a_viewer_records_nothing(
    keyed: Keyed, ann: ControlClient, tmp_path: Path
) -> None:
    with patient(keyed.address, tmp_path / "checkout.key") as client:
        assert "does not admit the key 'checkout': it is not known there, revoked, or of another role" in denied(
            client.status
        )
    program = with_key(keyed, tmp_path, "grafana", "0.1")
    assert program.line() == "False"
    until(lambda: "does not admit the key 'grafana'" in log_of(tmp_path / "log"), "it is not told")
    program.tell("")
    program.end()
    # said once, however often it tries
    assert log_of(tmp_path / "log").count("\n") == 1
    assert tracers(ann) == []


@pytest.mark.parametrize("key", ["", "another recorder's"])
def test_client_without_the_recorders_key_is_told_so(keyed: Keyed, tmp_path: Path, key: str) -> None:
    path: str | None = None
    if key:
        other = KeyDirectory(str(tmp_path / "other"))
        other.init(new_pair)
        path = str(tmp_path / "other.key")
        other.add("grafana", VIEWER, path, new_pair)
    with patient(keyed.address, path) as client:
        said = denied(client.status)
    why = "it has another key than the key file says, or none" if key else "it wants a key, and there is none here"
    assert said.endswith(f"breaks off the handshake: {why}")


def test_client_with_a_key_for_a_recorder_without_keys_is_told_so(keyed: Keyed) -> None:
    with (
        recorder_process("tcp") as open_to_all,
        patient(open_to_all.address, keyed.files / "ann.key") as client,
    ):
        assert "another key than the key file says, or none" in denied(client.status)


def test_program_without_a_key_goes_on_and_says_why_nothing_is_kept(keyed: Keyed, tmp_path: Path) -> None:
    program = Program(tmp_path / "p.py", PROGRAM, str(tmp_path / "log"), "0.1", FRZMQ_RECORDER=keyed.address)
    assert program.line() == "False"
    until(lambda: "it wants a key, and there is none here" in log_of(tmp_path / "log"), "it is not told")
    program.tell("")
    program.end()


def test_program_whose_key_file_others_can_read_goes_on_and_says_so(keyed: Keyed, tmp_path: Path) -> None:
    (tmp_path / "checkout.key").chmod(0o644)
    program = with_key(keyed, tmp_path, "checkout", "0.1")
    assert program.line() == "True"  # nothing is recorded, so that nothing is missing
    until(lambda: "others can read the secret in it" in log_of(tmp_path / "log"), "it is not said")
    program.tell("")
    program.end()


def connections(pid: int) -> int:
    """Open sockets of a process."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(fd))
        except FileNotFoundError:
            continue
    return sum(link.startswith("socket:") for link in links)


def test_revoked_key_is_cut_off_within_a_heartbeat_and_the_others_lose_nothing(
    keyed: Keyed, ann: ControlClient
) -> None:
    gone = RawTracer(keyed.address, service="gone", key=keyed.key("checkout"))
    stays = RawTracer(keyed.address, service="stays", key=keyed.key("stock"))
    for tracer in (gone, stays):
        tracer.record(10)
        tracer.flush_mark()
    assert len(tracers(ann)) == 2
    before = connections(keyed.recorder.process.pid)
    keyed.directory.revoke("checkout")
    began = time.monotonic()
    until(lambda: [t.state for t in tracers(ann)] == ["stopped", "live"], "it is not stopped")
    # a heartbeat is a second: ten of them for a machine under load
    assert time.monotonic() - began < 10
    assert tracers(ann)[0].error == "its key 'checkout' was revoked"
    until(lambda: connections(keyed.recorder.process.pid) == before - 2, "it is not cut off")
    stays.record(10)
    stays.flush_mark()
    assert [t.held + t.open for t in tracers(ann)] == [10, 20]
    gone.until(lambda: bool(gone.problem))
    assert "does not admit the key 'checkout'" in gone.problem
    for tracer in (gone, stays):
        tracer.close(0)


def test_revoked_viewer_is_denied_what_it_asks_next(keyed: Keyed) -> None:
    with ControlClient(keyed.address, key=str(keyed.files / "grafana.key")) as grafana:
        grafana.status()
        keyed.directory.revoke("grafana")

        codes: list[ControlCode] = []

        def refused() -> bool:
            try:
                grafana.status()
            except ControlError as error:
                codes.append(error.code)
            return bool(codes)

        until(refused, "it is still answered")
        assert codes == [ControlCode.DENIED]


def test_key_that_is_admitted_later_gets_in_without_a_new_start(
    keyed: Keyed, ann: ControlClient, tmp_path: Path
) -> None:
    clients = Path(keyed.directory.path, "clients.toml")
    admitted = clients.read_text()
    keyed.directory.revoke("checkout")
    keyed.add("later", VIEWER)
    # whoever came into the list later is admitted: so the recorder has seen that
    until(lambda: admits(keyed, "later"), "the list is not seen")
    program = with_key(keyed, tmp_path, "checkout", "0.1", FRZMQ_SERVICE="late")
    assert program.line() == "False"
    until(lambda: "does not admit" in log_of(tmp_path / "log"), "it is not told")
    replace(clients, admitted)
    until(lambda: [(t.service, t.held + t.open > 0) for t in tracers(ann)] == [("late", True)], "it is not taken")
    program.tell("")
    program.end()


def test_uuid_belongs_to_the_key_that_it_came_with(keyed: Keyed, ann: ControlClient) -> None:
    honest = RawTracer(keyed.address, service="honest", key=keyed.key("checkout"))
    honest.record(5)
    thief = RawTracer(keyed.address, service="thief", uuid=honest.uuid, key=keyed.key("stock"))
    assert thief.rejected == f"hello: wanted the key that tracer {honest.uuid.hex()[:8]} came with, got 'stock'"
    honest.record(5)
    honest.flush_mark()
    assert [(t.service, t.state, t.held + t.open) for t in tracers(ann)] == [("honest", "live", 10)]
    for tracer in (thief, honest):
        tracer.close(0)


def test_zmq_socket_with_a_domain_takes_no_bytes_without_a_handshake(keyed: Keyed, ann: ControlClient) -> None:
    """Nine raw bytes are a message to a plain socket: ten, of the oldest protocol, with no greeting that means anything."""
    endpoints = parse_address(keyed.address)
    before = ann.status().rejected_frames
    for endpoint in (endpoints.data, endpoints.link, endpoints.control):
        host, port = endpoint.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as raw:
            raw.sendall(b"\x01\x00" + b"\x09\x00" + b"rubbish!")
            raw.shutdown(socket.SHUT_WR)
            # it is closed, and has greeted at the most
            while raw.recv(4096):
                pass
    assert ann.status().rejected_frames == before


def test_zmq_curve_without_zap_would_take_any_key_and_this_recorder_does_not(keyed: Keyed, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.key"
    pair = new_pair()
    text = (tmp_path / "ann.key").read_text()
    known = keyed.key("ann").pair
    stranger.write_text(text.replace(known.public, pair.public).replace(known.secret, pair.secret))
    stranger.chmod(0o600)
    with patient(keyed.address, stranger) as client:
        assert "does not admit the key 'ann'" in denied(client.status)


def test_recorder_with_a_broken_list_keeps_the_one_that_it_has(keyed: Keyed, ann: ControlClient) -> None:
    clients = Path(keyed.directory.path, "clients.toml")
    good = clients.read_text()
    clients.write_text("[[client")
    until(
        lambda: any("the keys stay as they were" in error for error in ann.status().errors),
        "the list is not complained of",
    )
    clients.write_text(good)
    # what it said on standard error is no surprise to the fixture
    keyed.recorder.process.terminate()
    code, said = keyed.recorder.wait()
    assert code == 0 and "the keys stay as they were" in said


def test_recorder_refuses_keys_that_cannot_guard(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = KeyDirectory(str(tmp_path / "keys"))
    keys.init(new_pair)
    assert main(["recorder", "--listen", str(tmp_path / "run"), "--keys", keys.path]) == 2
    assert "wanted tcp:// for --keys" in capfd.readouterr().err
    assert main(["recorder", "--listen", "tcp://127.0.0.1:7000", "--keys", str(tmp_path / "no")]) == 2
    assert "no directory of keys (frzmq keys init)" in capfd.readouterr().err
    Path(keys.path, "recorder.key").chmod(0o644)
    assert main(["recorder", "--listen", "tcp://127.0.0.1:7000", "--keys", keys.path]) == 2
    assert "others can read the secret" in capfd.readouterr().err


def test_keys_by_the_command_line_are_enough_for_a_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documented way, from nothing: init, add, a recorder, a program under `frzmq run`, status, list, revoke."""
    keys, key = str(tmp_path / "keys"), str(tmp_path / "shop.key")
    assert main(["keys", "init", keys]) == 0
    assert main(["keys", "add", keys, "shop", "--role", "tracer", "--role", "viewer", "-o", key]) == 0
    capsys.readouterr()
    assert main(["keys", "list", keys]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in table] == [["name", "roles"], ["shop", "tracer,viewer"]]
    with recorder_process("tcp", "--keys", keys) as recorder:
        out = str(tmp_path / "out.frz")
        run = [
            "run",
            "--recorder",
            recorder.address,
            "--key",
            key,
            "-o",
            out,
            "-c",
            "import frzmq; frzmq.event('here')",
        ]
        assert main(run) == 0
        assert [event.name for event in frzmq.open_snapshot(out).events] == ["here"]
        assert main(["status", recorder.address, "--key", key]) == 0
        assert main(["stop", recorder.address, "--key", key]) == 1
        assert "wanted a key of role operator" in capsys.readouterr().err
    assert main(["keys", "revoke", keys, "shop"]) == 0
    assert main(["keys", "list", keys, "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
