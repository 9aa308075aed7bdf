"""The engine's answers are those of transformers' `generate`, however they are scheduled."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from polyroute.backends.local.messages import Finish, Output, Rejected
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.sampling import SamplingDefaults
from polyroute.core.event import FinishReason, TokenLogprob
from polyroute.core.request import Sampling
from tests import tiny

CONTEXT = 512
LENGTHS = (5, 17, 40, 61, 33, 90)
GREEDY = Sampling(max_tokens=40, temperature=0)


@dataclass
class Answer:
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None
    rejected: Rejected | None = None
    deltas: list[str] = field(default_factory=list)


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary(tiny.byte_level_tokenizer())


@cache
def model(kind: str) -> Any:
    return tiny.build_model(kind, len(vocabulary().tokenizer))


def engine(kind: str = "llama", **options: Any) -> Engine:
    defaults = options.pop("defaults", SamplingDefaults())
    options = {"context_length": CONTEXT, "eos": frozenset(), "max_batch_tokens": 24, "max_sequences": 4} | options
    return Engine(copy.deepcopy(options.pop("model", None) or model(kind)), vocabulary(), defaults=defaults, **options)


def prompts() -> list[list[int]]:
    chance = random.Random(0)
    return [[chance.randrange(2, 680) for _ in range(length)] for length in LENGTHS]


def drain(running: Engine, answers: dict[int, Answer] | None = None) -> dict[int, Answer]:
    answers = {} if answers is None else answers
    while running.busy:
        step(running, answers)
    return answers


def step(running: Engine, answers: dict[int, Answer]) -> None:
    for output in running.step():
        answer = answers.setdefault(output.id, Answer())
        if isinstance(output, Rejected):
            answer.rejected = output
        else:
            add(answer, output)


def add(answer: Answer, output: Output) -> None:
    assert answer.finish is None
    answer.text += output.text
    answer.deltas.append(output.text)
    answer.logprobs += output.logprobs
    answer.finish = output.finish


def answer_to(prompt: list[int], sampling: Sampling, stop: tuple[str, ...] = (), **options: Any) -> Answer:
    running = engine(**options)
    running.submit(1, prompt, sampling, stop)
    return drain(running)[1]


def generated(of: Any, prompt: list[int], **options: Any) -> list[int]:
    ids = torch.tensor([prompt])
    whole = of.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=1, **options)[0].tolist()
    return list(whole[len(prompt) :])


def spelt(tokens: list[int]) -> str:
    return str(vocabulary().tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def token_bytes(answer: Answer) -> bytes:
    return b"".join(entry.token_bytes for entry in answer.logprobs)


@pytest.mark.parametrize("kind", tiny.SHAPES)
def test_greedy_tokens_equal_generate_with_staggered_joins_and_chunked_prompts(kind: str) -> None:
    wanted = [
        generated(model(kind), prompt, max_new_tokens=40, min_new_tokens=40, do_sample=False, eos_token_id=None)
        for prompt in prompts()
    ]
    assert len({token for tokens in wanted for token in tokens}) > 20  # else equality would prove little
    running, answers = engine(kind), dict[int, Answer]()
    asked = Sampling(max_tokens=40, temperature=0, logprobs=0)
    for i, prompt in enumerate(prompts()):
        running.submit(i, prompt, asked)
        for _ in range(3):
            step(running, answers)
    drain(running, answers)
    for i, tokens in enumerate(wanted):
        assert token_bytes(answers[i]) == b"".join(vocabulary().token_bytes(token) for token in tokens)
        assert answers[i].text == spelt(tokens)
        assert answers[i].finish == Finish(FinishReason.LENGTH, LENGTHS[i], 40)


def test_equality_is_not_blind_to_the_attention_window() -> None:
    """A fault that the equality test must notice: Mistral without its window answers differently."""
    blind = tiny.build_model("mistral", len(vocabulary().tokenizer), sliding_window=None)
    prompt = prompts()[3]
    assert answer_to(prompt, GREEDY, model=blind).text != answer_to(prompt, GREEDY, kind="mistral").text


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.5, "top_k": 0},
        {"temperature": 1.5, "top_k": 0, "top_p": 0.95},
        {"temperature": 1.5, "top_k": 0, "min_p": 0.05},
        {"temperature": 0.9, "repetition_penalty": 1.4, "frequency_penalty": 0.3},
    ],
)
def test_a_seed_gives_the_same_text_alone_and_beside_31_others(kind: str, sampling: dict[str, Any]) -> None:
    prompt = prompts()[1]
    asked = Sampling(**sampling, max_tokens=24, seed=1234)
    alone = answer_to(prompt, asked, kind=kind)
    running = engine(kind, max_sequences=32)
    for i in range(31):
        other = {"seed": i, "temperature": float(i % 3), "top_k": (0, 5, 400)[i % 3], "presence_penalty": i % 2}
        running.submit(i, prompts()[i % 6], Sampling(**other, max_tokens=10 + i))
    running.submit(99, prompt, asked)
    beside = drain(running)[99]
    assert beside.text == alone.text
    assert beside.finish is not None
    assert alone.finish == replace(beside.finish, cached_prompt_tokens=0)
    assert alone.finish.seed == 1234
    assert alone.text != answer_to(prompt, Sampling(**sampling, max_tokens=24, seed=1235), kind=kind).text


def test_greedy_with_a_repetition_penalty_equals_generate() -> None:
    prompt = prompts()[2]
    options = {"max_new_tokens": 40, "do_sample": False, "eos_token_id": None, "repetition_penalty": 1.8}
    wanted = generated(model("llama"), prompt, **options)
    assert answer_to(prompt, Sampling(max_tokens=40, repetition_penalty=1.8)).text == spelt(wanted)


def test_unset_sampling_follows_the_models_own_configuration() -> None:
    prompt = prompts()[0]
    defaults = SamplingDefaults(sample=True, temperature=0.6, top_p=0.9, max_new_tokens=12)
    first = answer_to(prompt, Sampling(seed=5), defaults=defaults)
    asked = Sampling(seed=5, temperature=0.6, top_p=0.9, max_tokens=12)
    assert first.text == answer_to(prompt, asked).text
    assert first.finish == Finish(FinishReason.LENGTH, 5, 12, seed=5)


def test_an_unseeded_answer_tells_the_seed_that_gives_it_again() -> None:
    prompt = prompts()[0]
    first = answer_to(prompt, Sampling(max_tokens=20, temperature=1.0))
    assert first.finish is not None
    assert first.finish.seed is not None
    again = answer_to(prompt, Sampling(max_tokens=20, temperature=1.0, seed=first.finish.seed))
    assert again.text == first.text


def test_penalties_count_generated_tokens_only() -> None:
    prompt = prompts()[2]
    asked = Sampling(max_tokens=60, temperature=0, presence_penalty=2.0, frequency_penalty=2.0, logprobs=0)
    plain = Sampling(max_tokens=60, temperature=0, logprobs=0)
    weak = tiny.build_model("llama", len(vocabulary().tokenizer), scale=1.0)
    penalised, free = answer_to(prompt, asked, model=weak), answer_to(prompt, plain, model=weak)
    assert penalised.logprobs[0] == free.logprobs[0]
    repeats = [len(a.logprobs) - len({entry.token_bytes for entry in a.logprobs}) for a in (penalised, free)]
    assert repeats[0] < repeats[1]


def test_logprobs_are_those_of_the_raw_logits() -> None:
    prompt = prompts()[1]
    answer = answer_to(prompt, Sampling(max_tokens=5, temperature=0.3, seed=1, top_k=3, logprobs=4))
    with torch.no_grad():
        logs = model("llama")(torch.tensor([prompt])).logits[0, -1].float().log_softmax(-1)
    first = answer.logprobs[0]
    assert [top.logprob for top in first.top] == pytest.approx(logs.topk(4).values.tolist(), abs=1e-4)
    assert first.logprob in [pytest.approx(top.logprob) for top in first.top]
    assert len(answer.logprobs) == 5
    assert all(top.token_bytes for entry in answer.logprobs for top in entry.top)


def test_an_end_token_ends_the_answer_and_is_not_shown() -> None:
    prompt = prompts()[1]
    tokens = generated(model("llama"), prompt, max_new_tokens=40, do_sample=False, eos_token_id=None)
    end = tokens[10]
    answer = answer_to(prompt, GREEDY, eos=frozenset({end}))
    before = tokens[: tokens.index(end)]
    assert answer.text == spelt(before)
    assert answer.finish == Finish(FinishReason.STOP, len(prompt), len(before) + 1)


def test_a_stop_string_ends_the_answer_before_it_with_logprobs_cut_alike() -> None:
    prompt = prompts()[1]
    whole = answer_to(prompt, Sampling(max_tokens=40, temperature=0, logprobs=0))
    stop = whole.text[20:28]
    cut = whole.text.index(stop)
    answer = answer_to(prompt, Sampling(max_tokens=40, temperature=0, logprobs=0), (stop, "never there"))
    assert answer.text == whole.text[:cut]
    assert answer.finish is not None
    assert (answer.finish.reason, answer.finish.matched_stop) == (FinishReason.STOP_SEQUENCE, stop)
    assert answer.logprobs == whole.logprobs[: len(answer.logprobs)]
    assert len(token_bytes(answer)) < len(token_bytes(whole))
    for shown in range(len(answer.deltas)):
        assert whole.text[:cut].startswith("".join(answer.deltas[:shown]))


def test_the_context_bounds_the_answer() -> None:
    prompt = prompts()[1]
    answer = answer_to(prompt, Sampling(temperature=0), context_length=30)
    assert answer.finish == Finish(FinishReason.LENGTH, 17, 13)
    assert answer_to(prompt, GREEDY, context_length=18).finish == Finish(FinishReason.LENGTH, 17, 1)


def test_a_cancelled_answer_takes_no_part_in_the_next_step() -> None:
    running, answers = engine(max_sequences=2), dict[int, Answer]()
    for i in range(3):
        running.submit(i, prompts()[0], GREEDY)
    for _ in range(5):
        step(running, answers)
    assert running.cancel(0) == 5
    assert running.cancel(2) == 0
    assert running.cancel(7) is None
    before = answers[0].text
    step(running, answers)
    drain(running, answers)
    assert answers[0].text == before
    assert answers[0].finish is None
    assert 2 not in answers
    assert answers[1].finish is not None


def test_a_long_prompt_holds_up_the_others_by_no_step() -> None:
    running, answers = engine(max_batch_tokens=16), dict[int, Answer]()
    running.submit(1, prompts()[0], GREEDY)
    step(running, answers)
    running.submit(2, prompts()[5] * 3, GREEDY)
    for count in range(2, 12):
        step(running, answers)
        assert len(answers[1].deltas) == count
        assert 2 not in answers


def test_more_answers_than_places_are_taken_in_order() -> None:
    running, answers = engine(max_sequences=1), dict[int, Answer]()
    for i in range(3):
        running.submit(i, prompts()[0], Sampling(max_tokens=3, temperature=0))
    drain(running, answers)
    assert list(answers) == [0, 1, 2]
    assert len({answer.text for answer in answers.values()}) == 1


def test_an_answer_that_fails_ends_alone() -> None:
    running = engine()
    running.submit(1, [10**6], GREEDY)  # no such token
    running.submit(2, prompts()[0], GREEDY)
    answers = drain(running)
    assert answers[1].rejected is not None
    assert answers[1].rejected.kind == "failed"
    assert answers[2].finish is not None


@pytest.mark.parametrize(
    "absurd",
    [
        Sampling(max_tokens=12, temperature=1e-40, seed=1),
        Sampling(max_tokens=12, temperature=5e-324, seed=1),
        Sampling(max_tokens=12, temperature=1e-40, seed=1, repetition_penalty=1e-40),
        Sampling(max_tokens=12, temperature=1.0, seed=1, repetition_penalty=5e-324),
    ],
)
def test_numbers_beyond_float32_still_choose_a_token(absurd: Sampling) -> None:
    answer = answer_to(prompts()[0], absurd)
    assert answer.rejected is None
    if absurd.repetition_penalty is None:
        assert answer.text == answer_to(prompts()[0], Sampling(max_tokens=12, temperature=0)).text
