from __future__ import annotations

import errno
import fcntl
import os
import stat
from itertools import count
from pathlib import Path

import pytest

from frzmq.errors import ConfigError
from frzmq.recorder.access import Client, Role
from frzmq.recorder.keyring import KeyDirectory, WatchedKeys
from frzmq.transport.keys import ClientKey, KeyPair, read_client_key
from frzmq.transport.zap import Domain

TRACER, VIEWER = frozenset({Role.TRACER}), frozenset({Role.VIEWER})
numbers = count(1)


def pair() -> KeyPair:
    number = next(numbers)
    return KeyPair(f"{number:040}", f"{number:s>40}")


@pytest.fixture
def keys(tmp_path: Path) -> KeyDirectory:
    directory = KeyDirectory(str(tmp_path / "keys"))
    directory.init(pair)
    return directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_a_private_directory_with_a_pair_and_no_clients(tmp_path: Path) -> None:
    directory = KeyDirectory(str(tmp_path / "deep" / "keys"))
    public = directory.init(pair)
    assert directory.pair().public == public
    assert directory.clients() == ()
    path = Path(directory.path)
    assert {p.name: mode(p) for p in path.iterdir()} == {"recorder.key": 0o600, "clients.toml": 0o600}
    assert mode(path) == 0o700


def test_init_never_replaces_a_pair(keys: KeyDirectory) -> None:
    before = keys.pair()
    with pytest.raises(ConfigError, match="wanted no keys here yet"):
        keys.init(pair)
    assert keys.pair() == before


def test_add_admits_a_key_whose_secret_goes_to_a_file_of_its_own(keys: KeyDirectory, tmp_path: Path) -> None:
    file = tmp_path / "shop.key"
    keys.add("shop", TRACER | VIEWER, str(file), pair)
    key = read_client_key(str(file))
    assert key == ClientKey("shop", key.pair, keys.pair().public)
    assert keys.clients() == (Client("shop", TRACER | VIEWER, key.pair.public),)
    assert mode(file) == 0o600
    assert key.pair.secret not in Path(keys.path, "clients.toml").read_text()


def test_add_where_it_cannot_be_admits_nobody(keys: KeyDirectory, tmp_path: Path) -> None:
    keys.add("shop", TRACER, str(tmp_path / "shop.key"), pair)
    before = keys.clients()
    for name, file, message in (
        ("shop", "other.key", "wanted a name that is free, got 'shop'"),
        ("other", "shop.key", "shop.key: cannot write this key file: File exists"),
        ("other", "no/shop.key", "cannot write this key file: No such file"),
        ("../up", "up.key", "wanted a name of 1 to 64 letters"),
        ("", "up.key", "wanted a name of 1 to 64 letters"),
    ):
        with pytest.raises(ConfigError, match=message):
            keys.add(name, TRACER, str(tmp_path / file), pair)
    assert keys.clients() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys", "shop.key"]


def test_revoke_removes_one_name(keys: KeyDirectory, tmp_path: Path) -> None:
    for name in ("a", "b"):
        keys.add(name, TRACER, str(tmp_path / name), pair)
    keys.revoke("a")
    assert [client.name for client in keys.clients()] == ["b"]
    with pytest.raises(ConfigError, match="wanted the name of a client, got 'a'"):
        keys.revoke("a")


def test_changes_are_made_one_at_a_time(keys: KeyDirectory, tmp_path: Path) -> None:
    holder = os.open(keys.path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="another process is changing these keys"):
        keys.add("a", TRACER, str(tmp_path / "a"), pair)
    os.close(holder)
    keys.add("a", TRACER, str(tmp_path / "a"), pair)


def test_pair_that_others_can_read_is_refused(keys: KeyDirectory) -> None:
    path = Path(keys.path, "recorder.key")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"recorder.key: wanted mode 0600, got 0640"):
        keys.pair()
    path.chmod(0o600)
    Path(keys.path).chmod(0o750)
    with pytest.raises(ConfigError, match="wanted a directory of mode 0700, got 0750"):
        keys.pair()


