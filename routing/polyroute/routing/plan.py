"""Which deployments may answer a call, in which order, and why: pure functions, without clock, chance or I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from polyroute.core.config import StickyKey
from polyroute.core.errors import InvalidArgument, clip
from polyroute.core.request import Request


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm of a route: the deployment that serves it, and its share of the traffic, 0 to 1."""

    name: str
    deployment: str
    share: float


@dataclass(frozen=True, slots=True)
class Rule:
    """What a name that callers send stands for. A model's own name is a rule with one unnamed variant."""

    id: str
    variants: tuple[Variant, ...]
    sticky_by: tuple[StickyKey, ...] = ()
    fallback: tuple[str, ...] = ()
    direct: bool = False
    wait_for_load: bool = True


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
    """

    requested: str
    steps: tuple[Step, ...]
    reasons: tuple[str, ...]
    variant: str = ""
    sticky_by: str = ""
    hash_point: float | None = None
    probability: float | None = None


def decide(rule: Rule, request: Request, request_id: str, rules: Mapping[str, Rule]) -> Decision:
    """Plans a call that asked for `rule`; `rules` holds every name. Raises `InvalidArgument` for an unknown variant.

    The first step is the variant that the call falls to; the route's fallbacks follow in order, unless the request
    refuses them. A fallback that is a route adds the variant that the call falls to there, then its own fallbacks.
    """
    first = _Draw.of(rule, request, request_id, pin=request.routing.variant)
    reasons = [] if request.model else ["no model is named, so the default answers"]
    reasons.extend(first.reasons)
    steps = {first.variant.deployment: Step(first.variant.deployment, first.variant.name)}
    if request.routing.no_fallback:
        if rule.fallback:
            reasons.append("the request refuses fallbacks")
    else:
        for step in _fallbacks(rule, request, request_id, rules):
            steps.setdefault(step.deployment, step)
        if len(steps) > 1:
            names = ", then ".join(f"`{step.deployment}`" for step in list(steps.values())[1:])
            reasons.append(f"falls back to {names}")
    ordered = list(steps.values())
    if not rule.wait_for_load and len(ordered) > 1:
        ordered[:-1] = [replace(step, wait_for_load=False) for step in ordered[:-1]]
        reasons.append("a model that is not loaded yet leaves the call to the next one")
    return Decision(
        requested=rule.id,
        steps=tuple(ordered),
        reasons=tuple(reasons),
        variant=first.variant.name,
        sticky_by=first.sticky_by,
        hash_point=first.point,
        probability=None if first.point is None else first.variant.share,
    )


def hash_point(salt: str, key: str) -> float:
    """Where `key` falls in [0, 1): uniform, the same for ever, and independent between salts.

    The first 53 bits of BLAKE2b (RFC 7693) over the salt's length, the salt and the key.
    """
    salt_bytes = salt.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(digest_size=8)
    digest.update(len(salt_bytes).to_bytes(4, "big") + salt_bytes + key.encode("utf-8", "surrogatepass"))
    return float(int.from_bytes(digest.digest(), "big") >> 11) / float(1 << 53)


def fall(variants: tuple[Variant, ...], point: float) -> Variant:
    """The variant that `point` falls to: shares are laid end to end, in the order in which they are declared.

    So the first variant keeps every key that it had when its weight grows.
    """
    upper = 0.0
    taken = [variant for variant in variants if variant.share > 0]
    for variant in taken:
        upper += variant.share
        if point < upper:
            return variant
    return taken[-1]  # shares may add up to a hair less than 1


@dataclass(frozen=True, slots=True)
class _Draw:
    """The variant of one route for one request."""

    variant: Variant
    reasons: tuple[str, ...]
    sticky_by: str = ""
    point: float | None = None

    @classmethod
    def of(cls, rule: Rule, request: Request, request_id: str, pin: str = "") -> _Draw:
        if rule.direct:
            if pin:
                raise InvalidArgument("routing.variant", f"`{rule.id}` is a model and has no variants")
            return cls(rule.variants[0], (f"`{rule.id}` is a model",))
        count = len(rule.variants)
        what = f"`{rule.id}` is a route with {count} variant{'s' if count > 1 else ''}"
        if pin:
            return cls(_pinned(rule, pin), (what, f"pinned to `{pin}` by the request"))
        sticky_by, key = _sticky_key(rule.sticky_by, request, request_id)
        point = hash_point(rule.id, key)
        variant = fall(rule.variants, point)
        keyed = f"keyed on {sticky_by}: {point:.3f} falls to `{variant.name}` (share {variant.share:.3g})"
        return cls(variant, (what, keyed), sticky_by, point)


def _pinned(rule: Rule, pin: str) -> Variant:
    for variant in rule.variants:
        if variant.name == pin:
            return variant
    names = ", ".join(f"`{variant.name}`" for variant in rule.variants)
    raise InvalidArgument("routing.variant", f"`{rule.id}` has no variant `{clip(pin, 80)}`; it has {names}")


def _sticky_key(sticky_by: tuple[StickyKey, ...], request: Request, request_id: str) -> tuple[str, str]:
    """The first key that the request has, in the route's order; else the request ID, so that calls spread."""
    for name in sticky_by:
        value = request_id if name == "request" else str(getattr(request.routing, name))
        if value:
            return name, value
    return "request", request_id


def _fallbacks(rule: Rule, request: Request, request_id: str, rules: Mapping[str, Rule]) -> Iterator[Step]:
    """Depth first; the configuration has no circles."""
    for name in rule.fallback:
        below = rules[name]
        draw = _Draw.of(below, request, request_id)
        yield Step(draw.variant.deployment, draw.variant.name, fallback=True)
        yield from _fallbacks(below, request, request_id, rules)
