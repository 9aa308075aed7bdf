"""What can be called: deployments and the names that lead to them, as one immutable snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from polyroute.core.backend import Backend, Facts, ModelState
from polyroute.core.call import Call, Service
from polyroute.core.config import (
    HEADER_KEY,
    ConcurrencyConfig,
    Config,
    LimitsConfig,
    LocalConfig,
    ModelConfig,
    RemoteConfig,
    RouteConfig,
)
from polyroute.core.errors import InvalidArgument, UnknownModel
from polyroute.routing.adaptive import AdaptiveLimit
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.layers.cached import Cached
from polyroute.routing.layers.semantic import Semantic
from polyroute.routing.near import NearNames
from polyroute.routing.occupancy import Occupancy, Occupied
from polyroute.routing.permits import AnyPermits, Permits
from polyroute.routing.plan import Decision, Layer, Rule, Shadow, Variant, decide

REMOTE_CONCURRENCY = 128
"""Permits of a remote deployment that sets none; a local one has as many as its replicas run sequences."""

LOCAL_CONCURRENCY = 64
"""Permits of a local deployment that sets none, until a replica has said how many sequences it runs."""

_SAME_ANSWER = frozenset(
    {
        *("id", "version"),  # in the key by themselves
        *("max_concurrency", "max_queue", "queue_timeout", "timeout", "first_token_timeout", "balance", "cache"),
        *("retries", "retry_budget", "breaker", "slow_start", "hedge", "probe_interval", "resolve_interval"),
        *("warm", "max_sequences", "max_batch_tokens", "kv_cache_memory", "cuda_graphs"),
        *("api_key", "tls", "connect_timeout"),
    }
)
"""Options that cannot change what a model answers. Every other one counts, those of a later version too."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model served one way: its backend, and the layers around it as one service.

    `occupancy` counts the calls in flight whose plan names its backend, whether they have come to it yet or not.
    """

    config: ModelConfig
    backend: Backend
    permits: AnyPermits
    shelf: Shelf
    cached: Cached
    service: Service
    occupancy: Occupancy
    semantic: Semantic | None = None

    @property
    def id(self) -> str:
        """The model ID."""
        return self.config.id

    @property
    def local(self) -> bool:
        """Whether this server runs the model itself."""
        return isinstance(self.config, LocalConfig)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every deployment and every name at one moment. Built once, then only read; `names` are all of them in order."""

    deployments: Mapping[str, Deployment]
    rules: Mapping[str, Rule]
    names: tuple[str, ...]
    default: str
    limits: LimitsConfig
    near: NearNames
    sticky_headers: frozenset[str]
    foregone: dict[str, Decision] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The decisions of names, as callers send them, that leave nothing to decide: made when they are first asked."""

    @classmethod
    def of(cls, config: Config, deployments: Mapping[str, Deployment], before: Snapshot | None = None) -> Snapshot:
        """The snapshot of a checked configuration; `deployments` holds one of each of its models.

        What depends on the names alone is taken from `before`, the one that it follows, while they are the same.
        """
        rules = {id: Rule(id, (Variant("", id),), direct=True) for id in deployments}
        rules.update({route.id: _rule(route) for route in config.routes})
        names = tuple(sorted(rules))
        return cls(
            deployments=MappingProxyType(dict(deployments)),
            rules=MappingProxyType(rules),
            names=names,
            default=config.effective_default or "",
            limits=config.limits,
            near=before.near if before is not None and before.names == names else NearNames(rules),
            sticky_headers=frozenset(
                key.removeprefix(HEADER_KEY)
                for rule in rules.values()
                for key in rule.sticky_by
                if key.startswith(HEADER_KEY)
            ),
        )

    def resolve(self, name: str) -> Rule:
        """The rule behind `name`; an empty name stands for the default. Raises `UnknownModel`."""
        wanted = name or self.default
        if not wanted:
            raise InvalidArgument("model", "name one; this server has no default model")
        rule = self.rules.get(wanted)
        if rule is None:
            raise UnknownModel(wanted, self.near.near(wanted))
        return rule

    def decide(self, call: Call) -> Decision:
        """The plan of a call, by how the deployments are now; raises `UnknownModel` and `InvalidArgument`."""
        name, pinned = call.request.model, bool(call.request.routing.variant)
        found = None if pinned else self.foregone.get(name)
        if found is None:
            rule = self.resolve(name)
            found = decide(rule, call, self.rules, self._failed)
            if rule.foregone and not pinned:
                self.foregone[name] = found
        return found

    def _failed(self, id: str) -> bool:
        return self.deployments[id].backend.facts().state is ModelState.FAILED

    def occupied(self, ids: Sequence[str]) -> Occupancy | Occupied:
        """A block that keeps these deployments from being stopped by a reload while a call may come to them."""
        if len(ids) == 1:
            return self.deployments[ids[0]].occupancy
        return Occupied([self.deployments[id].occupancy for id in ids])

    def deployment(self, id: str) -> Deployment:
        """The deployment of that model ID; raises `UnknownModel`, or `InvalidArgument` where it is a route's."""
        found = self.deployments.get(id)
        if found is None:
            if id in self.rules:
                raise InvalidArgument("model", f"`{id}` is a route; name one of its models")
            raise UnknownModel(id, self.near.near(id))
        return found


