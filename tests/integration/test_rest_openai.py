"""OpenAI's endpoints, called by OpenAI's own SDK and by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.event import Finished, FinishReason, Route, Started, Token, TokenLogprob, TopLogprob, Usage
from polyroute.core.request import Message, ResponseFormat, Tool, ToolCall
from tests.integration.rest_serving import Rest, rest_over
from tests.integration.speaking import SpeakingBackend

ASKED: Any = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def echo() -> EchoBackend:
    return EchoBackend("org/echo", version="v7")


@pytest.fixture
def speaking() -> SpeakingBackend:
    return SpeakingBackend("speaks")


@pytest.fixture
async def rest(echo: EchoBackend, speaking: SpeakingBackend) -> AsyncIterator[Rest]:
    async with rest_over(echo, speaking) as running:
        yield running


@pytest.fixture
async def client(rest: Rest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{rest.url}/v1", api_key="any", max_retries=0, timeout=60) as made:
        yield made


async def test_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="org/echo", messages=ASKED, max_tokens=2)
    assert answer.choices[0].message.content == "one two "
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.model == "org/echo"
    assert answer.system_fingerprint == "v7"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5
    assert answer.id.startswith("chatcmpl-")


async def test_chat_streamed(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="org/echo", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-2:] == [None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


async def test_completions_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="org/echo", prompt=["one two"])
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one two", "stop")
    assert answer.usage is not None
    stream = await client.completions.create(model="org/echo", prompt="one two", stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks) == "one two"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(c.usage is None for c in chunks)


async def test_the_sync_sdk(rest: Rest) -> None:
    def ask() -> tuple[list[str], str, str | None]:
        with openai.OpenAI(base_url=f"{rest.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
            names = [model.id for model in client.models.list()]
            one = client.models.retrieve("org/echo").id
            with client.chat.completions.create(model="org/echo", messages=ASKED, stream=True) as stream:
                text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
            return names, one, text

    assert await asyncio.to_thread(ask) == (["org/echo", "speaks"], "org/echo", "one two three")


async def test_errors_are_the_sdks_own_classes(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="org/ecko", messages=ASKED)
    assert unknown.value.code == "UNKNOWN_MODEL"
    assert unknown.value.type == "not_found_error"
    assert "did you mean `org/echo`" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="org/echo", messages=ASKED, temperature=-1)
    assert bad.value.param == "temperature"
    assert bad.value.request_id


async def test_a_stop_string_is_told_beside_the_reason(rest: Rest, echo: EchoBackend) -> None:
    echo.script = Script(texts=["a"], reason=FinishReason.STOP_SEQUENCE, matched_stop="\n\n")
    _, told, _ = await rest.post("/v1/chat/completions", {"messages": ASKED, "stop": ["\n\n"]})
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["choices"][0]["stop_reason"] == "\n\n"
    events = await rest.events("/v1/completions", {"prompt": "x", "stop": "\n\n", "stream": True})
    assert events[-1] == ("", "[DONE]")
    assert events[-2][1]["choices"][0]["stop_reason"] == "\n\n"


CALLS = (ToolCall("call_1", "weather", '{"city": '), ToolCall("", "", '"Oslo"}'), ToolCall("call_2", "time", "{}", 1))


async def test_tools_go_in_and_calls_come_out(
    client: openai.AsyncOpenAI, speaking: SpeakingBackend, rest: Rest
) -> None:
    speaking.events = [
        Started(Route(model="speaks")),
        *(Token(tool_calls=(call,)) for call in CALLS),
        Finished(FinishReason.TOOL_CALLS, Usage(3, 4)),
    ]
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools: Any = [
        {"type": "function", "function": {"name": "weather", "description": "Says it", "parameters": schema}},
        {"type": "function", "function": {"name": "time"}},
    ]
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    answer = await client.chat.completions.create(model="speaks", messages=ASKED, tools=tools, tool_choice=choice)
    called = answer.choices[0].message.tool_calls
    assert called is not None
    assert [(c.id, c.function.name, c.function.arguments) for c in called if c.type == "function"] == [
        ("call_1", "weather", '{"city": "Oslo"}'),
        ("call_2", "time", "{}"),
    ]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    asked = speaking.calls[0].request
    assert asked.tools == (Tool("weather", "Says it", schema), Tool("time"))
    assert asked.tool_choice == "weather"

    events = await rest.events("/v1/chat/completions", {"model": "speaks", "messages": ASKED, "stream": True})
    parts = [p for _, e in events[:-1] for c in e["choices"] for p in c["delta"].get("tool_calls", [])]
    assert parts == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Oslo"}'}},
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]

    again: Any = [*ASKED, answer.choices[0].message, {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    await client.chat.completions.create(model="speaks", messages=again)
    told = speaking.calls[-1].request.messages or ()
    assert told[1].tool_calls == (
        ToolCall("call_1", "weather", '{"city": "Oslo"}'),
        ToolCall("call_2", "time", "{}", 1),
    )
    assert told[2] == Message("tool", "rain", tool_call_id="call_1")


async def test_log_probabilities_in_both_styles(rest: Rest, speaking: SpeakingBackend) -> None:
    top = (TopLogprob("He", b"He", -0.1), TopLogprob("\ufffd", b"\xc3", -2.0))
    first = TokenLogprob("He", b"He", -0.1, top)
    second = TokenLogprob("y", b"y", -0.5)
    speaking.events = [
        Started(Route(model="speaks")),
        Token("He", logprobs=(first,)),
        Token("y", logprobs=(second,)),
        Finished(FinishReason.STOP),
    ]
    chat = {"model": "speaks", "messages": ASKED, "logprobs": True, "top_logprobs": 2}
    _, told, _ = await rest.post("/v1/chat/completions", chat)
    content = told["choices"][0]["logprobs"]["content"]
    assert content[0] == {
        "token": "He",
        "logprob": -0.1,
        "bytes": [72, 101],
        "top_logprobs": [
            {"token": "He", "logprob": -0.1, "bytes": [72, 101]},
            {"token": "\ufffd", "logprob": -2.0, "bytes": [195]},
        ],
    }
    assert speaking.calls[0].request.sampling.logprobs == 2
    events = await rest.events("/v1/chat/completions", {**chat, "stream": True})
    streamed = [c["logprobs"]["content"] for _, e in events[:-1] for c in e["choices"] if c["logprobs"]]
    assert [one for part in streamed for one in part] == content

    completion = {"model": "speaks", "prompt": "x", "logprobs": 2}
    _, told, _ = await rest.post("/v1/completions", completion)
    assert told["choices"][0]["logprobs"] == {
        "tokens": ["He", "y"],
        "token_logprobs": [-0.1, -0.5],
        "top_logprobs": [{"He": -0.1, "\ufffd": -2.0}, {}],
        "text_offset": [0, 2],
    }
    events = await rest.events("/v1/completions", {**completion, "stream": True})
    offsets = [c["logprobs"]["text_offset"] for _, e in events[:-1] for c in e["choices"] if c["logprobs"]]
    assert offsets == [[0], [2]]


async def test_messages_are_read_in_every_shape(rest: Rest, echo: EchoBackend) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "yes", "refusal": None, "annotations": [], "tool_calls": None, "audio": None},
        {"role": "user", "content": "go on", "name": None},
    ]
    status, told, _ = await rest.post("/v1/chat/completions", {"messages": messages})
    assert status == 200, told
    assert echo.calls[0].request.messages == (
        Message("system", "Be brief."),
        Message("user", "one two"),
        Message("assistant", "yes"),
        Message("user", "go on"),
    )


SCHEMA = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}}
SCHEMA_TEXT = '{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}}'


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, ResponseFormat("json_schema", '{"type":"object"}')),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": SCHEMA},
                }
            },
            ResponseFormat("json_schema", SCHEMA_TEXT),
        ),
        ({"structured_outputs": {"regex": "a+"}}, ResponseFormat("regex", "a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, ResponseFormat("choice", ("a", "b"))),
        ({"structured_outputs": {"json": SCHEMA}}, ResponseFormat("json_schema", SCHEMA_TEXT)),
    ],
)
async def test_constraints(rest: Rest, echo: EchoBackend, body: dict[str, Any], wanted: ResponseFormat | None) -> None:
    status, told, _ = await rest.post("/v1/chat/completions", {"messages": ASKED, **body})
    assert status == 200, told
    assert echo.calls[0].request.response_format == wanted


async def test_what_only_a_peer_can_honour_is_passed_on(rest: Rest, echo: EchoBackend) -> None:
    passed = {
        "logit_bias": {"50256": -100},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "verbosity": "low",
        "chat_template_kwargs": {"enable_thinking": False},
    }
    status, told, _ = await rest.post("/v1/chat/completions", {"messages": ASKED, **passed})
    assert status == 200, told
    assert echo.calls[0].request.extra == passed


async def test_what_concerns_openai_alone_is_without_effect(rest: Rest, echo: EchoBackend) -> None:
    body = {
        "messages": ASKED, "store": True, "service_tier": "auto", "parallel_tool_calls": True, "n": 1, "logit_bias": {},
        "modalities": ["text"], "audio": None, "functions": None, "prompt_cache_retention": "24h", "stream": False,
    }  # fmt: skip
    status, told, _ = await rest.post("/v1/chat/completions", body)
    assert status == 200, told
    assert not echo.calls[0].request.extra


async def test_user_metadata_and_cache_key_are_mapped(rest: Rest, echo: EchoBackend) -> None:
    body = {"messages": ASKED, "user": "u1", "metadata": {"team": "a"}, "prompt_cache_key": "k"}
    await rest.post("/v1/chat/completions", body)
    asked = echo.calls[0].request
    assert (asked.routing.user, asked.routing.affinity_key, asked.labels) == ("u1", "k", {"team": "a"})
    await rest.post("/v1/completions", {"prompt": "x", "safety_identifier": "u2"})
    assert echo.calls[1].request.routing.user == "u2"
