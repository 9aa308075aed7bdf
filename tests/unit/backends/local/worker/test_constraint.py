"""Constrained answers are what was asked for, whatever the model would rather say."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from typing import Any

import jsonschema
import pytest
import torch

from polyroute.backends.local.messages import Output, Rejected
from polyroute.backends.local.worker.constraint import Constraint, Constraints
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.prompts import Refused
from polyroute.backends.local.worker.sampling import Sampler, SamplingDefaults, choose
from polyroute.core.event import FinishReason
from polyroute.core.request import ResponseFormat, Sampling
from tests import tiny

TOKENIZERS = {"byte level": tiny.byte_level_tokenizer, "byte fallback": tiny.byte_fallback_tokenizer}
EOS = frozenset({1})
PADDED = 40  # rows of the output layer beyond the vocabulary

NESTED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["größe", "敏捷", 3, None]},
        "scores": {"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 40}, "maxItems": 4},
        "inner": {
            "type": "object",
            "properties": {"yes": {"type": "boolean"}, "share": {"type": "number", "minimum": 0, "maximum": 1}},
            "required": ["yes", "share"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "kind", "scores", "inner"],
    "additionalProperties": False,
}


@cache
def tokenizer(kind: str) -> Any:
    return TOKENIZERS[kind]()


@cache
def constraints(kind: str = "byte level") -> Constraints:
    return Constraints(tokenizer(kind), len(tokenizer(kind)) + PADDED, EOS)


@cache
def model(kind: str) -> Any:
    return tiny.build_model("llama", len(tokenizer(kind)) + PADDED, max_position_embeddings=2048)


@cache
def engine(kind: str = "byte level", *, eos: frozenset[int] = EOS, kv_cache_bytes: int | None = None) -> Engine:
    """One for all tests, since each drains what it submits."""
    vocabulary = Vocabulary(tokenizer(kind))
    options: dict[str, Any] = {"context_length": 2048, "max_sequences": 32, "max_batch_tokens": 64}
    options["kv_cache_bytes"] = kv_cache_bytes
    return Engine(copy.deepcopy(model(kind)), vocabulary, eos=eos, defaults=SamplingDefaults(), **options)


def schema(value: Any) -> ResponseFormat:
    return ResponseFormat("json_schema", json.dumps(value))


def drain(running: Engine) -> dict[int, tuple[str, Any]]:
    """Text and finish of each answer."""
    answers: dict[int, tuple[str, Any]] = {}
    while running.busy:
        for output in running.step():
            assert isinstance(output, Output), output
            text, _ = answers.get(output.id, ("", None))
            answers[output.id] = (text + output.text, output.finish)
    return answers


def answer(form: ResponseFormat, sampling: Sampling, kind: str = "byte level") -> tuple[str, Any]:
    running = engine(kind)
    running.submit(1, [5, 9, 30], sampling, constraint=constraints(kind).compile(form))
    return drain(running)[1]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=600, temperature=0),
        Sampling(max_tokens=600, temperature=1.0, seed=3, top_k=0),
        Sampling(max_tokens=600, temperature=2.0, seed=4, repetition_penalty=1.3, frequency_penalty=0.4),
        Sampling(max_tokens=600, temperature=1.5, seed=5, top_p=0.8, logprobs=3),
    ],
)
def test_an_answer_follows_its_schema(kind: str, sampling: Sampling) -> None:
    text, finish = answer(schema(NESTED), sampling, kind)
    assert finish.reason is FinishReason.STOP, text
    jsonschema.validate(json.loads(text), NESTED)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "string", "pattern": "^[a-cé]{2,5}$"},
        {"type": "string", "format": "date-time"},
        {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 10_000},
        {"anyOf": [{"type": "null"}, {"const": {"a": [1, "é"]}}]},
        {"type": "array", "prefixItems": [{"type": "boolean"}, {"enum": ["x"]}], "items": False, "minItems": 2},
        {
            "$ref": "#/$defs/tree",
            "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1}},
        },
        {"oneOf": [{"type": "integer", "maximum": 9, "minimum": 0}, {"type": "boolean"}]},
        {"type": "object", "patternProperties": {"^x[0-9]$": {"type": "null"}}, "additionalProperties": False},
    ],
)
def test_any_schema_that_is_taken_is_kept(kind: str, wanted: dict[str, Any]) -> None:
    running = engine(kind)
    for seed in range(6):
        asked = Sampling(max_tokens=300, temperature=1.5, seed=seed, top_k=0)
        running.submit(seed, [5, 9, 30], asked, constraint=constraints(kind).compile(schema(wanted)))
    answers = drain(running)
    assert any(finish.reason is FinishReason.STOP for _, finish in answers.values())
    for text, finish in answers.values():
        if finish.reason is FinishReason.STOP:
            jsonschema.validate(json.loads(text), wanted)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("pattern", [r"[a-c]{3}-\d{2}", r" (yes|no)!?", r"^é+x$", r"\w{2}/\"[^\n]\"", "敏?捷"])
def test_an_answer_matches_its_expression_as_a_whole(kind: str, pattern: str) -> None:
    for seed in range(3):
        text, finish = answer(
            ResponseFormat("regex", pattern), Sampling(max_tokens=200, temperature=1.0, seed=seed), kind
        )
        if finish.reason is FinishReason.STOP:
            assert re.fullmatch(pattern, text)
        else:
            assert finish.completion_tokens == 200
            assert "+" in pattern


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_an_answer_is_one_of_the_choices(kind: str) -> None:
    choices = ("yes", "no", " maybe", 'a "quoted"\n\\line', "敏捷 👍", "no, never")
    form = ResponseFormat("choice", choices)
    running = engine(kind)
    for seed in range(30):
        asked = Sampling(max_tokens=60, temperature=3.0, seed=seed, top_k=0)
        running.submit(seed, [5, 9, 30], asked, constraint=constraints(kind).compile(form))
    answers = drain(running)
    assert {finish.reason for _, finish in answers.values()} == {FinishReason.STOP}
    assert {text for text, _ in answers.values()} <= set(choices)
    assert len({text for text, _ in answers.values()}) >= 3


def test_constrained_and_free_answers_share_steps_and_are_as_they_are_alone() -> None:
    running, forms = engine(), (schema(NESTED), ResponseFormat("regex", "[ab]{20}"), None)
    wanted, asked_for = {}, {}
    for i in range(16):
        form, asked = forms[i % 3], Sampling(max_tokens=250, temperature=(i % 2) * 1.0, seed=i, presence_penalty=i % 4)
        running.submit(i, [5 + i, 9], asked, constraint=constraints().compile(form) if form else None)
        wanted |= drain(running)
        asked_for[i] = (form, asked)
    for i, (form, asked) in asked_for.items():
        running.submit(i, [5 + i, 9], asked, constraint=constraints().compile(form) if form else None)
    for i, (text, finish) in drain(running).items():
        assert (text, finish.reason) == (wanted[i][0], wanted[i][1].reason)
    assert {wanted[i][1].reason for i in (1, 4, 7)} == {FinishReason.STOP}


def test_a_preemption_does_not_touch_the_constraint() -> None:
    prompts = [[3 + (7 * i + j) % 400 for j in range(240)] for i in range(3)]
    asked = [Sampling(max_tokens=300, temperature=1.0, seed=seed, presence_penalty=0.5) for seed in (7, 8, 9)]
    wanted = {}
    for i in range(3):
        engine().submit(i, prompts[i], asked[i], constraint=constraints().compile(schema(NESTED)))
        wanted |= drain(engine())
    cramped = engine(kv_cache_bytes=600_000)
    for i in range(3):
        cramped.submit(i, prompts[i], asked[i], constraint=constraints().compile(schema(NESTED)))
    got = drain(cramped)
    assert cramped.preemptions > 0
    assert {i: text for i, (text, _) in got.items()} == {i: text for i, (text, _) in wanted.items()}


def test_max_tokens_cut_a_constrained_answer_like_any_other() -> None:
    whole, _ = answer(schema(NESTED), Sampling(max_tokens=400, temperature=1.0, seed=1))
    text, finish = answer(schema(NESTED), Sampling(max_tokens=9, temperature=1.0, seed=1))
    assert finish.reason is FinishReason.LENGTH
    assert finish.completion_tokens == 9
    assert text
    assert whole.startswith(text)


def test_log_probabilities_are_those_of_the_raw_logits() -> None:
    logits = torch.randn((1, len(tokenizer("byte level")) + PADDED), generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    form = ResponseFormat("choice", ("yes",))
    sampler = Sampler(Sampling(temperature=0), SamplingDefaults(), [3], constraints().compile(form))
    choose(logits, [sampler])
    assert torch.equal(logits, before)


def test_a_model_without_an_end_token_ends_where_nothing_may_follow() -> None:
    made = Constraints(tokenizer("byte level"), len(tokenizer("byte level")), frozenset())
    running = engine(eos=frozenset())
    running.submit(
        1, [5, 9], Sampling(max_tokens=50, temperature=0), constraint=made.compile(ResponseFormat("regex", "a{4}"))
    )
    running.submit(
        2, [5, 9], Sampling(max_tokens=50, temperature=0), constraint=made.compile(ResponseFormat("regex", "a*"))
    )
    answers = drain(running)
    assert (answers[1][0], answers[1][1].reason) == ("aaaa", FinishReason.STOP)
    assert answers[2][1].reason is FinishReason.LENGTH
    assert set(answers[2][0]) == {"a"}


def test_only_what_may_come_next_is_allowed_and_an_end_only_at_the_end() -> None:
    constraint = constraints().compile(ResponseFormat("choice", ("no",)))
    spelt = Vocabulary(tokenizer("byte level")).token_bytes
    allowed = bits(constraint)
    assert {spelt(token) for token in allowed} == {b"n", b"no"} & {
        spelt(t) for t in range(2, len(tokenizer("byte level")))
    }
    assert not constraint.complete
    for token in tokenizer("byte level")("no", add_special_tokens=False)["input_ids"]:
        constraint.take(token)
    assert constraint.complete
    assert bits(constraint) == sorted(EOS)


def test_a_constraint_that_fails_ends_its_answer_alone() -> None:
    running = engine()
    broken = constraints().compile(ResponseFormat("regex", "a{50}"))
    broken.take(tokenizer("byte level")("zebra", add_special_tokens=False)["input_ids"][0])
    assert broken.failure
    running.submit(1, [5, 9], Sampling(max_tokens=5, temperature=0), constraint=broken)
    running.submit(2, [5, 9], Sampling(max_tokens=5, temperature=1.0, seed=2))
    outputs = []
    while running.busy:
        outputs += running.step()
    rejected = [output for output in outputs if isinstance(output, Rejected)]
    assert [(r.id, r.kind) for r in rejected] == [(1, "failed")]
    assert sum(output.id == 2 and output.finish is not None for output in outputs if isinstance(output, Output)) == 1


@pytest.mark.parametrize(
    ("form", "field", "said"),
    [
        (schema({"type": "array", "uniqueItems": True}), "response_format.json_schema", "uniqueItems"),
        (schema({"not": {}, "contains": {}}), "response_format.json_schema", "not"),
        (schema({"x-guidance": {"lenient": True}, "not": {}}), "response_format.json_schema", "not"),
        (schema({"type": "strin"}), "response_format.json_schema", "strin"),
        (schema({"$ref": "#/nowhere"}), "response_format.json_schema", "/nowhere"),
        (schema({"type": "string", "format": "weather"}), "response_format.json_schema", "weather"),
        (schema({"type": "string", "pattern": "(?=x)y"}), "response_format.json_schema", "look-around"),
        (schema({"oneOf": [{"type": "string"}, {"maxLength": 3}]}), "response_format.json_schema", "oneOf"),
        (ResponseFormat("json_schema", "{"), "response_format.json_schema", "cannot be read"),
        (ResponseFormat("regex", "[a-"), "response_format.regex", "unclosed character class"),
        (ResponseFormat("regex", r"(a)\1"), "response_format.regex", "backreferences"),
        (ResponseFormat("regex", r"a\bc"), "response_format.regex", "lookarounds not supported"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(form: ResponseFormat, field: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        constraints().compile(form)
    assert (refused.value.kind, refused.value.field) == ("invalid", field)
    assert said in refused.value.message
    assert "\n" not in refused.value.message


def test_a_tokenizer_that_cannot_be_read_is_said_so() -> None:
    pieces = tiny.word_piece_tokenizer()
    with pytest.raises(Refused) as refused:
        Constraints(pieces, len(pieces), EOS).compile(ResponseFormat("regex", "a"))
    assert (refused.value.kind, refused.value.field) == ("unsupported", "response_format")


def bits(constraint: Constraint) -> list[int]:
    words = constraint.allowed().view("uint8")
    return [8 * i + bit for i, byte in enumerate(words) for bit in range(8) if byte >> bit & 1]
