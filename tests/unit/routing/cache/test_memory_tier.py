"""Memory holds the answers used last within its bytes, and gives only what a key may have."""

from __future__ import annotations

import random
from collections.abc import Callable

from polyroute.core.event import Finished, FinishReason, Token, TokenLogprob, TopLogprob
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.memory_tier import MemoryTier, footprint
from polyroute.routing.cache.terms import AnswerKey, Moment
from tests.clock import Clock

MIB = 1024 * 1024


def key_of(text: str, generation: int = 1) -> AnswerKey:
    return AnswerKey.of(text.encode(), Moment(generation))


def answer_to(key: AnswerKey, model: str = "m") -> StoredAnswer:
    return StoredAnswer(key.canonical, model, "v", (Token("a"),), Finished(FinishReason.STOP), 0.0, 0.0)


def full_of(memory: MemoryTier, *texts: str, size: int = 1000) -> None:
    for text in texts:
        key = key_of(text)
        assert memory.put(key, answer_to(key), size, None)


def kept(memory: MemoryTier, *texts: str) -> list[str]:
    return [text for text in texts if memory.get(key_of(text)) is not None]


def test_the_least_recently_used_leave_first() -> None:
    memory = MemoryTier(10_000)
    full_of(memory, *"abcdefghij")
    assert kept(memory, "a") == ["a"]
    full_of(memory, "k")
    assert kept(memory, *"abcdefghijk") == list("acdefghijk")
    assert memory.bytes == 10_000


def test_what_it_counts_is_what_it_holds() -> None:
    memory, rng, holds = MemoryTier(20_000), random.Random(1), {}
    for _ in range(3000):
        key, model = key_of(str(rng.randrange(40))), rng.choice("mn")
        size = rng.randrange(1, 8000)
        if rng.random() < 0.2:
            memory.forget(key.digest)
        elif memory.put(key, answer_to(key, model), size, rng.choice([None, 5.0, 0.0])):
            holds[key.digest] = size
        assert memory.bytes <= memory.max_bytes
        assert memory.bytes == sum(size for _, size in memory.by_model.values())
        assert len(memory) == sum(entries for entries, _ in memory.by_model.values())
    memory.resize(1)
    assert (memory.bytes, len(memory), memory.by_model) == (0, 0, {})


def test_an_answer_too_large_for_it_pushes_nobody_out() -> None:
    memory = MemoryTier(10_000)
    full_of(memory, "a")
    key = key_of("large")
    assert not memory.put(key, answer_to(key), 2501, None)
    assert kept(memory, "a", "large") == ["a"]


def test_it_gives_nothing_expired_and_nothing_of_another_request_or_generation() -> None:
    clock = Clock(100.0)
    memory = MemoryTier(MIB, clock=clock)
    key = key_of("a")
    memory.put(key, answer_to(key), 100, 10.0)
    assert memory.get(key) is not None
    assert memory.get(key_of("a", 2)) is None
    assert memory.get(AnswerKey(b"other", key.digest, key.moment)) is None
    clock.now += 10
    assert memory.get(key) is None
    assert len(memory) == 0


def test_a_sweep_takes_what_can_be_found_no_more() -> None:
    clock = Clock(100.0)
    memory = MemoryTier(MIB, clock=clock)
    for text, model, stay_s in (("a", "m", None), ("b", "m", 1.0), ("c", "n", None)):
        key = key_of(text)
        memory.put(key, answer_to(key, model), 100, stay_s)
    clock.now += 1
    generations: Callable[[str], int] = {"m": 1, "n": 2}.__getitem__
    for _ in memory.sweep(generations):
        pass
    assert kept(memory, *"abc") == ["a"]
    assert memory.by_model == {"m": (1, 100)}


def test_what_objects_take_is_more_than_their_bytes() -> None:
    """Within a factor of what the interpreter says that they take."""
    import sys

    top = tuple(TopLogprob(f"t{i}", b"t", -1.0) for i in range(5))
    tokens = tuple(Token(f"word {i}", logprobs=(TokenLogprob(f"w{i}", b"w", -0.5, top),)) for i in range(100))
    answer = StoredAnswer(b"k" * 500, "m", "v", tokens, Finished(FinishReason.STOP), 0.0, 0.0)

    def deep(value: object) -> int:
        slots = getattr(type(value), "__struct_fields__", None) or getattr(type(value), "__slots__", ())
        parts = value if isinstance(value, tuple) else [getattr(value, slot) for slot in slots]
        return sys.getsizeof(value) + sum(map(deep, parts))

    assert 0.5 < footprint(answer, 500 + 100 * 100) / deep(answer) < 2
