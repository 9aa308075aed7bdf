"""Headers over REST: what a caller says by them, and what every answer tells by them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import RouteConfig, VariantConfig
from polyroute.core.errors import Overloaded, WorkerDied
from polyroute.core.request import CacheMode, CacheOptions
from polyroute.core.route_header import route_from_header
from tests.integration.rest_serving import Rest, rest_over

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PROMPT = {"prompt": "one two"}
ASKED = {"messages": [{"role": "user", "content": "one two"}]}
CALLS = {
    "/v1/generate": PROMPT,
    "/v1/stream": PROMPT,
    "/v1/chat/completions": ASKED,
    "/v1/completions": {**PROMPT, "stream": True},
}
ROUTE = RouteConfig(
    id="chat",
    variants=(VariantConfig(name="old", model="first"), VariantConfig(name="new", model="second")),
    fallback=("third",),
)


@pytest.fixture
def first() -> EchoBackend:
    return EchoBackend("first", version="v1")


@pytest.fixture
async def rest(first: EchoBackend) -> AsyncIterator[Rest]:
    second, third = EchoBackend("second"), EchoBackend("third", replica="http://third:1")
    async with rest_over(first, second, third, routes=(ROUTE,)) as running:
        yield running


async def headers_of(rest: Rest, path: str, sent: dict[str, str], body: object = None) -> tuple[int, dict[str, str]]:
    async with rest.client.post(rest.url + path, json=body or CALLS[path], headers=sent) as answer:
        await answer.read()
        return answer.status, dict(answer.headers)


@pytest.mark.parametrize("path", CALLS)
async def test_an_answer_tells_how_it_was_routed(rest: Rest, path: str) -> None:
    status, headers = await headers_of(rest, path, {"traceparent": PARENT, "X-Request-ID": "mine-1"})
    assert status == 200
    assert headers["X-Request-ID"] == "mine-1"
    assert headers["X-Polyroute-Model"] == headers["X-Polyroute-Deployment"] == "first"
    assert headers["X-Polyroute-Version"] == "v1"
    assert headers["X-Polyroute-Replica"] == "echo"
    assert headers["X-Polyroute-Cache"] == "bypass"
    assert headers["X-Polyroute-Attempts"] == "1"
    assert headers["X-Polyroute-Trace-Id"] == TRACE
    assert headers["X-Polyroute-Reasons"]
    assert "X-Polyroute-Variant" not in headers
    route = route_from_header(headers["X-Polyroute-Route"])
    assert route is not None
    assert (route.model, route.trace_id, route.requested) == ("first", TRACE, "first")


async def test_options_for_callers_that_cannot_put_them_in_the_body(rest: Rest, first: EchoBackend) -> None:
    sent = {
        "X-Polyroute-User": "u", "X-Polyroute-Session": "s", "X-Polyroute-Affinity-Key": "k",
        "X-Polyroute-No-Fallback": "true", "X-Polyroute-No-Shadow": "1", "X-Polyroute-Variant": "old",
        "X-Polyroute-Cache": "Refresh", "X-Polyroute-Cache-Max-Age": "1.5",
        "X-Polyroute-Cache-Original-Pace": "true",
    }  # fmt: skip
    status, headers = await headers_of(rest, "/v1/chat/completions", sent, {**ASKED, "model": "chat"})
    assert status == 200
    assert headers["X-Polyroute-Variant"] == "old"
    asked = first.calls[0].request
    routing = asked.routing
    assert (routing.user, routing.session, routing.affinity_key, routing.variant) == ("u", "s", "k", "old")
    assert (routing.no_fallback, routing.no_shadow) == (True, True)
    assert asked.cache == CacheOptions(CacheMode.REFRESH, 1.5, original_pace=True)


async def test_the_body_wins_over_a_header(rest: Rest, first: EchoBackend) -> None:
    await headers_of(rest, "/v1/chat/completions", {"X-Polyroute-User": "header"}, {**ASKED, "user": "body"})
    await headers_of(rest, "/v1/generate", {"X-Polyroute-Cache": "refresh"}, {**PROMPT, "cache": False})
    assert first.calls[0].request.routing.user == "body"
    assert first.calls[1].request.cache.mode is CacheMode.BYPASS


async def test_a_trace_is_passed_on_and_a_broken_one_is_not(rest: Rest, first: EchoBackend) -> None:
    await headers_of(rest, "/v1/generate", {"traceparent": PARENT, "tracestate": "a=b"})
    await headers_of(rest, "/v1/generate", {"traceparent": "00-nonsense", "tracestate": "a=b"})
    passed = first.calls[0].trace.headers()
    assert passed["traceparent"].split("-")[1] == TRACE
    assert passed["tracestate"] == "a=b"
    assert "nonsense" not in first.calls[1].trace.headers()["traceparent"]


async def test_a_deadline_ends_the_call(rest: Rest, first: EchoBackend) -> None:
    first.script = Script(gate=asyncio.Event())
    status, told, _ = await rest.post("/v1/generate", PROMPT, {"X-Polyroute-Timeout-Ms": "50"})
    assert status == 504
    assert (told["error"]["code"], told["error"]["type"]) == ("DEADLINE_EXCEEDED", "timeout_error")
    assert first.open == 0


async def test_a_fallback_and_a_failure_count_their_attempts(rest: Rest, first: EchoBackend) -> None:
    first.script = Script(error=WorkerDied("it died"))
    asked = {**PROMPT, "model": "chat"}
    _, headers = await headers_of(rest, "/v1/generate", {"X-Polyroute-Variant": "old"}, asked)
    assert headers["X-Polyroute-Attempts"] == "2"
    assert headers["X-Polyroute-Model"] == "third"
    assert headers["X-Polyroute-Replica"] == "http://third:1"
    only = {"X-Polyroute-Variant": "old", "X-Polyroute-No-Fallback": "true"}
    status, headers = await headers_of(rest, "/v1/generate", only, asked)
    assert status == 503
    assert headers["X-Polyroute-Attempts"] == "1"


async def test_retry_after_is_in_whole_seconds_rounded_up(rest: Rest, first: EchoBackend) -> None:
    for delay_s, told in ((None, "1"), (0.2, "1"), (2.0, "2"), (2.1, "3")):
        first.script = Script(error=Overloaded("full", retry_after_s=delay_s))
        status, headers = await headers_of(rest, "/v1/generate", {})
        assert (status, headers["Retry-After"]) == (429, told)


async def raw(rest: Rest, request: bytes) -> bytes:
    url = urlsplit(rest.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("bad", [b"a b", b"\xc3\xa9", b"x" * 129, b"", b"a\tb"])
async def test_a_request_id_that_is_no_token_is_replaced(rest: Rest, bad: bytes) -> None:
    answer = await raw(
        rest, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: " + bad + b"\r\n\r\n"
    )
    line = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"x-request-id:"))
    given = line.split(b": ")[1]
    assert len(given) == 32
    assert given != bad


async def test_no_value_can_break_out_of_its_header(first: EchoBackend) -> None:
    evil = EchoBackend(
        "evil", version='v"1\r\nSet-Cookie: a=b\r\n\r\n<h1>', replica="caf\u00e9 \U0001f600 " + "x" * 9000
    )
    async with rest_over(evil) as rest:
        status, headers = await headers_of(rest, "/v1/generate", {})
        assert status == 200
        assert "Set-Cookie" not in headers
        assert headers["X-Polyroute-Version"] == 'v"1\\r\\nSet-Cookie: a=b\\r\\n\\r\\n<h1>'
        assert headers["X-Polyroute-Replica"].startswith("caf\\xe9 \\U0001f600 xxx")
        assert len(headers["X-Polyroute-Replica"]) == 512


@pytest.mark.parametrize("path", ["/nowhere", "/v1/generate", "/healthz", "/"])
async def test_every_answer_has_a_request_id(rest: Rest, path: str) -> None:
    _, _, headers = await rest.get(path)
    assert headers["X-Request-ID"]
