"""What is kept of a call that took part in an experiment, and who is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from polyroute.core.event import CacheResult

Shares: TypeAlias = tuple[tuple[str, float], ...]
"""How a route's traffic is divided: each variant's name and share, which add up to 1."""

OK: Final = "ok"
"""Outcome of a call that was answered."""

_NOT_OF_THE_MODEL: Final = frozenset({CacheResult.HIT.name, CacheResult.COALESCED.name})

_CALLERS_OWN: Final = frozenset(
    {
        *("INVALID_ARGUMENT", "PROMPT_TOO_LONG", "UNSUPPORTED_FIELD", "NOT_FOUND", "UNKNOWN_MODEL", "NOT_CACHED"),
        *("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "CANCELLED"),
    }
)
"""Reasons that say something of the caller and nothing of the variant."""

_PASSING: Final = frozenset({"MODEL_LOADING", "DRAINING"})
"""Reasons that an operator's own doing has: a model that is being loaded, or is leaving."""

_NO_EVIDENCE: Final = _CALLERS_OWN | _PASSING


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call that took part in an experiment. Times are in seconds; `at`, when it ended, is Unix time.

    `variant` is the arm that it was assigned to. `model` and `version` are that arm's, whoever answered in the end
    (`answered_by`, a deployment; empty where nobody did). `probability` is the variant's share when the call was
    assigned, `shares` are those of all. `sticky_by` and `hash_point` are what it was keyed on; `hash_point` and
    `probability` are None for a call that was not assigned by chance: it was pinned by its request, or kept out of the
    experiment and given the control, by what `held_out` names, `holdout` or `layer`.

    `outcome` is `ok` or an error's reason, as the caller saw it. `fault` is why the variant itself did not answer,
    empty where it did: a call that a fallback answered has the outcome `ok` and a fault. `own_deadline` says that the
    caller's deadline had passed. `cache` and `finish_reason` are names as in `polyroute.v1`. Prompt and answer are
    empty unless the route records content.
    """

    at: float
    request_id: str
    route: str
    variant: str
    model: str
    version: str = ""
    answered_by: str = ""
    pair_id: str = ""
    held_out: str = ""
    shares: Shares = ()
    sticky_by: str = ""
    hash_point: float | None = None
    probability: float | None = None
    outcome: str = OK
    fault: str = ""
    own_deadline: bool = False
    cache: str = CacheResult.UNSPECIFIED.name
    finish_reason: str = ""
    queue_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt: str = ""
    answer: str = ""

    @property
    def assigned(self) -> bool:
        """Whether chance gave the call its variant: neither its request nor a holdout did."""
        return self.hash_point is not None and not self.held_out

    @property
    def evidence(self) -> bool:
        """Whether the call says how its variant's version does.

        An answer from the cache does not, nor does what the caller did: a bad request, leaving, too short a deadline;
        nor a model that was being loaded, or was leaving.
        """
        if self.cache in _NOT_OF_THE_MODEL or (self.own_deadline and self.outcome != OK):
            return False
        return (self.fault or self.outcome) not in _NO_EVIDENCE

    @property
    def failed(self) -> bool:
        """Whether the variant did not answer by itself."""
        return bool(self.fault)


class Recorder(Protocol):
    """Is told of each call that took part in an experiment, in the moment that it ends. Must neither wait nor raise."""

    def recorded(self, record: CallRecord) -> None:
        """A call has ended."""
        ...


class Rater(Protocol):
    """Is told of what callers say of answers, once a request and metric, when both it and the record are kept."""

    def rated(self, record: CallRecord, metric: str, rating: float) -> None:
        """A caller rated the answer of a call. Must neither wait nor raise."""
        ...


class Recorders:
    """Several recorders as one."""

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders

    def recorded(self, record: CallRecord) -> None:
        """Tells each of them."""
        for recorder in self._recorders:
            recorder.recorded(record)