def test_directory_that_is_none_is_refused_and_not_made(tmp_path: Path) -> None:
    missing = KeyDirectory(str(tmp_path / "no"))
    for act in (missing.pair, lambda: missing.revoke("a")):
        with pytest.raises(ConfigError, match="no directory of keys"):
            act()
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("client = 5", "wanted up to 4096 tables"),
        ("client = [5]", "client 1: wanted a table"),
        ("[[client]]\nname = 'a'", "client 1: wanted a list of roles"),
        ("[[client]]\nname = 'a'\nroles = []", "wanted roles, of tracer, viewer, operator, got \\[\\]"),
        ("[[client]]\nname = 'a'\nroles = ['root']", "wanted roles, of tracer, viewer, operator"),
        ("[[client]]\nname = 'a'\nroles = [['x']]", "wanted roles, of tracer, viewer, operator"),
        ("[[client]]\nname = 'a'\nroles = ['viewer']\npublic = 'x'", "public: wanted a key of 40"),
        (
            f"[[client]]\nname='a'\nroles=['viewer']\npublic='{'p' * 40}'\n[[client]]\nname='b'\nroles=['viewer']\npublic='{'p' * 40}'",
            "wanted each key once",
        ),
        (
            f"[[client]]\nname='a'\nroles=['viewer']\npublic='{'p' * 40}'\n[[client]]\nname='a'\nroles=['viewer']\npublic='{'q' * 40}'",
            "wanted each name once",
        ),
    ],
)
def test_clients_with_nonsense_are_refused(keys: KeyDirectory, text: str, message: str) -> None:
    Path(keys.path, "clients.toml").write_text(f"version = 1\n{text}")
    with pytest.raises(ConfigError, match=message):
        keys.clients()


@pytest.mark.parametrize("text", ["", "version = 2", "version = true", "client = []"])
def test_clients_of_another_version_or_of_none_are_refused(keys: KeyDirectory, text: str) -> None:
    Path(keys.path, "clients.toml").write_text(text)
    with pytest.raises(ConfigError, match="wanted version = 1, got"):
        keys.clients()


def test_watched_keys_follow_the_file(keys: KeyDirectory, tmp_path: Path) -> None:
    watched = WatchedKeys(keys.path)
    assert watched.refresh() is None
    keys.add("a", TRACER, str(tmp_path / "a"), pair)
    public = keys.clients()[0].public
    assert not watched.admits(Domain.RECORD, public)
    first = watched.access
    assert watched.refresh() is first
    assert watched.admits(Domain.RECORD, public)
    keys.revoke("a")
    before = watched.refresh()
    assert before is not None and watched.access.lost_since(before) == (frozenset({"a"}), frozenset({public}))
    assert not watched.admits(Domain.RECORD, public)


def test_watched_keys_that_cannot_be_read_stay_as_they_were_and_say_so_once(keys: KeyDirectory, tmp_path: Path) -> None:
    keys.add("a", TRACER, str(tmp_path / "a"), pair)
    public = keys.clients()[0].public
    watched = WatchedKeys(keys.path)
    file = Path(keys.path, "clients.toml")
    good = file.read_text()
    for break_it in (lambda: file.write_text("[[client"), file.unlink):
        break_it()
        with pytest.raises(ConfigError):
            watched.refresh()
        assert watched.refresh() is None
        assert watched.admits(Domain.RECORD, public)
    file.write_text(good)
    assert watched.refresh() is not None


def test_watched_keys_that_could_not_be_read_for_a_moment_are_read_the_next_time(
    keys: KeyDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without file descriptors must not forget who was revoked meanwhile."""
    keys.add("a", TRACER, str(tmp_path / "a"), pair)
    public = keys.clients()[0].public
    watched = WatchedKeys(keys.path)
    keys.revoke("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "Too many open files")))
        with pytest.raises(ConfigError, match="Too many open files"):
            watched.refresh()
        assert watched.refresh() is None
    assert watched.admits(Domain.RECORD, public)
    assert watched.refresh() is not None
    assert not watched.admits(Domain.RECORD, public)


def test_watched_keys_after_a_broken_list_follow_the_good_one(keys: KeyDirectory, tmp_path: Path) -> None:
    keys.add("a", TRACER, str(tmp_path / "a"), pair)
    public = keys.clients()[0].public
    watched = WatchedKeys(keys.path)
    file = Path(keys.path, "clients.toml")
    good = file.read_text()
    file.write_text("[[client")
    with pytest.raises(ConfigError):
        watched.refresh()
    file.write_text(good)
    assert watched.refresh() is not None
    assert watched.admits(Domain.RECORD, public)