def permits_for(config: ModelConfig, facts: Callable[[], Facts]) -> Permits:
    """The permits that a deployment has by its configuration, or by what its engines say in `facts`."""
    return Permits(config.id, _concurrency(config, facts), config.max_queue, config.queue_timeout)


def limit(permits: AnyPermits, config: ModelConfig, facts: Callable[[], Facts]) -> None:
    """Gives permits that are in use the limits that `permits_for` would give new ones.

    Where they are another process's, that one has the limits.
    """
    if isinstance(permits, Permits):
        permits.limit(_concurrency(config, facts), config.max_queue, config.queue_timeout)
    else:
        permits.max_queue = config.max_queue


def _concurrency(config: ModelConfig, facts: Callable[[], Facts]) -> int | Callable[[], int]:
    given = config.max_concurrency
    if isinstance(given, ConcurrencyConfig):
        return given.max if given.min == given.max else AdaptiveLimit(given.min, given.max)
    if given is not None:
        return given
    if isinstance(config, LocalConfig):
        return partial(_sequences, facts, config.max_sequences or LOCAL_CONCURRENCY)
    return REMOTE_CONCURRENCY


def _sequences(facts: Callable[[], Facts], otherwise: int) -> int:
    return facts().max_sequences or otherwise


def fingerprint(config: ModelConfig) -> str:
    """Digest of the options that can change what a model answers under the same name; part of every cache key.

    The peer's addresses and headers are among them: another tenant's header, or another peer, may mean other answers.
    """
    options = {name: getattr(config, name) for name in type(config).model_fields if name not in _SAME_ANSWER}
    if isinstance(config, RemoteConfig):
        options["base_urls"] = sorted(config.base_urls)
        options["headers"] = sorted((name.lower(), value.get_secret_value()) for name, value in config.headers.items())
    return hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()


def _rule(route: RouteConfig) -> Rule:
    if route.model is not None:
        variants: tuple[Variant, ...] = (Variant("", route.model),)
    else:
        variants = tuple(Variant(v.name, v.model, v.weight) for v in route.variants)
    return Rule(
        route.id,
        variants,
        route.sticky_by,
        route.fallback,
        wait_for_load=route.when_cold == "wait",
        control=route.control or "",
        holdout=route.holdout,
        layer=None if route.layer is None else Layer(route.layer.name, *route.layer.slice),
        allow_pin=route.allow_pin,
        record_content=route.record_content,
        shadows=tuple(Shadow(s.model, s.sample, s.max_concurrency, s.max_queue, s.timeout) for s in route.shadow),
        rollout=route.rollout,
        adaptive=route.adaptive,
    )
