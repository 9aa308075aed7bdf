"""What the legacy endpoints read: the JSON of `/v1/generate`, `/v1/generate/batch` and `/v1/stream`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from polyroute.core.request import CacheMode, CacheOptions, Request, Sampling
from polyroute.server.rest.dialect import HEADERS, Dialect
from polyroute.server.rest.json_body import Body

MAX_BATCH = 256

CacheWord: TypeAlias = Literal["bypass", "refresh", "only_if_cached"]


class CacheBody(Body):
    """How a request may use the cache, in full."""

    mode: CacheWord | None = Field(None, description="Absent: as the model is configured.")
    max_age: float | None = Field(None, description="Oldest answer to accept, in seconds.")
    original_pace: bool = Field(False, description="A stored answer comes at the pace at which it was generated.")


Stops: TypeAlias = str | list[str]

NATIVE = Dialect((("max_tokens", "max_new_tokens"), *HEADERS))


class NativeOptions(Body):
    """What a legacy request may say beside its prompt; absent and null are the same."""

    model: str | None = Field(None, description="Model ID or route; absent: the server's default.")
    max_new_tokens: int | None = Field(None, description="Most tokens to generate.")
    temperature: float | None = Field(None, description="0 is greedy; absent: the model's own default.")
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Stops | None = Field(None, description="Strings that end the answer; they are not returned.")
    cache: bool | CacheWord | CacheBody | None = Field(
        None, description="false: neither read nor write; true or absent: as the model is configured."
    )

    def request(self, prompt: str) -> Request:
        """The router's request for one prompt."""
        return Request(
            model=self.model or "",
            prompt=prompt,
            sampling=Sampling(
                max_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                seed=self.seed,
            ),
            stop=stops(self.stop),
            cache=self._cache(),
        )

    def _cache(self) -> CacheOptions:
        asked = self.cache
        if isinstance(asked, CacheBody):
            return CacheOptions(_mode(asked.mode), asked.max_age, asked.original_pace)
        if isinstance(asked, str):
            return CacheOptions(_mode(asked))
        return CacheOptions(CacheMode.BYPASS if asked is False else CacheMode.UNSPECIFIED)


class GenerateBody(NativeOptions):
    """One prompt, continued as it stands."""

    prompt: str = Field(description="Text that the model continues, with no chat template.")


class BatchBody(NativeOptions):
    """Several prompts with the same options."""

    prompts: list[str] = Field(description=f"1 to {MAX_BATCH} prompts; the results come in their order.")


def _mode(word: CacheWord | None) -> CacheMode:
    return CacheMode.UNSPECIFIED if word is None else CacheMode[word.upper()]


def stops(given: Stops | None) -> tuple[str, ...]:
    """Stop strings from the one or many that a caller gave."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)
