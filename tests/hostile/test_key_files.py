"""Whatever is in a key file or in a list of clients, reading it is a value or ConfigError, and tells no secret."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from frzmq.errors import ConfigError
from frzmq.recorder.access import Client, Role
from frzmq.recorder.keyring import KeyDirectory
from frzmq.transport.keys import ClientKey, KeyPair, format_client_key, read_client_key

SECRET = "s3cret" * 6 + "{}[]"
KEY = format_client_key(ClientKey("checkout", KeyPair("p" * 40, SECRET), "r" * 40))
CLIENTS = f'version = 1\n[[client]]\nname = "a"\nroles = ["viewer"]\npublic = "{"p" * 40}"\n'


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """``text`` with a stretch of it replaced by anything, or cut off."""
    data = text.encode()
    begin = draw(st.integers(0, len(data)))
    end = draw(st.integers(begin, len(data)))
    rest = data[end:] if draw(st.booleans()) else b""
    return data[:begin] + draw(st.binary(max_size=40) | st.text(max_size=20).map(str.encode)) + rest


def written(directory: str, data: bytes) -> str:
    path = Path(directory, "clients.toml")
    path.write_bytes(data)
    path.chmod(0o600)
    return str(path)


@given(st.binary(max_size=300) | damaged(KEY))
@example(b"[" * 100_000)
@example(b"a." * 100_000 + b"b = 1")
@example(b"\xff\xfe")
@example(KEY.encode() + b"\x00")
@example(b"name = 0x" + b"f" * 3500)
def test_malicious_key_file_is_a_key_or_config_error_and_tells_no_secret(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = written(directory, data)
        found, said = None, ""
        try:
            found = read_client_key(path)
        except ConfigError as error:
            said = str(error)
    assert SECRET[:12] not in said
    if found is not None:
        assert len(found.pair.public) == len(found.pair.secret) == len(found.recorder) == 40
        assert format_client_key(found).count("\n") == 4


@given(st.binary(max_size=300) | damaged(CLIENTS))
@example(b"version = 1\nclient = " + b"[{}," * 1000)
@example(b"version = 0x" + b"f" * 5000)
@example(b"version = 1\nclient = 0x" + b"f" * 5000)
@example(b"version = 1\n" + b"[[client]]\n" * 5000)
def test_malicious_list_of_clients_is_clients_or_config_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        written(directory, data)
        with suppress(ConfigError):
            for client in KeyDirectory(directory).clients():
                assert isinstance(client, Client) and client.roles and len(client.public) == 40


@pytest.mark.parametrize("text", ["a" * 65, "a\nb", 'a"', "ä", "-a", ".a", "a/b", "a b"])
def test_malicious_client_name_is_refused(tmp_path: Path, text: str) -> None:
    """It stands in a file's name and in TOML that is written without escapes."""
    keys = KeyDirectory(str(tmp_path / "keys"))
    pair: Callable[[], KeyPair] = lambda: KeyPair("p" * 40, "s" * 40)  # noqa: E731  # one expression
    keys.init(pair)
    with pytest.raises(ConfigError, match="wanted a name"):
        keys.add(text, [Role.VIEWER], str(tmp_path / "x.key"), pair)
    assert keys.clients() == ()
