"""Which deployments may answer a call, in which order, and why: pure functions, without clock, chance or I/O."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from polyroute.core.call import Call
from polyroute.core.config import HEADER_KEY, AdaptiveConfig, RolloutConfig, StickyKey
from polyroute.core.errors import InvalidArgument, PermissionDenied, clip


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm of a route: the deployment that serves it, and its weight beside those of the others."""

    name: str
    deployment: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A partition of keys that several routes share, and the part of it, [low, high) in [0, 1], that is one route's."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Shadow:
    """A deployment that gets copies of a share of a route's calls, `sample`, and what it may take for them."""

    deployment: str
    sample: float
    max_concurrency: int = 4
    max_queue: int = 64
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What a name that callers send stands for. One unnamed variant is that of a model's own name or of an alias.

    Keys that fall into the share `holdout`, or outside of `layer`, are kept out of the experiment: they get the variant
    `control`, the first where it is empty.
    """

    id: str
    variants: tuple[Variant, ...]
    sticky_by: tuple[StickyKey, ...] = ()
    fallback: tuple[str, ...] = ()
    direct: bool = False
    wait_for_load: bool = True
    control: str = ""
    holdout: float = 0.0
    layer: Layer | None = None
    allow_pin: bool = True
    record_content: bool = False
    shadows: tuple[Shadow, ...] = ()
    rollout: RolloutConfig | None = None
    adaptive: AdaptiveConfig | None = None

    def share(self, variant: Variant) -> float:
        """The variant's part of the traffic, 0 to 1."""
        return variant.weight / sum(each.weight for each in self.variants)

    @property
    def foregone(self) -> bool:
        """Whether every call without a pin gets the same decision: there is one model, and nothing to draw."""
        return not (self.variants[0].name or self.fallback or self.shadows)

    @property
    def control_variant(self) -> Variant:
        """The variant that others are compared with, and that keys get which are kept out."""
        return next((variant for variant in self.variants if variant.name == self.control), self.variants[0])


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt that a call may make; `wait_for_load` says whether it waits for a model that has to be loaded."""

    deployment: str
    variant: str = ""
    fallback: bool = False
    wait_for_load: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """The steps of one call in order, and why they are these.

    `hash_point` lies in [0, 1); it and `probability`, the variant's share, are None where nothing was drawn.
    `held_out` is `holdout` or `layer` where the call's key is kept out of the experiment. `shadows` are those that may
    get a copy, `copies` those that do, of this very call.
    """

    requested: str
    steps: tuple[Step, ...]
    reasons: tuple[str, ...]
    variant: str = ""
    sticky_by: str = ""
    hash_point: float | None = None
    probability: float | None = None
    held_out: str = ""
    shadows: tuple[Shadow, ...] = ()
    copies: tuple[Shadow, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The deployments that the call may come to, those of its copies too."""
        if len(self.steps) == 1 and not self.copies:
            return (self.steps[0].deployment,)
        return (*(step.deployment for step in self.steps), *(copy.deployment for copy in self.copies))

    @property
    def own_step(self) -> Step:
        """The step that is the variant's own, wherever it stands in the order."""
        return next(step for step in self.steps if not step.fallback)


