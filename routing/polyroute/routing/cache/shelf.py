"""What belongs to one deployment of the cache: the key of its answers, what was done for it, the runs in flight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from polyroute.core.backend import Facts
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig
from polyroute.core.event import Finished
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.eligibility import Use, eligibility
from polyroute.routing.cache.flights import Flights
from polyroute.routing.cache.key import canonical
from polyroute.routing.cache.parts import Part, Stored, weight
from polyroute.routing.cache.terms import AnswerKey, Moment
from polyroute.routing.views import ModelCacheStats


class Sought(msgspec.Struct, frozen=True, gc=False):
    """What a call may do with the cache of a deployment, and what its answer is found under; `key` is None where it may
    do nothing. It holds as long as the backend has the same `facts` and the key's moment lasts, for calls of one
    `tenant` on the shelf with this `mark`."""

    mark: object
    facts: Facts
    tenant: str
    use: Use
    key: AnswerKey | None


@dataclass(frozen=True, slots=True)
class Shelf:
    """The part of the cache that belongs to one deployment. `facts` tells how its backend is now."""

    model: str
    local: bool
    fingerprint: str
    config: CacheConfig
    facts: Callable[[], Facts]
    mark: object = field(default_factory=object, repr=False, compare=False)
    """What is known of a request may outlive the shelf: by this it tells shelves apart and keeps none."""

    def use(self, call: Call, facts: Facts | None = None) -> Use:
        """What a call may do with it, as its backend is by `facts`, or now."""
        return eligibility(call.request, self.config, facts or self.facts(), local=self.local)

    def key(self, call: Call, version: str) -> bytes:
        """The full key of a call's answer at `version`."""
        user = "" if self.local else call.request.routing.user  # peers are told, and may answer by it
        return canonical(self.model, version, self.fingerprint, call.request, user, call.tenant)

    def sought(self, call: Call, moment: Callable[[str], Moment]) -> Sought:
        """The same together with the key, at the `moment` of the model; what was worked out of a request is kept."""
        facts, worked = self.facts(), call.worked
        if worked is None or worked.request is not call.request:
            return self._seek(call, facts, moment)
        had: Sought | None = worked.sought
        if (
            had is not None
            and had.mark is self.mark
            and (had.facts is facts or had.facts == facts)
            and had.tenant == call.tenant
            and (had.key is None or had.key.moment == moment(self.model))
        ):
            return had
        made = worked.sought = self._seek(call, facts, moment)
        return made

    def _seek(self, call: Call, facts: Facts, moment: Callable[[str], Moment]) -> Sought:
        use, key = self.use(call, facts), None
        if use.read or use.write:
            key = AnswerKey.of(self.key(call, facts.version), moment(self.model))
        return Sought(self.mark, facts, call.tenant, use, key)


class Ledger:
    """What the cache has done for one model since the server started, and the runs that its calls share now.

    It goes on where a reload changes the layers around a model: calls that began in the old ones are counted too.
    """

    def __init__(self, model: str) -> None:
        self.flights: Flights[Part] = Flights(model, size_of=weight, last=(Finished, Stored))
        self.refreshing = 0
        """Stored answers that are being renewed now."""
        self.misses = 0
        self.stores = 0
        self.coalesced = 0
        """Calls that joined the run of another one."""
        self._model = model
        self._hits = 0
        self._saved_tokens = 0
        self._saved_s = 0.0

    def hit(self, answer: StoredAnswer) -> None:
        """A stored answer was given."""
        self._hits += 1
        self._saved_tokens += answer.finished.usage.completion_tokens
        self._saved_s += answer.took_s

    @property
    def stats(self) -> ModelCacheStats:
        """All of that as it stands now."""
        return ModelCacheStats(
            model=self._model,
            hits=self._hits,
            misses=self.misses,
            stores=self.stores,
            saved_tokens=self._saved_tokens,
            saved_s=self._saved_s,
            coalesced=self.coalesced,
        )
