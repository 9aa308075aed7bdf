"""Arrivals as a busy service sees them: in bursts, with long tails, and with prompts that share beginnings."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from polyroute.core.call import Call
from polyroute.core.request import Message, Request, RoutingOptions

CHARS_PER_TOKEN: Final = 4
MAX_CONTEXT: Final = 16_000
_FILLING: Final = "lorem ipsum dolor sit amet consectetur adipiscing elit " * (MAX_CONTEXT * CHARS_PER_TOKEN // 50)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens by a lognormal distribution, cut off at both ends; `sigma` is that of the logarithm."""

    median: float
    sigma: float
    least: int
    most: int

    def draw(self, chance: random.Random) -> int:
        return min(self.most, max(self.least, round(chance.lognormvariate(math.log(self.median), self.sigma))))


@dataclass(frozen=True, slots=True)
class Workload:
    """What arrives. Rates are in requests a second, times in seconds.

    Arrivals are a Poisson process whose rate a Markov chain switches between calm and burst (MMPP-2), `rate` on
    average. An arrival is the next turn of a chat whose caller has thought for long enough, or a new chat, or, for
    `single` of the new ones, a lone prompt that shares nothing. A chat's system prompt is one of `systems`, the k-th
    as likely as k to the power of -`zipf`.
    """

    rate: float = 50.0
    burst: float = 4.0
    calm_s: float = 60.0
    burst_s: float = 10.0
    systems: int = 200
    zipf: float = 1.1
    single: float = 0.2
    goes_on: float = 0.75
    thinks: Lengths = Lengths(20, 1.0, 2, 600)
    system_tokens: Lengths = Lengths(800, 0.8, 50, 8000)
    user_tokens: Lengths = Lengths(60, 1.2, 2, 4000)
    single_tokens: Lengths = Lengths(400, 1.2, 10, 12_000)
    answer_tokens: Lengths = Lengths(150, 0.9, 1, 2000)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it comes, what it says, and what an engine would make of it.

    `parts` are the prompt's pieces as (number, tokens): requests share exactly the pieces that they begin with alike.
    `answer` is the piece that the answer will be, which the next turn of the chat repeats.
    """

    at: float
    call: Call
    parts: tuple[tuple[int, int], ...]
    prompt_tokens: int
    answer: tuple[int, int]


def arrivals(workload: Workload, count: int, seed: int, *, affinity: bool = False) -> Iterator[Arrival]:
    """`count` arrivals in order, the same for equal arguments; with `affinity`, each chat has an affinity key."""
    chance = random.Random(seed)
    numbers = itertools.count()
    systems = [_piece(numbers, workload.system_tokens.draw(chance), "system") for _ in range(workload.systems)]
    popular = list(itertools.accumulate((k + 1) ** -workload.zipf for k in range(workload.systems)))
    waiting: list[tuple[float, int, _Chat]] = []  # chats whose caller thinks, by the time at which they go on
    for at in itertools.islice(_instants(workload, chance), count):
        if waiting and waiting[0][0] <= at:
            chat = heapq.heappop(waiting)[2]
        elif chance.random() < workload.single:
            chat = _Chat((), ())
        else:
            system = chance.choices(systems, cum_weights=popular)[0]
            chat = _Chat((system.message,), (system.part,))
        lone = not chat.parts
        asked = _piece(numbers, (workload.single_tokens if lone else workload.user_tokens).draw(chance), "user")
        answer = _piece(numbers, workload.answer_tokens.draw(chance), "assistant")
        messages, parts = (*chat.messages, asked.message), (*chat.parts, asked.part)
        tokens = sum(size for _, size in parts)
        key = f"chat-{parts[1][0]}" if affinity and not lone else ""
        request = Request("m", None, messages, routing=RoutingOptions(affinity_key=key))
        yield Arrival(at, Call(request, f"r{asked.part[0]}", arrived=at), parts, tokens, answer.part)
        if not lone and tokens < MAX_CONTEXT // 2 and chance.random() < workload.goes_on:
            resumes = at + workload.thinks.draw(chance)
            grown = _Chat((*messages, answer.message), (*parts, answer.part))
            heapq.heappush(waiting, (resumes, asked.part[0], grown))


@dataclass(frozen=True, slots=True)
class _Chat:
    messages: tuple[Message, ...]
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    message: Message
    part: tuple[int, int]


def _piece(numbers: Iterator[int], tokens: int, role: str) -> _Piece:
    """A message that is like no other from its first word on."""
    number = next(numbers)
    text = f"{number:x} {_FILLING[: tokens * CHARS_PER_TOKEN - 9]}"
    return _Piece(Message(role, text), (number, tokens))


def _instants(workload: Workload, chance: random.Random) -> Iterator[float]:
    cycle_s = workload.calm_s + workload.burst_s
    calm = workload.rate * cycle_s / (workload.calm_s + workload.burst_s * workload.burst)
    rates, stays = (calm, calm * workload.burst), (workload.calm_s, workload.burst_s)
    now, state = 0.0, 0
    switch = chance.expovariate(1 / stays[state])
    while True:
        step = chance.expovariate(rates[state])
        if now + step < switch:
            now += step
            yield now
        else:  # a Poisson process has no memory: the rest of the step is drawn anew
            now, state = switch, 1 - state
            switch = now + chance.expovariate(1 / stays[state])
