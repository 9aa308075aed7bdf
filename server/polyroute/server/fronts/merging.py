"""One `/metrics` of several processes: counts are added up, and gauges as each of them means it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

from msgspec import structs
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.samples import Sample as PrometheusSample

from polyroute.core import telemetry
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.server.fronts.messages.exposing import Family, Sample

Rule: TypeAlias = Literal["sum", "max", "min", "home", "tiers"]
"""`home` takes the home's alone. `tiers` is over the fronts, which have a tier in memory each and share all others."""

_HOME: Final = (
    telemetry.PERMITS,
    telemetry.PERMIT_LIMIT,
    telemetry.QUEUED,
    telemetry.QUEUE_LIMIT,
    telemetry.MODEL_STATE,
    telemetry.REPLICAS,
    telemetry.MEMORY_HELD,
    telemetry.MEMORY_BUDGET,
    telemetry.CONFIG,
    telemetry.CONFIG_LOADED,
    telemetry.CONFIG_RELOADS,
    telemetry.BUILD,
    telemetry.VARIANT_SHARE,
    telemetry.ROLLOUT_STATE,
    telemetry.ROLLOUT_WEIGHT,
    telemetry.ROLLOUT_MOVES,
)

_RULES: Final[Mapping[str, Rule]] = {
    **{metric.name: "home" for metric in _HOME},
    telemetry.CACHE_TIER_BYTES.name: "tiers",
    telemetry.CACHE_TIER_LIMIT.name: "tiers",
    telemetry.CACHE_TIER_USED.name: "min",
    telemetry.REPLICA_WEIGHT.name: "min",
    telemetry.REPLICA_BREAKER.name: "max",
    "process_start_time_seconds": "min",
    "process_max_fds": "min",
    "python_info": "max",
}
"""Of everything that is not to be added up."""

_COUNTED: Final = ("counter", "histogram")
_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


def told(collector: Collector) -> list[Family]:
    """What a process has on its registry. To be taken in a thread: it may take long."""
    return [
        Family(family.name, family.documentation, family.type, family.unit, [*map(_sample, family.samples)])
        for family in collector.collect()
    ]


def counted(families: Iterable[Family]) -> list[Family]:
    """The part that only grows, and that must not shrink when the process is gone."""
    return [family for family in families if family.kind in _COUNTED and _RULES.get(family.name) != "home"]


def merged(home: Iterable[Family], fronts: Iterable[Iterable[Family]], names: Collection[str] = ()) -> list[Family]:
    """The families of all processes as if they were one; where `names` are given, the samples of these alone."""
    of_home = {family.name: family for family in home}
    found: dict[str, list[Family]] = {name: [] for name in of_home}
    for front in fronts:
        for family in front:
            found.setdefault(family.name, []).append(family)
    whole = [_one(_RULES.get(name, "sum"), of_home.get(name), found[name]) for name in found]
    return [*_named(whole, set(names))] if names else whole


def _named(families: Iterable[Family], names: Collection[str]) -> Iterator[Family]:
    for family in families:
        samples = [sample for sample in family.samples if sample.name in names]
        if samples:
            yield structs.replace(family, samples=samples)


class Exposition(Collector):
    """Families as the Prometheus client's encoders take them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[MetricFamily]:
        for family in self._families:
            out = MetricFamily(family.name, family.help, family.kind, family.unit)
            out.samples = [*map(_prometheus, family.samples)]
            yield out


def _one(rule: Rule, home: Family | None, fronts: list[Family]) -> Family:
    if rule == "home" and home is not None:
        return home
    parts = fronts if home is None or (rule == "tiers" and fronts) else [home, *fronts]
    samples: dict[_Key, Sample] = {}
    for part in parts:
        for sample in part.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            other = samples.get(key)
            samples[key] = sample if other is None else _joined(rule, other, sample)
    first = parts[0]
    return Family(first.name, first.help, first.kind, first.unit, _in_order(first.kind, samples))


def _joined(rule: Rule, one: Sample, other: Sample) -> Sample:
    exemplar = max(
        (s.exemplar for s in (one, other) if s.exemplar is not None), key=lambda e: e[2] or 0.0, default=None
    )
    return Sample(one.name, one.labels, _combined(rule, one, other), exemplar)


def _combined(rule: Rule, one: Sample, other: Sample) -> float:
    if rule == "min":
        return min(one.value, other.value)
    if rule == "max" or (rule == "tiers" and one.labels.get("tier") != MemoryTier.name):
        return max(one.value, other.value)
    return one.value + other.value


def _in_order(kind: str, samples: Mapping[_Key, Sample]) -> list[Sample]:
    """All samples of one series together, which a histogram's encoding needs."""
    if kind != "histogram":
        return list(samples.values())
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples.values():
        labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        series.setdefault(labels, []).append(sample)
    return [sample for of_one in series.values() for sample in of_one]


def _sample(sample: PrometheusSample) -> Sample:
    found = sample.exemplar
    exemplar = None if found is None else (dict(found.labels), found.value, _seconds(found.timestamp))
    return Sample(sample.name, dict(sample.labels), float(sample.value), exemplar)


def _prometheus(sample: Sample) -> PrometheusSample:
    exemplar = None if sample.exemplar is None else Exemplar(*sample.exemplar)
    return PrometheusSample(sample.name, sample.labels, sample.value, None, exemplar)


def _seconds(timestamp: object) -> float | None:
    return None if timestamp is None else float(timestamp)  # type: ignore[arg-type]
