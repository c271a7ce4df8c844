from __future__ import annotations

import os
from pathlib import Path

import pytest

from frzmq.errors import ConfigError
from frzmq.transport.keys import ClientKey, KeyPair, format_client_key, read_client_key, read_toml
from frzmq.transport.sockets import new_pair

KEY = ClientKey("checkout", KeyPair("p" * 40, "s" * 40), "r" * 40)


def written(directory: Path, text: str, mode: int = 0o600) -> str:
    path = directory / "checkout.key"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_client_key_reads_as_it_was_written(tmp_path: Path) -> None:
    assert read_client_key(written(tmp_path, format_client_key(KEY))) == KEY


def test_new_pair_survives_its_file(tmp_path: Path) -> None:
    """Z85 has brackets, braces and an ampersand, and nothing that TOML would escape."""
    for _ in range(50):
        key = ClientKey("a", new_pair(), new_pair().public)
        assert read_client_key(written(tmp_path, format_client_key(key))) == key


def test_key_pair_does_not_show_its_secret() -> None:
    assert repr(KEY.pair) == f"KeyPair('{'p' * 40}', ...)"
    assert "s" * 40 not in repr(KEY)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_client_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, format_client_key(KEY), mode)
    with pytest.raises(
        ConfigError, match=f"checkout.key: wanted mode 0600, got {mode:04o}: others can read the secret"
    ):
        read_client_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_client_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, format_client_key(KEY))
    os.chown(path, 1234, -1)
    with pytest.raises(ConfigError, match="wanted a file of user 0, got one of user 1234"):
        read_client_key(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wanted a name of 1 to 64 letters"),
        ('name = "../x"', "wanted a name of 1 to 64 letters"),
        ('name = "a"', "public: wanted a key of 40 characters"),
        (f'name = "a"\npublic = "{"p" * 40}"\nsecret = 5', "secret: wanted a key of 40 characters"),
        ("name = ", "wanted a key file, in TOML"),
        ("\x00", "wanted a key file, in TOML"),
        (f"a = {'[' * 4000}", "wanted a key file, in TOML"),
        ("#" * 4096 + "\n", "wanted a key file of at most 4096 bytes"),
    ],
)
def test_client_key_with_nonsense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        read_client_key(path)
    assert message in str(refused.value)


def test_client_key_with_a_cut_secret_does_not_tell_it(tmp_path: Path) -> None:
    path = written(tmp_path, format_client_key(KEY).replace("s" * 40, "s" * 39))
    with pytest.raises(ConfigError) as refused:
        read_client_key(path)
    assert "ssss" not in str(refused.value)


def test_list_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A writer that holds the fifo and says nothing would make a read return nothing at all."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    held = os.open(tmp_path / "fifo", os.O_RDWR | os.O_NONBLOCK)
    with pytest.raises(ConfigError, match="got something else"):
        read_toml(str(tmp_path / "fifo"), 4096, secret=False)
    os.close(held)


def test_client_key_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, message in (
        ("no", "No such file"),
        ("fifo", "got something else"),
        (".", "Is a directory|something else"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_client_key(str(tmp_path / name))
