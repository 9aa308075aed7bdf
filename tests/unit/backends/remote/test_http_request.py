"""Requests as a peer reads them: each header once, and what is configured before all else."""

from __future__ import annotations

import pytest

from polyroute.backends.remote.http_request import HttpRequests
from polyroute.core.errors import InvalidArgument


def written(
    root: str = "http://peer:8000/base",
    path: str = "/v1/models",
    *,
    configured: dict[str, str] | None = None,
    own: dict[str, str] | None = None,
    content: bytes | None = None,
    requests: HttpRequests | None = None,
) -> tuple[str, list[str], bytes]:
    """The first line, the headers, and the content."""
    request = (requests or HttpRequests(root)).written(
        "GET" if content is None else "POST", path, configured=configured or {}, own=own or {}, content=content
    )
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    return first, headers, body


SAME = ["Host: peer:8000", "User-Agent: polyroute", "Accept: */*", "Accept-Encoding: identity"]


def test_a_question() -> None:
    assert written(own={"X-Request-ID": "r1"}) == ("GET /base/v1/models HTTP/1.1", [*SAME, "X-Request-ID: r1"], b"")


def test_a_request_with_content() -> None:
    first, headers, body = written(path="/v1/completions", content=b'{"a":"\xc3\xa9"}')
    assert first == "POST /base/v1/completions HTTP/1.1"
    assert headers == [*SAME, "Content-Type: application/json", "Content-Length: 10"]
    assert body == b'{"a":"\xc3\xa9"}'


def test_empty_content_has_its_length() -> None:
    assert "Content-Length: 0" in written(content=b"")[1]


@pytest.mark.parametrize(
    ("root", "host", "target"),
    [
        ("http://peer", "peer", "/v1/models"),
        ("http://peer:80", "peer", "/v1/models"),
        ("https://peer:443", "peer", "/v1/models"),
        ("https://peer:80", "peer:80", "/v1/models"),
        ("http://[::1]:8000", "[::1]:8000", "/v1/models"),
        ("http://bücher.example/é", "xn--bcher-kva.example", "/%C3%A9/v1/models"),
    ],
)
def test_whom_and_what_it_asks(root: str, host: str, target: str) -> None:
    first, headers, _ = written(root)
    assert first == f"GET {target} HTTP/1.1"
    assert headers[0] == f"Host: {host}"


def test_what_is_configured_goes_before_all_else() -> None:
    configured = {"user-agent": "ours", "HOST": "other", "x-request-id": "fixed", "X-Team": "blue"}
    _, headers, _ = written(configured=configured, own={"X-Request-ID": "r1", "X-Other": "1"})
    by_name = dict(header.lower().split(": ", 1) for header in headers)
    assert len(by_name) == len(headers), "no header stands there twice"
    assert by_name["user-agent"] == "ours"
    assert by_name["host"] == "other"
    assert by_name["x-request-id"] == "fixed"
    assert (by_name["x-team"], by_name["x-other"]) == ("blue", "1")


def test_a_new_key_is_sent_from_then_on() -> None:
    requests = HttpRequests("http://peer")
    for key in ("one", "one", "two"):
        assert f"Authorization: {key}" in written(configured={"Authorization": key}, requests=requests)[1]
    assert written(requests=requests)[1] == written("http://peer")[1]


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "\x00"])
def test_a_value_cannot_bring_another_header(value: str) -> None:
    with pytest.raises(InvalidArgument, match="`X-Request-ID` is not printable"):
        written(own={"X-Request-ID": value})
