from __future__ import annotations

import pytest

from frzmq.transport.zap import Domain, zap_reply

KEY = b"k" * 32
REQUEST = [b"1.0", b"7", b"frzmq.record", b"127.0.0.1", b"", b"CURVE", KEY]


def admit(domain: Domain, key: bytes) -> str:
    return "checkout" if (domain, key) == (Domain.RECORD, KEY) else ""


def changed(at: int, to: bytes) -> list[bytes]:
    return [*REQUEST[:at], to, *REQUEST[at + 1 :]]


def test_zap_reply_to_an_admitted_key_names_its_user() -> None:
    assert zap_reply(REQUEST, admit) == [b"1.0", b"7", b"200", b"", b"checkout", b""]


@pytest.mark.parametrize("request_", [changed(6, b"x" * 32), changed(2, b"frzmq.control")])
def test_zap_reply_to_another_key_or_domain_is_a_refusal_that_the_client_is_told(request_: list[bytes]) -> None:
    assert zap_reply(request_, admit) == [b"1.0", b"7", b"400", b"this key is not admitted", b"", b""]


@pytest.mark.parametrize(
    "request_",
    [
        changed(0, b"2.0"),
        changed(2, b"other"),
        changed(5, b"PLAIN"),
        changed(6, b"short"),
        REQUEST[:6],
        [*REQUEST, b"more"],
    ],
)
def test_zap_reply_to_what_is_no_request_of_curve_admits_nobody(request_: list[bytes]) -> None:
    assert zap_reply(request_, lambda domain, key: "anybody")[2:] == [b"500", b"wanted a request for CURVE", b"", b""]


def test_zap_reply_to_nothing_is_a_reply() -> None:
    assert zap_reply([], admit)[2] == b"500"
