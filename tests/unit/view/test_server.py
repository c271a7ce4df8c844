"""What the web server gives to whom: the trace and the files of one directory, to a browser that means this host."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from frzmq.errors import ConfigError
from frzmq.view.server import POLICY, Site, serving

TIMEOUT_S = 10.0
Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A user interface, and beside it what is none of its files."""
    root = tmp_path / "ui"
    (root / "v1").mkdir(parents=True)
    (root / "index.html").write_text("start")
    (root / "v1" / "a b.js").write_text("script")
    (root / "v1" / "x.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "ui-other").mkdir()
    (tmp_path / "ui-other" / "index.html").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "outside").symlink_to(tmp_path)
    (root / "inside.js").symlink_to(root / "v1" / "a b.js")
    (root / "loop").symlink_to(root / "loop")
    return root.resolve()


@pytest.fixture
def site(root: Path) -> Site:
    return Site("slow", b"trace", root)


@pytest.fixture
def host(site: Site) -> Iterator[str]:
    with serving(site) as base:
        yield base.removeprefix("http://")


def ask(host: str, path: str, method: str = "GET", **headers: str) -> Reply:
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": host, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def raw(host: str, request: bytes) -> bytes:
    """The answer to bytes that no client would send."""
    address, port = host.split(":")
    with socket.create_connection((address, int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return answer.read()


def test_server_trace_is_behind_a_secret(host: str, site: Site) -> None:
    status, headers, body = ask(host, site.trace_path)
    assert (status, body, headers["Content-Length"]) == (200, b"trace", "5")
    assert re.fullmatch(r"/[\w-]{22}/slow\.pftrace", site.trace_path)
    assert ask(host, "/slow.pftrace")[0] == 404
    assert ask(host, f"/{'x' * 22}/slow.pftrace")[0] == 404
    assert Site("slow", b"").secret != site.secret


@pytest.mark.parametrize(
    ("path", "type_", "body"),
    [
        ("/", "text/html; charset=utf-8", b"start"),
        ("/?a=b", "text/html; charset=utf-8", b"start"),
        ("/index.html", "text/html; charset=utf-8", b"start"),
        ("/v1/a%20b.js", "text/javascript; charset=utf-8", b"script"),
        ("/v1/x.wasm", "application/wasm", b"\0asm"),
        ("/inside.js", "text/javascript; charset=utf-8", b"script"),
    ],
)
def test_server_file_of_the_directory_is_given(host: str, path: str, type_: str, body: bytes) -> None:
    status, headers, got = ask(host, path)
    assert (status, headers["Content-Type"], got) == (200, type_, body)


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/v1/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/../ui-other/index.html",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/link.txt",
        "/outside/secret.txt",
        "/loop",
        "/v1",
        "/v1/",
        "/.",
        "/nothing",
        "/%00",
        "/" + "x" * 5000,
        "*",
    ],
)
def test_server_path_that_is_no_file_of_the_directory_is_404(host: str, path: str) -> None:
    status, _, body = ask(host, path)
    assert status == 404
    assert b"secret" not in body.replace(b"secret.txt", b"")
    assert b"root:" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get"])
def test_server_other_methods_are_refused(host: str, site: Site, method: str) -> None:
    status, _, body = ask(host, site.trace_path, method)
    assert status == 501
    assert body != b"trace"


def test_server_head_is_get_without_the_body(host: str, site: Site) -> None:
    status, headers, body = ask(host, site.trace_path, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "5", b"")


@pytest.mark.parametrize("name", ["evil.example", "localhost:{port}", "127.0.0.1", "127.0.0.1:{port}.evil.example", ""])
def test_server_other_host_is_refused(host: str, site: Site, name: str) -> None:
    status, _, body = ask(host, site.trace_path, Host=name.format(port=host.partition(":")[2]))
    assert (status, b"trace" in body) == (403, False)


def test_server_two_hosts_or_none_are_refused(host: str, site: Site) -> None:
    for lines in (f"Host: {host}\r\nHost: evil.example\r\n", ""):
        answer = raw(host, f"GET {site.trace_path} HTTP/1.1\r\n{lines}\r\n".encode())
        assert answer.startswith(b"HTTP/1.0 403 ")


def test_server_nonsense_is_answered_or_ended(host: str) -> None:
    assert b" 400 " in raw(host, b"nonsense of many words here\r\n\r\n")
    assert raw(host, b"\r\n\r\n") == b""
    assert b" 414 " in raw(host, b"GET /" + b"x" * 70_000)
    assert ask(host, "/")[0] == 200


def test_server_pages_may_connect_to_nowhere_else(host: str) -> None:
    for path in ("/", "/v1/x.wasm", "/nothing"):
        headers = ask(host, path)[1]
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
    directives = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert directives["connect-src"] == "'self' data: blob:"
    assert "http" not in POLICY
    assert "*" not in POLICY


def test_server_without_a_user_interface_has_the_trace_only_and_for_its_reader() -> None:
    site = Site("slow", b"trace", reader="https://reader.example")
    with serving(site) as base:
        host = base.removeprefix("http://")
        status, headers, body = ask(host, site.trace_path, Origin="https://reader.example")
        assert (status, body, headers["Access-Control-Allow-Origin"]) == (200, b"trace", "https://reader.example")
        assert ask(host, "/")[0] == 404
        assert ask(host, "/etc/passwd")[0] == 404


def test_server_name_of_the_trace_is_plain_in_its_url() -> None:
    site = Site("../a b&c#d\n\u202e" + "x" * 300, b"", secret="s")
    assert re.fullmatch(r"/s/[A-Za-z0-9._-]{1,100}\.pftrace", site.trace_path)


def test_server_listens_on_this_host_only_and_ends(site: Site) -> None:
    before = threading.active_count()
    with serving(site) as base:
        address, port = base.removeprefix("http://").split(":")
        assert address == "127.0.0.1"
        idle = socket.create_connection((address, int(port)), timeout=TIMEOUT_S)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, int(port)), timeout=TIMEOUT_S)
    idle.close()
    assert threading.active_count() <= before + 1  # who still listens to the idle one is a daemon


def test_server_browser_that_goes_away_is_no_noise(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    large = Site("large", bytes(32 << 20))
    with serving(large) as base:
        host = base.removeprefix("http://")
        address, port = host.split(":")
        with socket.create_connection((address, int(port)), timeout=TIMEOUT_S) as connection:
            connection.sendall(f"GET {large.trace_path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert connection.recv(10)
        assert ask(host, large.trace_path, "HEAD")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_server_port_that_is_taken_is_an_error(site: Site) -> None:
    with serving(site) as base:
        port = int(base.rpartition(":")[2])
        with (
            pytest.raises(ConfigError, match=f"cannot listen on port {port}: Address already in use"),
            serving(site, port),
        ):
            pass
    with pytest.raises(ConfigError, match="cannot listen on port 70000: there is no such port"), serving(site, 70000):
        pass
