"""What may be said of a route: variants, shadows, fallbacks and who takes part."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from polyroute.core.config.rollouts import RolloutConfig
from polyroute.core.config.values import Name, Seconds, Section, Share, StickyKey


class VariantConfig(Section):
    """One arm of a route; weights are relative to each other."""

    name: Name
    model: Name
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)


class LayerConfig(Section):
    """The part of a layer that takes part in a route's experiment: keys that fall into `slice`, bounds in [0, 1].

    Routes that name one layer exclude each other: a key falls to the same point for all of them.
    """

    name: Name
    slice: tuple[float, float]

    @field_validator("slice")
    @classmethod
    def _bounds(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        low, high = bounds
        if not 0 <= low < high <= 1:
            raise ValueError(f"[{low:g}, {high:g}] is no part of [0, 1]; write one such as [0, 0.5]")
        return bounds


def _adaptive_metric(value: str) -> str:
    if not re.fullmatch(r"error_rate|feedback\.[A-Za-z0-9_.-]{1,64}", value):
        raise ValueError(f"`{value}` is neither error_rate nor feedback.NAME, with the name that callers' feedback has")
    return value


class AdaptiveConfig(Section):
    """How shares follow what is learnt: each variant gets the probability that it is the best, and `floor` at least.

    Best has the fewest errors (`metric: error_rate`), or the highest mean of what callers say (`feedback.NAME`: yes and
    no, or numbers between 0 and 1) over the last `window` seconds. Shares are reckoned anew every `every` seconds.
    """

    metric: Annotated[str, AfterValidator(_adaptive_metric)] = "error_rate"
    floor: Annotated[Share, Field(gt=0, lt=0.5)] = 0.1
    every: Seconds = 60.0
    window: Seconds = 7 * 86400.0


class ShadowConfig(Section):
    """A model that gets copies of a `sample` of a route's calls, 0 to 1, whose answers no caller sees.

    At most `max_concurrency` copies are made at once and `max_queue` wait; each has `timeout` seconds, its wait among
    them.
    """

    model: Name
    sample: Annotated[Share, Field(gt=0, le=1)] = 1.0
    max_concurrency: int = Field(default=4, ge=1, le=1024)
    max_queue: int = Field(default=64, ge=0, le=4096)
    timeout: Seconds = 60.0


class RouteConfig(Section):
    """A name that callers may send as `model`, with the rule behind it: an alias of one `model`, or `variants`.

    The others are compared with the variant `control`, the first where it is None. A share of the keys, `holdout`, and
    the keys outside of the `layer`'s slice, are kept out of the experiment and get the control.
    """

    id: Name
    model: Name | None = None
    variants: tuple[VariantConfig, ...] = ()
    sticky_by: tuple[StickyKey, ...] = ("user", "session", "affinity_key")
    fallback: tuple[Name, ...] = ()
    when_cold: Literal["wait", "fallback"] = "wait"
    rollout: RolloutConfig | None = None
    adaptive: AdaptiveConfig | None = None
    control: Name | None = None
    holdout: Annotated[Share, Field(ge=0, lt=1)] = 0.0
    layer: LayerConfig | None = None
    allow_pin: bool = True
    record_content: bool = False
    shadow: tuple[ShadowConfig, ...] = Field(default=(), max_length=8)

    @field_validator("shadow")
    @classmethod
    def _shadows(cls, shadows: tuple[ShadowConfig, ...]) -> tuple[ShadowConfig, ...]:
        models = [shadow.model for shadow in shadows]
        if len(set(models)) != len(models):
            raise ValueError("a model is listed twice")
        return shadows

    @model_validator(mode="after")
    def _experiment(self) -> Self:
        names = [variant.name for variant in self.variants]
        for name in names:
            if name.startswith("("):
                raise ValueError(f"a variant is named `{name}`; records name those kept out like that, as (holdout)")
        if self.control is not None and self.control not in names:
            raise ValueError(f"`control` is `{self.control}`, which is none of the variants")
        if (self.holdout or self.layer is not None) and not names:
            raise ValueError("`holdout` and `layer` keep keys out of an experiment; there is none without `variants`")
        return self

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.adaptive is None:
            return self
        if self.rollout is not None:
            raise ValueError("`rollout` and `adaptive` both move traffic; give one of them")
        count = len(self.variants)
        if count < 2:
            raise ValueError("`adaptive` needs two variants at least")
        if self.adaptive.floor * count >= 1:
            floor = f"`adaptive.floor` is {self.adaptive.floor:g}"
            raise ValueError(f"{floor}; {count} variants need less than {1 / count:.3g}")
        return self

    @model_validator(mode="after")
    def _rolled_out(self) -> Self:
        if self.rollout is None:
            return self
        weights = {variant.name: variant.weight for variant in self.variants}
        for key, name in (("from", self.rollout.from_), ("to", self.rollout.to)):
            if name not in weights:
                raise ValueError(f"`rollout.{key}` is `{name}`, which is none of the variants")
        if self.rollout.from_ == self.rollout.to:
            raise ValueError(f"`rollout` goes from `{self.rollout.to}` to itself")
        if not weights[self.rollout.from_] + weights[self.rollout.to]:
            raise ValueError("`rollout` has no traffic to move: the weights of `from` and `to` are 0")
        return self

    @model_validator(mode="after")
    def _arms(self) -> Self:
        if self.when_cold == "fallback" and not self.fallback:
            raise ValueError("`when_cold: fallback` needs a `fallback` to answer meanwhile")
        if self.model is not None:
            if self.variants:
                raise ValueError("give `model` or `variants`, not both")
            return self
        if not self.variants:
            raise ValueError("`model` or `variants` is required")
        names = [v.name for v in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("two variants have the same name")
        if not any(v.weight > 0 for v in self.variants):
            raise ValueError("every weight is 0: no variant would get traffic")
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """The models behind it, fallbacks apart."""
        return (self.model,) if self.model is not None else tuple(variant.model for variant in self.variants)
