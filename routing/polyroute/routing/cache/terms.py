"""What is said when an answer is looked for or kept: under which key, and on what terms."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from polyroute.core.config import TIERS, CacheConfig
from polyroute.routing.cache.codec import StoredAnswer

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Largest answer that is kept, as the codec's bytes."""

_JITTER: Final = 0.1
"""The part of a time to live that answers may lose, so that those of one hour do not all leave in one second."""


class Moment(NamedTuple):
    """How often answers of a model had been invalidated when a call began: what was made before is not for it.

    `local` counts on this machine, `shared` on all that share a Redis; both grow. `sequence` grows with every
    invalidation of any kind that this process has heard of.
    """

    local: int = 0
    shared: int = 0
    sequence: int = 0


class AnswerKey(msgspec.Struct, frozen=True, gc=False):
    """What an answer is found under. `canonical` is the full key, `digest` its SHA-256 in hexadecimal."""

    canonical: bytes
    digest: str
    moment: Moment

    @classmethod
    def of(cls, canonical: bytes, moment: Moment) -> AnswerKey:
        """The key of a canonical request, at a moment."""
        return cls(canonical, hashlib.sha256(canonical).hexdigest(), moment)

    def but(self, canonical: bytes) -> AnswerKey:
        """Another canonical request at the same moment: one whose version was known only later."""
        return self if canonical == self.canonical else AnswerKey.of(canonical, self.moment)


@dataclass(frozen=True, slots=True)
class Stay:
    """One tier that answers are kept in; `ttl_s` bounds how long they stay there, None is as long as they may."""

    tier: str
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """Where the answers of one deployment are kept, and for how long. Made once, not for each call.

    `ttl_s` is the greatest age of an answer in any tier, in seconds; None is no bound. For `stale_s` after that it is
    kept all the same, for whoever takes stale ones. `memory` is None where answers are not kept there; `below` are the
    other tiers, nearest first. Those that this process has not are passed over.
    """

    model: str
    ttl_s: float | None = None
    memory: Stay | None = Stay("memory")
    below: tuple[Stay, ...] = (Stay("disk"), Stay("redis"))
    stale_s: float = 0.0

    @classmethod
    def of(cls, model: str, config: CacheConfig) -> Terms:
        """What a deployment's configuration says."""
        named = config.tiers
        stays = [Stay(t, None if named is None else named[t].ttl) for t in TIERS if named is None or t in named]
        memory = next((stay for stay in stays if stay.tier == "memory"), None)
        return cls(model, config.ttl, memory, tuple(stay for stay in stays if stay is not memory), config.stale_s)

    def outlived(self, age_s: float) -> bool:
        """Whether an answer of that age is too old for any tier."""
        return self.ttl_s is not None and age_s > self.ttl_s + self.stale_s

    def fresh_s(self, digest: str) -> float | None:
        """The age at which an answer goes stale, in seconds; None is never.

        The same answer has the same part of its time taken off in every process.
        """
        return None if self.ttl_s is None else self.ttl_s * _part(digest)

    def remaining_s(self, stay: Stay, digest: str, age_s: float = 0.0) -> float | None:
        """How long an answer of that age may stay in a tier from now on; None is no bound, 0 or less is not at all."""
        if self.ttl_s is None and stay.ttl_s is None:
            return None
        part = _part(digest)
        whole = None if self.ttl_s is None else self.ttl_s * part + self.stale_s - age_s
        here = None if stay.ttl_s is None else stay.ttl_s * part
        return min((bound for bound in (whole, here) if bound is not None), default=None)


def _part(digest: str) -> float:
    """The part of its time that an answer is left."""
    return 1 - _JITTER * int(digest[:4], 16) / 0xFFFF


class Found(msgspec.Struct, frozen=True, gc=False):
    """A stored answer, and the tier that had it."""

    answer: StoredAnswer
    tier: str
