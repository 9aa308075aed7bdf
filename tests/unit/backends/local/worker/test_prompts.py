"""Inputs become the tokens that the model was trained to see, or a refusal that names the field."""

from __future__ import annotations

import pytest

from polyroute.backends.local.messages import Input, ToolSpec
from polyroute.backends.local.worker.prompts import PromptReader, Refused
from polyroute.core.request import Message, ToolCall
from tests import tiny

WITH_TOOLS = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments.x }}){% endfor %}"
    "{{ m.tool_call_id or '' }};{% endfor %}"
)
TALK = (Message("user", "hi"),)
TOOL = ToolSpec("look", "", {"type": "object"})


def reader(template: str | None = tiny.CHAT_TEMPLATE, context: int = 64) -> PromptReader:
    return PromptReader(tiny.byte_level_tokenizer(chat_template=template), context)


def rendered(of: PromptReader, source: Input) -> str:
    return str(of._tokenizer.decode(of.read(source)))


def test_a_conversation_is_rendered_with_its_special_tokens() -> None:
    tokens = reader().read(Input(messages=TALK))
    assert tokens[0] == 0
    assert rendered(reader(), Input(messages=TALK)) == "<s>user\nhi</s>\n<s>assistant\n"


def test_tools_and_tool_calls_reach_a_template_that_knows_them() -> None:
    talk = (
        Message("user", "where?"),
        Message("assistant", "", (ToolCall("c1", "look", '{"x": 7}'),)),
        Message("tool", "here", tool_call_id="c1"),
    )
    text = rendered(reader(WITH_TOOLS), Input(messages=talk, tools=(TOOL,)))
    assert text == "[look]user:where?;assistant:look(7);tool:herec1;"


@pytest.mark.parametrize("arguments", ["{", "[" * 100_000, '{"a":' * 100_000])
def test_arguments_that_cannot_be_read_are_passed_on_as_text(arguments: str) -> None:
    template = "{% for c in messages[0].tool_calls %}{{ c.function.arguments }}{% endfor %}"
    talk = (Message("assistant", "", (ToolCall("c1", "look", arguments),)),)
    assert rendered(reader(template, context=0), Input(messages=talk)) == arguments


def test_a_template_that_goes_too_deep_refuses() -> None:
    endless = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"
    with pytest.raises(Refused, match="chat template refuses them"):
        reader(endless).read(Input(messages=TALK))


@pytest.mark.parametrize(
    ("template", "source", "kind", "field"),
    [
        (None, Input(messages=TALK), "unsupported", "messages"),
        (tiny.CHAT_TEMPLATE, Input(messages=TALK, tools=(TOOL,)), "unsupported", "tools"),
        (tiny.CHAT_TEMPLATE, Input(messages=(Message("tool", "x"),)), "invalid", "messages"),
        (tiny.CHAT_TEMPLATE, Input(prompt="word " * 200), "too_long", "prompt"),
        (tiny.CHAT_TEMPLATE, Input(messages=(Message("user", "word " * 200),)), "too_long", "messages"),
        ("", Input(prompt="\N{GRINNING FACE}" * 200), "too_long", "prompt"),
    ],
)
def test_refusals_name_the_field(template: str | None, source: Input, kind: str, field: str) -> None:
    with pytest.raises(Refused) as caught:
        reader(template).read(source)
    assert (caught.value.kind, caught.value.field) == (kind, field)


def test_the_context_must_have_room_for_one_token_more() -> None:
    tokens = reader(context=0).read(Input(prompt="a few words"))
    assert reader(context=len(tokens) + 1).read(Input(prompt="a few words")) == tokens
    with pytest.raises(Refused, match=f"{len(tokens)} tokens, but the model's context holds {len(tokens)}"):
        reader(context=len(tokens)).read(Input(prompt="a few words"))


def test_a_prompt_without_tokens_starts_from_the_beginning_of_text() -> None:
    assert reader().read(Input(prompt="")) == [0]


def test_a_prompt_without_tokens_and_a_model_without_a_beginning_is_refused() -> None:
    lacking = reader()
    lacking._tokenizer.bos_token = None
    with pytest.raises(Refused, match="no tokens"):
        lacking.read(Input(prompt=""))


def test_what_a_template_says_is_marked_as_not_ours() -> None:
    with pytest.raises(Refused) as caught:
        reader("{{ raise_exception('not ' ~ messages[0].content) }}").read(Input(messages=TALK))
    assert caught.value.message.endswith(": not hi")
    assert caught.value.quoted == "not hi"
