"""The forms of an address."""

from __future__ import annotations

import pytest

from polyroute.client.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "target", "tls"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", None),
        ("router.example", "router.example:50051", None),
        (" router.example:1 ", "router.example:1", None),
        ("[::1]:9", "[::1]:9", None),
        ("[fe80::1%eth0]", "[fe80::1%eth0]:50051", None),
        ("https://router.example", "router.example:443", True),
        ("https://router.example:8443/", "router.example:8443", True),
        ("http://router.example", "router.example:80", False),
        ("grpc://router.example", "router.example:50051", False),
        ("grpcs://[::1]", "[::1]:50051", True),
        ("unix:/run/polyroute.sock", "unix:/run/polyroute.sock", None),
        ("dns:///router:50051", "dns:///router:50051", None),
        ("0.0.0.0:7", "127.0.0.1:7", None),
        ("[::]:7", "[::1]:7", None),
        (":7", "127.0.0.1:7", None),
    ],
)
def test_each_form_is_read(text: str, target: str, tls: bool | None) -> None:
    assert parse_address(text) == Address(target, tls)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not host:port"),
        ("::1", "brackets"),
        ("a b:1", "not host:port"),
        ("host:0", "port 0"),
        ("host:65536", "port 65536"),
        ("host:x", "not host:port"),
        ("https://", "not host:port"),
        ("https://host/path", "not host:port"),
        ("https://user@host", "not host:port"),
        ("ftp://host", "unknown scheme"),
        ("unix:", "path"),
        ("dns:///", "no host"),
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_address(text)


def test_loopback_and_many_follow_from_the_address() -> None:
    assert parse_address("localhost").loopback
    assert parse_address("unix:/s").loopback
    assert not parse_address("router").loopback
    assert parse_address("dns:///router:1").many
    assert not parse_address("router:1").many
