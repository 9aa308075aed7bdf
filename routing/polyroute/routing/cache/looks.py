"""Looks for stored answers, each made once for all calls that ask the same while it goes on."""

from __future__ import annotations

import asyncio
from typing import Final, TypeAlias

import msgspec

from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.terms import AnswerKey, Found, Terms


class Look(msgspec.Struct, frozen=True, gc=False):
    """What a look came to: the answer that is stored, and whether a tier has failed meanwhile."""

    found: Found | None
    failed: bool


ABSENT: Final = Look(None, failed=False)
"""Of a memory that has no answer, and no tier below it."""

_Waiting: TypeAlias = "asyncio.Future[Look | None]"


class Looks:
    """Looks into the tiers for the calls of one deployment, by its terms. Used on one event loop."""

    def __init__(self, answers: Answers, terms: Terms) -> None:
        self._answers = answers
        self._terms = terms
        self._waiting: dict[AnswerKey, list[_Waiting]] = {}

    def __repr__(self) -> str:
        return f"<Looks {len(self._waiting)} under way>"

    async def look(self, key: AnswerKey) -> Look | None:
        """What is stored under `key`. Whoever asks first looks for all; where it leaves, the others have None, and the
        first of them who asks again looks.

        Who looked goes on before anybody else can ask: there is no moment at which neither a look nor the run that
        follows it can be joined.
        """
        if (others := self._waiting.get(key)) is not None:
            told: _Waiting = asyncio.get_running_loop().create_future()
            others.append(told)
            return await told
        others, look = [], None
        self._waiting[key] = others
        try:
            look = await self.alone(key)
            return look
        finally:
            del self._waiting[key]
            for told in others:
                if not told.done():  # others have stopped waiting
                    told.set_result(look)

    async def alone(self, key: AnswerKey) -> Look:
        """The same for one call that shares nothing."""
        errors = self._answers.errors
        found = await self._answers.find(key, self._terms)
        return Look(found, self._answers.errors > errors)
