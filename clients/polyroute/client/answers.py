"""What an answer consists of, as plain values; read from the wire by `polyroute.client.wire`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from polyroute.client.enums import CacheResult, FinishReason


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written; `cached_prompt_tokens` of the prompt were not computed again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in seconds; None where the server did not say."""

    queue_s: float | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    router_overhead_s: float | None = None


@dataclass(frozen=True, slots=True)
class AttemptError:
    """Why an attempt failed: the reason, as in `RequestFailed.reason`, and the message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt; `error` is None on the one that answered. `duration_s` ends at its first event or its error."""

    deployment: str
    replica: str = ""
    variant: str = ""
    error: AttemptError | None = None
    duration_s: float | None = None

    @property
    def where(self) -> str:
        """The deployment, and its replica where one was asked."""
        return f"{self.deployment} at {self.replica}" if self.replica else self.deployment


@dataclass(frozen=True, slots=True)
class Route:
    """How a request was routed, and why; `str(route)` says it in words.

    `replica` is empty for an answer from the cache, `variant` where the route has none. `upstream` is the peer's own
    route, when the peer is a Polyroute too. `hash_point` (in [0, 1)) and `probability` (0 to 1) belong to the variant.
    `cache_key` is what `polyroute cache clear --key` takes.
    """

    requested: str = ""
    model: str = ""
    version: str = ""
    deployment: str = ""
    replica: str = ""
    variant: str = ""
    cache: CacheResult = CacheResult.UNSPECIFIED
    attempts: tuple[Attempt, ...] = ()
    reasons: tuple[str, ...] = ()
    upstream: Route | None = None
    trace_id: str = ""
    sticky_by: str = ""
    hash_point: float | None = None
    probability: float | None = None
    cache_age_s: float | None = None
    cache_key: str = ""

    @property
    def summary(self) -> str:
        """Who answered, in one line."""
        who = f"`{self.model}`" if self.model else "an unnamed model"
        facts = [
            f"version {self.version}" if self.version else "",
            f"variant {self.variant}" if self.variant else "",
            f"replica {self.replica}" if self.replica else "",
            "" if self.cache is CacheResult.UNSPECIFIED else f"cache {self.cache}",
            "" if self.cache_age_s is None else f"stored {self.cache_age_s:.0f} s ago",
        ]
        asked = f"`{self.requested}` asked for; " if self.requested and self.requested != self.model else ""
        told = ", ".join(fact for fact in facts if fact)
        return f"{asked}answered by {who}" + (f" ({told})" if told else "")

    def __str__(self) -> str:
        lines = [self.summary]
        failed = [(attempt, attempt.error) for attempt in self.attempts if attempt.error is not None]
        lines += [f"  tried {attempt.where}: {error.reason}: {error.message}" for attempt, error in failed]
        lines += [f"  because {reason}" for reason in self.reasons]
        lines += [f"  cache key {self.cache_key}"] if self.cache_key else []
        if self.upstream is not None:
            lines += [
                f"  upstream: {line}" if i == 0 else f"  {line}"
                for i, line in enumerate(str(self.upstream).split("\n"))
            ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's request to run a tool; `arguments` is JSON text. In deltas, parts of equal `index` concatenate."""

    id: str
    name: str
    arguments: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the most likely tokens at a place; `logprob` is natural."""

    token: str
    token_bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token with its natural log probability and the likeliest in its place, likeliest first."""

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A part of a streamed answer; the texts of all concatenate to the answer's."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer; `str(answer)` is its text."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    route: Route
    timing: Timing
    request_id: str
    created: datetime | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    matched_stop: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    seed: int | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens that an input occupies, and the model that counted; `context_length` is 0 when not known."""

    prompt_tokens: int
    context_length: int
    model: str
    version: str
