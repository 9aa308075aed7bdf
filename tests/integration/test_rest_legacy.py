"""The legacy endpoints on a real socket: generate, batch and stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import CacheConfig
from polyroute.core.errors import Overloaded, WorkerDied
from polyroute.core.event import FinishReason
from polyroute.core.request import CacheMode
from tests.integration.rest_serving import WAIT_S, Rest, rest_over


@pytest.fixture
def echo() -> EchoBackend:
    return EchoBackend("org/echo", version="v7")


@pytest.fixture
async def rest(echo: EchoBackend) -> AsyncIterator[Rest]:
    async with rest_over(echo, EchoBackend("other")) as running:
        yield running


async def test_generate_answers_in_the_legacy_shape_and_more(rest: Rest) -> None:
    status, told, headers = await rest.post("/v1/generate", {"prompt": "one two three"})
    assert status == 200
    assert (told["model"], told["output"], told["cached"]) == ("org/echo", "one two three", False)
    assert told["finish_reason"] == "stop"
    assert told["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "cached_prompt_tokens": 0}
    assert told["version"] == "v7"
    assert told["request_id"] == headers["X-Request-ID"]


async def test_every_option_reaches_the_call(rest: Rest, echo: EchoBackend) -> None:
    body = {
        "prompt": "x", "model": "org/echo", "max_new_tokens": 5, "temperature": 0, "top_p": 0.5, "top_k": 3,
        "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.3, "seed": 9,
        "stop": "END", "cache": False,
    }  # fmt: skip
    await rest.post("/v1/generate", body)
    asked = echo.calls[0].request
    sampling = asked.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (5, 0.0, 0.5, 3)
    assert (sampling.min_p, sampling.repetition_penalty, sampling.seed) == (0.1, 1.1, 9)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.2, 0.3)
    assert asked.stop == ("END",)
    assert asked.cache.mode is CacheMode.BYPASS


async def test_a_repeat_is_cached_and_says_so(echo: EchoBackend, tmp_path: Path) -> None:
    body = {"prompt": "one two", "temperature": 0}
    async with rest_over(echo, cache=CacheConfig(), folder=tmp_path) as rest:
        status, _, _ = await rest.post("/v1/generate", {**body, "cache": "only_if_cached"})
        assert status == 404
        _, first, headers = await rest.post("/v1/generate", body)
        assert (first["cached"], headers["X-Polyroute-Cache"]) == (False, "miss")
        async with asyncio.timeout(WAIT_S):  # answers are stored behind the caller's back
            while (repeat := await rest.post("/v1/generate", body))[2]["X-Polyroute-Cache"] != "hit":
                pass
        assert repeat[1]["cached"] is True
        assert first["output"] == repeat[1]["output"] == "one two"
        run = len(echo.calls)
        events = await rest.events("/v1/stream", body)
        assert [name for name, _ in events] == ["start", "delta", "delta", "end"]
        assert events[0][1]["cached"] is True
        _, told, _ = await rest.post("/v1/generate", {**body, "cache": False})
        assert told["cached"] is False
        assert len(echo.calls) == run + 1


async def test_a_batch_keeps_its_order(rest: Rest, echo: EchoBackend) -> None:
    prompts = [f"prompt {i}" for i in range(40)]
    status, told, headers = await rest.post("/v1/generate/batch", {"prompts": prompts, "max_new_tokens": 2})
    assert status == 200, told
    assert told["model"] == headers["X-Polyroute-Model"] == "org/echo"
    assert [r["output"] for r in told["results"]] == prompts
    assert told["results"][0] == {
        "output": "prompt 0",
        "cached": False,
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "finish_reason": "stop",
        "model": "org/echo",
    }
    assert len({call.request_id for call in echo.calls}) == 40


async def test_a_batch_runs_a_bounded_number_at_once(rest: Rest, echo: EchoBackend) -> None:
    most = 0

    async def pause(place: int) -> None:
        nonlocal most
        most = max(most, echo.open)
        await asyncio.sleep(0)

    echo.script = Script(pause=pause)
    await rest.post("/v1/generate/batch", {"prompts": ["a b c"] * 60})
    assert 1 < most <= 16


async def test_one_failure_fails_the_batch_and_stops_the_rest(rest: Rest, echo: EchoBackend) -> None:
    never = asyncio.Event()
    full = Script(error=Overloaded("`org/echo`: 64 waiting, limit 64", retry_after_s=1.2))
    echo.script = lambda call: full if call.request.prompt == "bad" else Script(gate=never)
    status, told, headers = await rest.post("/v1/generate/batch", {"prompts": ["a", "b", "bad", "c"]})
    assert status == 429
    assert told["error"]["message"] == "prompts[2]: `org/echo`: 64 waiting, limit 64"
    assert headers["Retry-After"] == "2"
    assert echo.open == 0
    assert echo.closed_early == len(echo.calls) - 1


async def test_a_bad_prompt_of_a_batch_is_named_before_anything_runs(rest: Rest, echo: EchoBackend) -> None:
    error = await rest.refused("/v1/generate/batch", {"prompts": ["a", ""]})
    assert (error["param"], error["message"]) == ("prompts[1]", "prompts[1]: must not be empty")
    error = await rest.refused("/v1/generate/batch", {"prompts": ["a", 3]})
    assert error["message"] == "prompts[1]: must be a string, not 3"
    error = await rest.refused("/v1/generate/batch", {"prompts": []})
    assert error["message"] == "prompts: must not be empty"
    error = await rest.refused("/v1/generate/batch", {"prompts": ["a"] * 257})
    assert error["message"] == "prompts: 257 prompts, limit 256"
    error = await rest.refused("/v1/generate/batch", {"prompts": ["a"], "max_new_tokens": 0})
    assert error["param"] == "max_new_tokens"
    assert not echo.calls


async def test_a_stream_starts_goes_on_and_ends(rest: Rest, echo: EchoBackend) -> None:
    echo.script = Script(texts=["Hé", "llo\n\n", "\U0001f600"], reason=FinishReason.STOP_SEQUENCE, matched_stop="END")
    events = await rest.events("/v1/stream", {"prompt": "x"})
    assert [name for name, _ in events] == ["start", "delta", "delta", "delta", "end"]
    assert "".join(told["text"] for name, told in events if name == "delta") == "Héllo\n\n\U0001f600"
    assert events[0][1]["model"] == "org/echo"
    assert events[-1][1]["finish_reason"] == "stop_sequence"
    assert events[-1][1]["matched_stop"] == "END"
    assert events[-1][1]["usage"]["completion_tokens"] == 3


async def test_an_error_before_the_first_token_has_its_status(rest: Rest, echo: EchoBackend) -> None:
    echo.script = Script(error=WorkerDied("the worker of `org/echo` has ended", retry_after_s=0.2))
    status, told, headers = await rest.post("/v1/stream", {"prompt": "x"})
    assert status == 503
    assert told["error"]["code"] == "WORKER_DIED"
    assert told["error"]["type"] == "server_error"
    assert headers["Retry-After"] == "1"
    assert headers["Content-Type"].startswith("application/json")
