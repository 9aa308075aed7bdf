"""What a backend is to the rest of the router: something that loads, streams and says how it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from polyroute.core.call import Call
from polyroute.core.config import ModelConfig
from polyroute.core.event import Event
from polyroute.core.request import Sampling


class ModelState(Enum):
    """How ready a model or a replica is; names as in `polyroute.v1.ModelState`."""

    UNSPECIFIED = 0
    COLD = 1
    LOADING = 2
    WARM = 3
    DRAINING = 4
    FAILED = 5

    @property
    def readiness(self) -> int:
        """0 for the state that answers soonest, more for those that answer later or not at all."""
        return _READIEST.index(self)


_READIEST = (
    ModelState.WARM,
    ModelState.LOADING,
    ModelState.COLD,
    ModelState.UNSPECIFIED,
    ModelState.DRAINING,
    ModelState.FAILED,
)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine of a local model's worker does, as it was half a second ago at most.

    Answers are `running`, `waiting` for a place or memory, or `paused` since their readers are behind. The rest counts
    since the worker started. `step_sizes` and `batch_sizes` are steps by their seconds and by the answers that took
    part, one number for each bucket of `core.telemetry.ENGINE_STEP` and `ENGINE_BATCH` and one for what is beyond them.
    Prompt tokens were computed, those of answers that had to begin anew counted again, or reused from earlier prompts.
    """

    running: int
    waiting: int
    paused: int
    kv_used_bytes: int
    kv_limit_bytes: int
    step_sizes: tuple[int, ...]
    steps_s: float
    batch_sizes: tuple[int, ...]
    batched: int
    computed_tokens: int
    reused_tokens: int
    output_tokens: int
    preemptions: int


@dataclass(frozen=True, slots=True)
class AttemptCounts:
    """Attempts of calls at a replica since it came; copies of calls, which shadows make, are left out.

    `outcomes` counts those that are over: `ok`, an error's reason, or `CANCELLED` where the caller left or another
    replica was faster; they took `ended_s` seconds together. `first_sizes` are those that began to answer by the
    seconds until then, one number for each bucket of `core.telemetry.REPLICA_FIRST_TOKEN` and one for what is beyond
    them, and `first_s` is the sum of those seconds.
    """

    outcomes: Mapping[str, int]
    first_sizes: tuple[int, ...]
    first_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica as it stands; `detail` says in words why it is in its state.

    Where a pool knows it: `weight`, above 0 and at most 1, is less while the replica starts slowly; `breaker` is
    `closed`, `open` or `half_open`; `ejections` is how often that has opened; `attempts`
    counts what it was asked. `engine` is None but of a local model that is warm.
    """

    name: str
    state: ModelState
    detail: str = ""
    in_flight: int = 0
    version: str = ""
    weight: float = 1.0
    breaker: str = ""
    ejections: int = 0
    attempts: AttemptCounts | None = None
    engine: EngineStatus | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What calls are decided by, of a backend as it stands now; the fields are those of `BackendStatus`."""

    state: ModelState
    version: str = ""
    greedy_default: bool = False
    max_sequences: int = 0
    ready_since: float = 0.0


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A backend as it stands now.

    `version` is empty until it is known. `context_length` is in tokens, 0 when not known. `greedy_default` says that
    the model is greedy where a request sets no temperature. `ready_since` is Unix time in seconds, 0 until ready.
    `max_sequences` is how many calls are answered at once, 0 when not known. `defaults` is what the model does where a
    request leaves it open, None while that is not known.
    """

    state: ModelState
    detail: str = ""
    version: str = ""
    context_length: int = 0
    chat: bool = True
    greedy_default: bool = False
    ready_since: float = 0.0
    max_sequences: int = 0
    defaults: Sampling | None = None
    replicas: tuple[ReplicaStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens that an input occupies; `context_length` is 0 when not known."""

    prompt_tokens: int
    context_length: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """The replica that a call would go to now, and why, in words; no words where there is no choice."""

    replica: str
    reason: str


@runtime_checkable
class Previewing(Protocol):
    """A backend that chooses among replicas, and can tell beforehand."""

    def preview(self, call: Call) -> Preview:
        """Where the call would go now; raises `NoReplica` where no replica would take it. Runs and changes nothing."""
        ...


@runtime_checkable
class Unloading(Protocol):
    """A backend that can free what its model holds while it goes on serving."""

    async def unload(self, grace_s: float) -> None:
        """Gives calls in flight `grace_s` seconds, then frees what the model holds; `load` brings it back."""


@runtime_checkable
class Heeding(Protocol):
    """A backend that leaves replicas alone which another process has found ill."""

    def heed(self, replica: str, open_for_s: float, why: str) -> None:
        """Leaves that replica alone for so many seconds, for the reason `why`; one that it knows is ill, as it was."""


class Backend(Protocol):
    """Runs a model, here or at a peer.

    `start` returns at once: whatever takes time goes on behind it and shows in `status`. `stream` is a Service.
    """

    async def start(self) -> None:
        """Begins to load or to reach the model, in the background, where the configuration wants it warm."""

    async def load(self) -> None:
        """Returns once the model is warm; raises why it cannot be."""

    async def stop(self) -> None:
        """Ends what is still running and frees everything. Not to be used afterwards."""

    def adopt(self, config: ModelConfig) -> None:
        """Takes on the options of `config`, at once and without a restart; they differ in `config.LIVE` ones only."""

    def stream(self, call: Call) -> AsyncIterator[Event]:
        """Answers a call; see `polyroute.core.call.Service`."""
        ...

    async def count_tokens(self, call: Call) -> TokenCount:
        """Counts the tokens of the call's input; raises `Unimplemented` where that is not known."""
        ...

    def facts(self) -> Facts:
        """The part of `status` that every call needs, for a small part of what that costs; the same holds for it."""
        ...

    def status(self) -> BackendStatus:
        """How it is now, without waiting for anything. Changes nothing; any thread may ask."""
        ...
