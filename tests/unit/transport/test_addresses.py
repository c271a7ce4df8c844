import pytest

from frzmq.errors import ConfigError
from frzmq.transport.addresses import Endpoints, directory_endpoints, is_loopback, parse_address


@pytest.mark.parametrize("text", ["/run/fr", "ipc:///run/fr", "ipc:///run/fr/", "/run/../run/fr"])
def test_address_of_a_directory_names_its_sockets(text: str) -> None:
    assert parse_address(text) == Endpoints(
        "ipc:///run/fr/data", "ipc:///run/fr/link", "ipc:///run/fr/control", "/run/fr"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "recorder.example"])
def test_address_of_tcp_takes_three_ports(host: str) -> None:
    endpoints = parse_address(f"tcp://{host}:7000")
    assert endpoints == Endpoints(f"tcp://{host}:7000", f"tcp://{host}:7001", f"tcp://{host}:7002")
    assert endpoints.address == f"tcp://{host}:7000"


@pytest.mark.parametrize("text", ["/run/fr", "tcp://[::1]:7000"])
def test_address_of_endpoints_parses_to_the_same(text: str) -> None:
    endpoints = parse_address(text)
    assert parse_address(endpoints.address) == endpoints


@pytest.mark.parametrize(
    "text",
    [
        "", "ipc://", "ipc://@abstract", "http://host:1", "tcp://", "tcp://host", "tcp://:7000", "tcp://host:0", "tcp://host:65534",
        "tcp://host:-1", "tcp://host:x", "tcp://host:²", "tcp://::1:7000", "inproc://x",
    ],
)  # fmt: skip
def test_address_of_nothing_known_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="address: wanted"):
        parse_address(text)


def test_address_of_107_bytes_is_taken_and_one_more_is_refused() -> None:
    longest = "/" + "d" * (107 - len("/") - len("/control"))
    assert directory_endpoints(longest).control == f"ipc://{longest}/control"
    with pytest.raises(ConfigError, match="at most 107 bytes, got 108"):
        directory_endpoints(longest + "d")


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("/run/fr", True), ("tcp://127.0.0.1:7000", True), ("tcp://127.9.9.9:7000", True), ("tcp://localhost:7000", True),
        ("tcp://[::1]:7000", True), ("tcp://0.0.0.0:7000", False), ("tcp://*:7000", False), ("tcp://[::]:7000", False),
        ("tcp://10.0.0.1:7000", False), ("tcp://recorder.example:7000", False),
    ],
)  # fmt: skip
def test_is_loopback_says_who_can_reach_it(text: str, loopback: bool) -> None:
    assert is_loopback(parse_address(text)) is loopback
