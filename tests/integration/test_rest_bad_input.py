"""Bad input over REST: each kind is told with its field and its limit, and the next caller is served."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.server.rest.json_body import MAX_BODY_BYTES
from tests.integration.rest_serving import Rest, rest_over

GENERATE, BATCH, CHAT, COMPLETIONS = "/v1/generate", "/v1/generate/batch", "/v1/chat/completions", "/v1/completions"
SAID: list[dict[str, Any]] = [{"role": "user", "content": "x"}]
CALLED: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "b b", "arguments": ""}}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "http://x"}}


@pytest.fixture
def echo() -> EchoBackend:
    return EchoBackend("org/echo")


@pytest.fixture
async def rest(echo: EchoBackend) -> AsyncIterator[Rest]:
    async with rest_over(echo) as running:
        yield running
        status, told, _ = await running.post(GENERATE, {"prompt": "still there"})
        assert (status, told["output"]) == (200, "still there"), "the next caller is served"


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": SAID, **fields}


BAD: list[tuple[str, Any, str | None, str]] = [
    # endpoint, body, field, what the message says
    (GENERATE, {"prompt": ""}, "prompt", "prompt: must not be empty"),
    (GENERATE, {}, "prompt", "prompt: is required"),
    (GENERATE, {"prompt": None}, "prompt", "prompt: must be a string, not null"),
    (GENERATE, {"prompt": ["x"]}, "prompt", "prompt: must be a string, not a list"),
    (GENERATE, {"prompt": "x", "messages": SAID}, "messages", "messages: is no field of this request"),
    (GENERATE, {"prompt": "x" * (10 << 20)}, "prompt", "prompt: 10485760 bytes, limit 4194304"),
    (GENERATE, {"prompt": "x", "max_tokens": 5}, "max_tokens", "is no field of this request"),
    (GENERATE, {"prompt": "x", "max_new_tokens": 0}, "max_new_tokens", "max_new_tokens: 0; must be from 1 to 1048576"),
    (GENERATE, {"prompt": "x", "max_new_tokens": 1.5}, "max_new_tokens", "must be a whole number, not 1.5"),
    (GENERATE, {"prompt": "x", "max_new_tokens": "5"}, "max_new_tokens", "must be a whole number, not `5`"),
    (GENERATE, {"prompt": "x", "max_new_tokens": True}, "max_new_tokens", "must be a whole number, not true"),
    (GENERATE, {"prompt": "x", "temperature": -0.1}, "temperature", "temperature: -0.1; must be from 0 to 100"),
    (GENERATE, {"prompt": "x", "top_p": 7}, "top_p", "top_p: 7; must be above 0 to 1"),
    (GENERATE, {"prompt": "x", "top_k": -1}, "top_k", "top_k: -1; must be from 0"),
    (GENERATE, {"prompt": "x", "top_k": 10**30}, "top_k", "must be from 0 to 1000000"),
    (GENERATE, {"prompt": "x", "seed": 10**400}, "seed", "(401 characters); must be from -9223372036854775808"),
    (GENERATE, b'{"prompt": "x", "temperature": NaN}', "temperature", "temperature: nan, which is no JSON number"),
    (GENERATE, b'{"prompt": "x", "top_p": -Infinity}', "top_p", "top_p: -inf, which is no JSON number"),
    (GENERATE, b'{"prompt": "x", "top_p": 1e999}', "top_p", "top_p: inf, which is no JSON number"),
    (GENERATE, b'{"prompt": "x", "top_k": ' + b"9" * 5000 + b"}", None, "a number with too many digits"),
    (GENERATE, {"prompt": "x", "stop": ["a"] * 17}, "stop", "stop: 17 stop strings, limit 16"),
    (GENERATE, {"prompt": "x", "stop": ["a", ""]}, "stop[1]", "stop[1]: must not be empty"),
    (GENERATE, {"prompt": "x", "stop": [1]}, "stop[0]", "stop[0]: must be a string, not 1"),
    (GENERATE, {"prompt": "x", "stop": 1}, "stop", "stop: must be a string or a list, not 1"),
    (GENERATE, {"prompt": "x", "cache": "maybe"}, "cache", "cache: must be true or false or `bypass`, `refresh` or"),
    (
        GENERATE,
        {"prompt": "x", "model": "org/e\nvil"},
        "model",
        "model: `org/e\\nvil` has spaces or control characters",
    ),
    (GENERATE, {"prompt": "x", "model": 3}, "model", "model: must be a string, not 3"),
    (GENERATE, {"prompt": "x", "temprature": 1}, "temprature", "did you mean `temperature`?"),
    (GENERATE, {"prompt": "x", "nonsense": 1}, "nonsense", "nonsense: is no field of this request"),
    (GENERATE, b'{"prompt": "\\ud800"}', "prompt", "prompt: has half a surrogate pair"),
    (GENERATE, b'{"prompt": "x", "prompt": "y"}', "prompt", "prompt: is given twice"),
    (GENERATE, b'{"prompt": "x",}', None, "the body is not JSON: "),
    (GENERATE, b'{"prompt":\n  "x" "y"}', None, "at line 2, column 7"),
    (GENERATE, b"", None, "the body is empty"),
    (GENERATE, b"[1]", None, "the body must be a JSON object, not a list"),
    (GENERATE, b'{"prompt": "\xff"}', None, "the body is not UTF-8: byte 12 is wrong"),
    (GENERATE, b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "nested more than 64 deep"),
    (GENERATE, b'{"prompt": ' + b"[" * 90 + b"]" * 90 + b"}", "prompt" + "[0]" * 63, "nested more than 64 deep"),
    (BATCH, {"prompts": "x"}, "prompts", "prompts: must be a list, not `x`"),
    (CHAT, {}, "messages", "messages: is required"),
    (CHAT, {"messages": []}, "messages", "messages: must not be empty"),
    (CHAT, {"messages": SAID * 100_000}, "messages", "messages: 100000 messages, limit 4096"),
    (CHAT, {"messages": [*SAID, {"role": "robot", "content": "x"}]}, "messages[1].role", "`robot` is none of system"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "is required where there are no tool_calls"),
    (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role", "messages[0].role: is required"),
    (CHAT, {"messages": [{**SAID[0], "name": "Bob"}]}, "messages[0].name", "must be null, not `Bob`"),
    (CHAT, {"messages": ["x"]}, "messages[0]", "messages[0]: must be an object, not `x`"),
    (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].type", "must be `text`, not"),
    (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "must be a string or a list, not 3"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "must say which call"),
    (CHAT, {"messages": [{**SAID[0], "tool_calls": [CALLED]}]}, "messages[0].tool_calls", "only an assistant message"),
    (
        CHAT,
        {"messages": [{"role": "assistant", "tool_calls": [CALLED]}]},
        "messages[0].tool_calls[0].function.name",
        "`b b` must have 1 to 64 letters",
    ),
    (CHAT, chat(prompt="x"), "prompt", "prompt: is no field of this request"),
    (CHAT, chat(n=2), "n", "n: must be 1, not 2"),
    (CHAT, chat(max_completion_tokens=-5), "max_completion_tokens", "max_completion_tokens: -5; must be from 1"),
    (CHAT, chat(max_tokens=3, max_completion_tokens=4), "max_completion_tokens", "4, but max_tokens is 3"),
    (CHAT, chat(top_logprobs=3), "top_logprobs", "top_logprobs: needs `logprobs` to be true"),
    (CHAT, chat(logprobs=True, top_logprobs=21), "top_logprobs", "top_logprobs: 21; must be from 0 to 20"),
    (CHAT, chat(logprobs=1), "logprobs", "logprobs: must be true or false, not 1"),
    (CHAT, chat(stream_options={"include_usage": True}), "stream_options", "is possible with `stream` only"),
    (CHAT, chat(stream=True, stream_options={"x": 1}), "stream_options.x", "is no field of this request"),
    (CHAT, chat(functions=[]), "functions", "functions: must be null, not a list"),
    (CHAT, chat(audio={"voice": "x"}), "audio", "audio: must be null, not an object"),
    (CHAT, chat(modalities=["text", "audio"]), "modalities[1]", "must be `text`, not `audio`"),
    (CHAT, chat(response_format={"type": "grammar"}), "response_format", "`json_schema`, not `grammar`"),
    (CHAT, chat(response_format={"type": "json_schema"}), "response_format.json_schema", "is required"),
    (CHAT, chat(structured_outputs={}), "structured_outputs", "give exactly one of json, regex and choice"),
    (CHAT, chat(structured_outputs={"choice": [""]}), "structured_outputs.choice", "none of them empty"),
    (
        CHAT,
        chat(tools=[{"type": "function", "function": {"name": "a b"}}]),
        "tools[0].function.name",
        "`a b` must have",
    ),
    (
        CHAT,
        chat(tools=[{"type": "function", "function": {"name": "a", "strict": True}}]),
        "tools[0].function.strict",
        "must be false, not true",
    ),
    (CHAT, chat(tool_choice="required"), "tool_choice", "required, but there are no tools"),
    (CHAT, chat(tool_choice="sometimes"), "tool_choice", "must be `none`, `auto` or `required`"),
    (CHAT, chat(metadata={str(i): "x" for i in range(17)}), "metadata", "metadata: 17 labels, limit 16"),
    (CHAT, chat(metadata={"k": "x" * 300}), "metadata.k", "metadata.k: 300 characters, limit 256"),
    (CHAT, chat(user="a\nb"), "user", "user: `a\\nb` has control characters"),
    (CHAT, chat(logit_bias={"1": "x"}), "logit_bias.1", "logit_bias.1: must be a number, not `x`"),
    (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt", "prompt: 2 prompts; one at a time, or POST /v1/generate/batch"),
    (COMPLETIONS, {"prompt": [1, 2]}, "prompt[0]", "prompt[0]: must be a string, not 1"),
    (COMPLETIONS, {"prompt": "x", "echo": True}, "echo", "echo: must be false, not true"),
    (COMPLETIONS, {"prompt": "x", "suffix": "y"}, "suffix", "suffix: must be null, not `y`"),
    (COMPLETIONS, {"prompt": "x", "best_of": 2}, "best_of", "best_of: must be 1, not 2"),
    (COMPLETIONS, {"prompt": "x", "logprobs": 21}, "logprobs", "logprobs: 21; must be from 0 to 20"),
]


@pytest.mark.parametrize(("path", "body", "field", "says"), BAD, ids=[f"{bad[0]} {i}" for i, bad in enumerate(BAD)])
async def test_bad_input_is_named(
    rest: Rest, echo: EchoBackend, path: str, body: Any, field: str | None, says: str
) -> None:
    error = await rest.refused(path, body)
    assert says in error["message"]
    assert error["param"] == field
    assert error["code"] == "INVALID_ARGUMENT"
    assert len(error["message"]) < 2500
    assert not echo.calls


async def test_an_unknown_model_is_not_found_with_near_names(rest: Rest) -> None:
    for path, body in ((GENERATE, {"prompt": "x"}), (CHAT, chat()), (COMPLETIONS, {"prompt": "x", "stream": True})):
        status, told, _ = await rest.post(path, {**body, "model": "org/ecko"})
        assert status == 404
        assert told["error"]["code"] == "UNKNOWN_MODEL"
        assert "did you mean `org/echo`?" in told["error"]["message"]


@pytest.mark.parametrize("given", ["application/x-www-form-urlencoded", "text/plain", "application/xml", ""])
async def test_a_wrong_content_type_is_told_the_right_one(rest: Rest, given: str) -> None:
    """So a browser cannot be made to send one across origins either, for `application/json` needs its consent."""
    error = await rest.refused(GENERATE, b'{"prompt": "x"}', {"Content-Type": given})
    assert error["param"] == "Content-Type"
    assert "-H 'Content-Type: application/json'" in error["message"]


async def test_a_charset_other_than_utf_8_is_refused(rest: Rest) -> None:
    error = await rest.refused(GENERATE, b"{}", {"Content-Type": "application/json; charset=utf-16"})
    assert "charset utf-16" in error["message"]
    told = await rest.post(GENERATE, {"prompt": "x"}, {"Content-Type": "application/json; charset=UTF-8"})
    assert told[0] == 200


async def test_a_body_over_the_limit_is_refused_unread(rest: Rest) -> None:
    head = {"Content-Type": "application/json", "Content-Length": str(MAX_BODY_BYTES + 1)}
    async with rest.client.post(rest.url + GENERATE, data=_slowly(), headers=head) as answer:
        told = await answer.json()
        assert answer.status == 400
    assert told["error"]["message"] == f"the body has {MAX_BODY_BYTES + 1} bytes, limit {MAX_BODY_BYTES}"


async def _slowly() -> AsyncIterator[bytes]:
    yield b"{"


async def test_a_compressed_bomb_is_refused(rest: Rest) -> None:
    bomb = gzip.compress(b'{"prompt": "' + b" " * (MAX_BODY_BYTES + 1) + b'"}')
    error = await rest.refused(GENERATE, bomb, {"Content-Encoding": "gzip"})
    assert f"{MAX_BODY_BYTES} bytes" in error["message"]


async def test_a_body_that_is_not_compressed_as_it_says_is_refused(rest: Rest) -> None:
    error = await rest.refused(GENERATE, b'{"prompt": "x"}', {"Content-Encoding": "gzip"})
    assert "cannot be read" in error["message"]
    told = await rest.post(GENERATE, gzip.compress(b'{"prompt": "x"}'), {"Content-Encoding": "gzip"})
    assert told[0] == 200


@pytest.mark.parametrize(
    ("header", "value", "says"),
    [
        ("X-Polyroute-Timeout-Ms", "soon", "`soon` is no number of whole milliseconds"),
        ("X-Polyroute-Timeout-Ms", "0", "0; must be from 1 to 86400000"),
        ("X-Polyroute-Timeout-Ms", "1e3", "`1e3` is no number of whole milliseconds"),
        ("X-Polyroute-Timeout-Ms", "9" * 19, "must be from 1 to 86400000"),
        ("X-Polyroute-No-Fallback", "maybe", "`maybe` is neither true nor false"),
        ("X-Polyroute-Cache", "sometimes", "`sometimes` is none of bypass, refresh, only_if_cached"),
        ("X-Polyroute-Cache-Max-Age", "nan", "nan; must be 0 or more"),
        ("X-Polyroute-Cache-Max-Age", "inf", "inf; must be 0 or more"),
        ("X-Polyroute-User", "u" * 300, "300 characters, limit 256"),
        ("X-Polyroute-Variant", "b", "`org/echo` is a model and has no variants"),
    ],
)
async def test_a_bad_header_is_named(rest: Rest, header: str, value: str, says: str) -> None:
    error = await rest.refused(GENERATE, {"prompt": "x"}, {header: value})
    assert error["param"] == header
    assert says in error["message"]
