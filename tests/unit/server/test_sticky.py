"""Which headers a call carries along."""

from __future__ import annotations

from polyroute.server.sticky import headers_of


def test_only_what_some_route_is_keyed_on_is_carried() -> None:
    sent = [("X-Tenant", "acme"), ("Authorization", "secret"), ("x-region", "eu")]
    assert headers_of(sent, {"x-tenant", "x-plan"}) == {"x-tenant": "acme"}
    assert headers_of(sent, ()) == {}


def test_a_header_that_is_sent_twice_is_one() -> None:
    assert headers_of([("x-a", "1"), ("X-A", "2")], {"x-a"}) == {"x-a": "1, 2"}
    assert headers_of([("x-a", b"1")], {"x-a"}) == {}
