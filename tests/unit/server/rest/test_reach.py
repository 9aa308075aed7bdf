"""Everything that a request can say can be said over REST, or the reason why not is written here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from msgspec import Struct
from msgspec.structs import fields

from polyroute.core.call import Call, Entrance
from polyroute.core.request import CacheMode, CacheOptions, Message, Request, RoutingOptions, Sampling
from polyroute.server.patience import Patience
from polyroute.server.rest.bodies import GenerateBody
from polyroute.server.rest.call_headers import ROUTING_HEADERS, call, says_something
from polyroute.server.rest.chat_body import ChatBody
from polyroute.server.rest.frame import FRAME, Frame
from polyroute.server.rest.json_body import parse_body
from polyroute.server.rest.openai_bodies import CompletionBody

UNREACHABLE = {
    "prompt": "a chat has messages; /v1/completions and /v1/generate have it",
}
"""Field of `Request` that `/v1/chat/completions` cannot set: why."""

CHAT: dict[str, Any] = {
    "model": "m", "max_tokens": 1, "temperature": 0.5, "top_p": 0.5, "top_k": 1, "min_p": 0.5,
    "repetition_penalty": 1.5, "presence_penalty": 1, "frequency_penalty": 1, "seed": 1, "logprobs": True,
    "top_logprobs": 1, "stop": ["x"],
    "messages": [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "x", "tool_call_id": "c"},
    ],
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
    "tool_choice": "auto", "logit_bias": {"1": 1}, "metadata": {"k": "v"},
}  # fmt: skip
HEADERS = {
    **{header: "true" if field.startswith("no_") else "x" for header, field in ROUTING_HEADERS.items()},
    "X-Polyroute-Cache": "bypass",
    "X-Polyroute-Cache-Max-Age": "1",
    "X-Polyroute-Cache-Original-Pace": "true",
    "X-Request-ID": "r",
}


def asked(body: Any, shape: type[ChatBody | CompletionBody], **headers: str) -> Call:
    http = make_mocked_request("POST", "/", headers=headers)
    http[FRAME] = Frame(Entrance("http", "POST /"), "r", 0.0, Patience(60))
    return call(http, parse_body(json.dumps(body).encode(), shape).request(), ())


def unset(value: Any, default: Any, path: str = "") -> Iterator[str]:
    """Paths of the fields of a struct, and of those in it, that have their defaults."""
    for field in fields(value):
        given, plain = getattr(value, field.name), getattr(default, field.name)
        name = f"{path}{field.name}"
        if isinstance(given, Struct) and type(given) in (Sampling, RoutingOptions, CacheOptions):
            yield from unset(given, plain, f"{name}.")
        elif given == plain:
            yield name


def test_every_field_is_reached_by_chat_or_listed() -> None:
    """A field added to the request without a way to it over REST makes this fail."""
    made = asked(CHAT, ChatBody, **HEADERS).request
    assert set(unset(made, Request())) == set(UNREACHABLE)


def test_every_field_of_a_message_is_reached() -> None:
    made = asked(CHAT, ChatBody).request.messages or ()
    never = set.intersection(*(set(unset(message, Message(""))) for message in made))
    assert not never


def test_completions_reach_what_chat_cannot() -> None:
    made = asked({"prompt": "x", "logprobs": 2}, CompletionBody).request
    assert (made.prompt, made.messages, made.sampling.logprobs) == ("x", None, 2)


def test_every_sampling_field_but_logprobs_is_reached_by_the_legacy_shape() -> None:
    skipped = {"logprobs"}  # the legacy answer has no place for them
    names = {field.name for field in fields(Sampling)} - skipped
    body = {"max_new_tokens" if name == "max_tokens" else name: 1 for name in names}
    made = parse_body(json.dumps({"prompt": "x", **body}).encode(), GenerateBody).request("x")
    assert set(unset(made.sampling, Sampling())) == skipped


def test_the_legacy_cache_may_be_an_object() -> None:
    full = {"mode": "refresh", "max_age": 1.5, "original_pace": True}
    for given in (full, {}, {"max_age": 2}):
        raw = json.dumps({"prompt": "x", "cache": given}).encode()
        made = parse_body(raw, GenerateBody).request("x").cache
        mode = CacheMode.REFRESH if "mode" in given else CacheMode.UNSPECIFIED
        assert made == CacheOptions(mode, given.get("max_age"), "original_pace" in given)


def test_the_legacy_cache_is_a_switch_or_a_word() -> None:
    expected = {
        True: CacheMode.UNSPECIFIED,
        None: CacheMode.UNSPECIFIED,
        False: CacheMode.BYPASS,
        "bypass": CacheMode.BYPASS,
        "refresh": CacheMode.REFRESH,
        "only_if_cached": CacheMode.ONLY_IF_CACHED,
    }
    for given, mode in expected.items():
        raw = json.dumps({"prompt": "x", "cache": given}).encode()
        assert parse_body(raw, GenerateBody).request("x").cache.mode is mode, given


def test_every_cache_mode_has_a_header_value() -> None:
    for mode in CacheMode:
        if mode is not CacheMode.UNSPECIFIED:
            for word in (mode.name, mode.name.lower(), mode.name.lower().replace("_", "-")):
                made = asked({"prompt": "x"}, CompletionBody, **{"X-Polyroute-Cache": word})
                assert made.request.cache.mode is mode, word


def test_every_routing_option_has_a_header() -> None:
    assert set(ROUTING_HEADERS.values()) == {field.name for field in fields(RoutingOptions)}


@pytest.mark.parametrize("header", [*HEADERS, "X-Polyroute-Timeout-Ms", "traceparent"])
def test_each_header_is_noticed_where_it_is_the_only_one(header: str) -> None:
    for name in (header, header.lower(), header.upper()):
        assert says_something(make_mocked_request("POST", "/", headers={"Accept": "*/*", name: "x"}))
    assert not says_something(make_mocked_request("POST", "/", headers={"Accept": "*/*", header + "s": "x"}))
