"""A body whose very bytes came before is answered as any other, and by the rules that are in force now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import CacheConfig
from tests.integration.rest_serving import Rest, rest_over
from tests.lines import captured_lines

SAID = [{"role": "user", "content": "a b"}]
CASES = [
    ("/v1/chat/completions", {"messages": SAID, "temperature": 0}),
    ("/v1/completions", {"prompt": "a b", "temperature": 0, "logprobs": 0}),
    ("/v1/generate", {"prompt": "a b", "temperature": 0, "max_new_tokens": 5}),
]
"""A body of each endpoint that gives whole answers."""


async def kept(rest: Rest, path: str, body: object) -> dict[str, Any]:
    """The first answer, once it is stored."""
    _, first, _ = await rest.post(path, body)
    while (await rest.post(path, body))[2]["X-Polyroute-Cache"] != "hit":
        pass  # it is written behind the answer
    assert isinstance(first, dict)
    return first


def said(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What does not differ from one time to the next."""
    return {key: value for key, value in answer.items() if key not in ("id", "request_id", "created", "cached")}


@pytest.mark.parametrize(("path", "body"), CASES)
async def test_each_answer_has_its_own_id_and_route(path: str, body: dict[str, Any], tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["Grü", "ße"]))
    async with rest_over(echo, folder=tmp_path, cache=CacheConfig()) as rest:
        first = await kept(rest, path, body)
        answers = [await rest.post(path, body) for _ in range(5)]
        assert len(echo.calls) == 1
    told = [headers["X-Request-ID"] for _, _, headers in answers]
    assert len(set(told)) == 5
    for own_id, (status, answer, headers) in zip(told, answers, strict=True):
        assert status == 200
        assert said(answer) == said(first)
        assert (answer.get("request_id") or answer["id"]).endswith(own_id)
        assert headers["X-Polyroute-Cache"] == "hit"
        assert json.loads(headers["X-Polyroute-Route"])["reasons"][-1].startswith("cache: found in memory, stored ")


@pytest.mark.parametrize(("path", "body"), CASES)
async def test_headers_count_each_time(path: str, body: dict[str, Any], tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with rest_over(echo, folder=tmp_path, cache=CacheConfig()) as rest:
        await kept(rest, path, body)
        for headers, cache in (
            ({"X-Polyroute-Cache": "bypass"}, "bypass"),
            ({"X-Polyroute-Cache-Max-Age": "0"}, "miss"),
            ({"X-Polyroute-Cache-Original-Pace": "true"}, "hit"),
            ({"X-Request-ID": "mine"}, "hit"),
            ({}, "hit"),
        ):
            _, _, told = await rest.post(path, body, headers)
            assert told["X-Polyroute-Cache"] == cache, headers
            assert told["X-Request-ID"] == headers.get("X-Request-ID", told["X-Request-ID"])
        status, answer, _ = await rest.post(path, body, {"X-Polyroute-Variant": "b" * 300})
        assert status == 400, answer
        status, answer, _ = await rest.post(path, body, {"X-Polyroute-Timeout-Ms": "x"})
        assert (status, answer["error"]["param"]) == (400, "X-Polyroute-Timeout-Ms")


@pytest.mark.parametrize(("path", "body"), CASES)
async def test_the_log_tells_of_each_call(path: str, body: dict[str, Any], tmp_path: Path) -> None:
    async with rest_over(EchoBackend("m"), folder=tmp_path, cache=CacheConfig()) as rest:
        await kept(rest, path, body)
        with captured_lines() as logs:
            told = [(await rest.post(path, body))[2]["X-Request-ID"] for _ in range(3)]
    lines = [line for line in logs if line["event"] == "call.finished"]
    assert [line["request_id"] for line in lines] == told
    assert {line["entrance"] for line in lines} == {f"POST {path}"}
