"""The one request of this benchmark, with a number in it, and the answer that it gets."""

from __future__ import annotations

from benchmarks.rig.workload import DRAWN, PROMPT_TOKENS, WORD, Ask
from polyroute.core.event import Finished, FinishReason, Token, Usage
from polyroute.core.request import Message, Request, Sampling


def request(ask: Ask, number: int) -> Request:
    """The request as the router sees it, whichever way it came."""
    question = ask.question.replace(DRAWN, f"{number:0{len(DRAWN)}}")
    return Request(model=ask.model, messages=(Message("user", question),), sampling=Sampling(temperature=0))


def answer(tokens: int) -> tuple[tuple[Token, ...], Finished]:
    """A stored answer of so many tokens."""
    return (Token(WORD),) * tokens, Finished(FinishReason.STOP, Usage(PROMPT_TOKENS, tokens))