def decide(rule: Rule, call: Call, rules: Mapping[str, Rule], failed: Callable[[str], bool]) -> Decision:
    """Plans a call that asked for `rule`; raises `InvalidArgument` for an unknown variant.

    `rules` holds every name; `failed` says of a deployment whether it has no healthy replica.

    The first step is the variant that the call falls to; the route's fallbacks follow in order, unless the request
    refuses them. A fallback that is a route adds the variant that the call falls to there, then its own fallbacks.
    Where the first of all these has failed, those that have not go before those that have.
    """
    routing = call.request.routing
    first = _Draw.of(rule, call, pin=routing.variant)
    reasons = [] if call.request.model else ["no model is named, so the default answers"]
    reasons.extend(first.reasons)
    steps = {first.variant.deployment: Step(first.variant.deployment, first.variant.name)}
    if routing.no_fallback:
        if rule.fallback:
            reasons.append("the request refuses fallbacks")
    else:
        for step in _fallbacks(rule, call, rules):
            steps.setdefault(step.deployment, step)
        if len(steps) > 1:
            names = ", then ".join(f"`{step.deployment}`" for step in list(steps.values())[1:])
            reasons.append(f"falls back to {names}")
    shadows = () if routing.no_shadow else rule.shadows
    reasons.extend(_copied(rule, shadows))
    order, why = _healthy_first(tuple(steps.values()), failed)
    reasons.extend(why)
    if not rule.wait_for_load and len(order) > 1:
        order = (*(replace(step, wait_for_load=False) for step in order[:-1]), order[-1])
        reasons.append("a model that is not loaded yet leaves the call to the next one")
    return Decision(
        requested=rule.id,
        steps=order,
        reasons=tuple(reasons),
        variant=first.variant.name,
        sticky_by=first.sticky_by,
        hash_point=first.point,
        probability=None if first.point is None else rule.share(first.variant),
        held_out=first.held_out,
        shadows=shadows,
        copies=tuple(each for each in shadows if _drawn(rule, each, call)),
    )


@lru_cache(1024)
def shares(variants: tuple[Variant, ...]) -> tuple[tuple[str, float], ...]:
    """Each variant's name and part of the traffic, by name; the parts add up to 1."""
    weights = math.fsum(variant.weight for variant in variants)
    return tuple(sorted((variant.name, variant.weight / weights) for variant in variants))


def hash_point(salt: str, key: str) -> float:
    """Where `key` falls in [0, 1): uniform, the same for ever, and independent between salts.

    The first 53 bits of BLAKE2b (RFC 7693) over the salt's length, the salt and the key.
    """
    salt_bytes = salt.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(digest_size=8)
    digest.update(len(salt_bytes).to_bytes(4, "big") + salt_bytes + key.encode("utf-8", "surrogatepass"))
    return float(int.from_bytes(digest.digest(), "big") >> 11) / float(1 << 53)


def fall(variants: tuple[Variant, ...], point: float) -> Variant:
    """The variant that `point` falls to, each with the probability of its share; one at least has a weight.

    Weighted rendezvous hashing (C. Schindelhauer and G. Schomaker, "Weighted Distributed Hash Tables", SPAA 2005, the
    logarithmic method): each variant draws a time from the point and its own name, exponentially distributed at the
    rate of its weight, and the earliest has the point. A weight that changes moves that variant's time alone. So a
    variant that grows only gains points and one that shrinks only loses some, none changes between two others, and the
    order in which variants are declared says nothing.
    """
    key = repr(point)  # the shortest text that reads back as the same number
    taken = [variant for variant in variants if variant.weight > 0]
    return min(taken, key=lambda variant: -math.log1p(-hash_point(variant.name, key)) / variant.weight)


def variant_at(rule: Rule, point: float) -> Variant:
    """The variant of a rule that `point` falls to.

    Both versions of a rollout are one arm of the split. Inside of it the new one has the low end of [0, 1), up to its
    part of their weight: widening it moves nobody back, and nobody of another variant at all.
    """
    if rule.rollout is None:
        return fall(rule.variants, point)
    named = {variant.name: variant for variant in rule.variants}
    old, new = named[rule.rollout.from_], named[rule.rollout.to]
    both = replace(old, weight=old.weight + new.weight)
    others = (variant for variant in rule.variants if variant is not old and variant is not new)
    found = fall((both, *others), point)
    if found is not both:
        return found
    return new if point * both.weight < new.weight else old


