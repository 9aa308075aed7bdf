"""The router as its callers see it: one object that answers calls and says how everything stands."""

from __future__ import annotations

from collections.abc import AsyncIterator

from polyroute.core.call import Call
from polyroute.core.event import Event
from polyroute.core.request import Request
from polyroute.routing.views import CacheStats, ModelTokenCount, ModelView, Plan


class Gateway:
    """INTERFACE STUB, to be implemented. gRPC, REST and admin services are written against it."""

    @property
    def default_model(self) -> str:
        """Model or route for requests that name none; empty where there is none."""
        raise NotImplementedError

    def generate(self, call: Call) -> AsyncIterator[Event]:
        """Answers a call: `Started` with the complete route, `Token`s, `Finished` with the complete timing."""
        raise NotImplementedError

    async def count_tokens(self, call: Call) -> ModelTokenCount:
        """Counts the tokens of the call's input."""
        raise NotImplementedError

    def models(self) -> tuple[ModelView, ...]:
        """Every model and named route, by ID."""
        raise NotImplementedError

    def model(self, name: str) -> ModelView:
        """One model or route (empty: the default); raises `UnknownModel`."""
        raise NotImplementedError

    def explain(self, request: Request) -> Plan:
        """The plan that a request would get; runs nothing."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether the default model answers."""
        raise NotImplementedError

    async def load(self, model_id: str, *, wait: bool) -> ModelView:
        """Loads a model now; with `wait`, returns once it is warm or raises why it cannot be."""
        raise NotImplementedError

    async def unload(self, model_id: str, grace_s: float) -> ModelView:
        """Lets a local model finish its calls, then frees its memory."""
        raise NotImplementedError

    async def cache_stats(self, model_id: str = "") -> CacheStats:
        """What the cache holds; of one model where one is named (raises `UnknownModel`)."""
        raise NotImplementedError

    async def invalidate_cache(self, model_id: str = "", key: str = "") -> int:
        """Removes stored answers: of one model, or of all; or the one with this key. Returns how many."""
        raise NotImplementedError