@dataclass(frozen=True, slots=True)
class _Draw:
    """The variant of one route for one request."""

    variant: Variant
    reasons: tuple[str, ...]
    sticky_by: str = ""
    point: float | None = None
    held_out: str = ""

    @classmethod
    def of(cls, rule: Rule, call: Call, pin: str = "") -> _Draw:
        only = rule.variants[0]
        if not only.name:
            what = f"`{rule.id}` is a model" if rule.direct else f"`{rule.id}` is another name of `{only.deployment}`"
            if pin:
                raise InvalidArgument("routing.variant", f"{what} and has no variants")
            return cls(only, (what,))
        count = len(rule.variants)
        what = f"`{rule.id}` is a route with {count} variant{'s' if count > 1 else ''}"
        if pin:
            return cls(_pinned(rule, pin), (what, f"pinned to `{pin}` by the request"))
        sticky_by, key = _sticky_key(rule.sticky_by, call)
        held_out, why = _held_out(rule, key)
        if held_out:
            control = rule.control_variant
            kept = f"keyed on {sticky_by}: {why}, so it gets the control `{control.name}`"
            return cls(control, (what, kept), sticky_by, held_out=held_out)
        point = hash_point(rule.id, key)
        variant = variant_at(rule, point)
        keyed = f"keyed on {sticky_by}: {point:.3f} falls to `{variant.name}` (share {rule.share(variant):.3g})"
        return cls(variant, (what, keyed), sticky_by, point)


def _held_out(rule: Rule, key: str) -> tuple[str, str]:
    """By what a key is kept out of the experiment, and why in words; empty where it takes part.

    Both draws have salts of their own, so that they say nothing about the variant. A holdout takes the low end:
    widening it brings nobody back in.
    """
    if rule.layer is not None:
        point = hash_point(f"layer {rule.layer.name}", key)
        if not rule.layer.low <= point < rule.layer.high:
            return "layer", f"{point:.3f} of the layer `{rule.layer.name}` is outside of this route's part"
    if rule.holdout and hash_point(f"holdout {rule.id}", key) < rule.holdout:
        return "holdout", f"in the holdout of {rule.holdout:.3g}"
    return "", ""


def _copied(rule: Rule, shadows: tuple[Shadow, ...]) -> Iterator[str]:
    if rule.shadows and not shadows:
        yield "the request refuses shadows"
    for shadow in shadows:
        yield f"`{shadow.deployment}` gets copies of {shadow.sample:.3g} of the calls"


def _drawn(rule: Rule, shadow: Shadow, call: Call) -> bool:
    """Whether a shadow gets a copy of this call; each call falls anew, whoever made it."""
    return shadow.sample >= 1 or hash_point(f"shadow {rule.id} {shadow.deployment}", call.request_id) < shadow.sample


def _pinned(rule: Rule, pin: str) -> Variant:
    if not rule.allow_pin:
        raise PermissionDenied(f"routing.variant: `{rule.id}` lets no request choose its variant")
    for variant in rule.variants:
        if variant.name == pin:
            return variant
    names = ", ".join(f"`{variant.name}`" for variant in rule.variants)
    raise InvalidArgument("routing.variant", f"`{rule.id}` has no variant `{clip(pin, 80)}`; it has {names}")


def _sticky_key(sticky_by: tuple[StickyKey, ...], call: Call) -> tuple[str, str]:
    """The first key that the call has, in the route's order; else the request ID, so that calls spread."""
    for name in sticky_by:
        if name == "request":
            break
        if name.startswith(HEADER_KEY):
            value = call.headers.get(name.removeprefix(HEADER_KEY), "")
        else:
            value = str(getattr(call.request.routing, name))
        if value:
            return name, value
    return "request", call.request_id


def _fallbacks(rule: Rule, call: Call, rules: Mapping[str, Rule]) -> Iterator[Step]:
    """Depth first; the configuration has no circles."""
    for name in rule.fallback:
        below = rules[name]
        draw = _Draw.of(below, call)
        yield Step(draw.variant.deployment, draw.variant.name, fallback=True)
        yield from _fallbacks(below, call, rules)


def _healthy_first(steps: tuple[Step, ...], failed: Callable[[str], bool]) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The steps in the order in which they are tried, with a word where that is not the plan's own."""
    first = steps[0]
    if len(steps) == 1 or not failed(first.deployment):
        return steps, ()
    healthy = tuple(step for step in steps[1:] if not failed(step.deployment))
    if not healthy:
        return steps, (f"neither `{first.deployment}` nor what it falls back to has a healthy replica",)
    others = tuple(step for step in steps if step not in healthy)
    return (*healthy, *others), (
        f"`{first.deployment}` has no healthy replica, so `{healthy[0].deployment}` is tried first",
    )
