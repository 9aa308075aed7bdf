"""What each model does now, out of two scrapes of `/metrics`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from polyroute.client.exposition import Sample, Samples

_REQUESTS: Final = "polyroute_requests_total"
_FIRST_TOKEN: Final = "gen_ai_server_time_to_first_token_seconds_bucket"  # noqa: S105 - the name of a metric
_TOKENS: Final = "gen_ai_client_token_usage_sum"
_PERMITS: Final = "polyroute_permits_limit"
_IN_USE: Final = "polyroute_permits_in_use"
_QUEUED: Final = "polyroute_queued"
_OF_THE_CACHE: Final = ("hit", "coalesced")
NEEDED: Final = (_REQUESTS, _FIRST_TOKEN, _TOKENS, _PERMITS, _IN_USE, _QUEUED)
"""Names of the samples that `loads` looks at."""

_NO_ERROR: Final = ("ok", "CANCELLED")


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model between two scrapes; what depends on calls is None where none has ended meanwhile.

    `calls` and `tokens`, the generated ones, are those a second; times to the first token are in seconds, and None
    where the cache gave every answer. `hits` and `errors` are shares of the calls, 0 to 1; a caller that left is no
    error.
    """

    model: str
    in_flight: int
    permits: int
    queued: int
    calls: float
    tokens: float
    first_token_p50_s: float | None
    first_token_p99_s: float | None
    hits: float | None
    errors: float | None


def loads(before: Samples, now: Samples, seconds: float) -> list[ModelLoad]:
    """Every model that the server has, by ID; `seconds` lie between the scrapes."""
    calls = _grown(_REQUESTS, "model", before, now)
    tokens = _grown(_TOKENS, "gen_ai_response_model", before, now)
    first = _grown(_FIRST_TOKEN, "gen_ai_response_model", before, now)
    return [
        _load(model, now, seconds, calls.get(model, []), tokens.get(model, []), first.get(model, []))
        for model in sorted(now.by("deployment", _PERMITS))
    ]


def quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """A quantile of a histogram, as PromQL's `histogram_quantile` has it: linear within the bucket that it falls into.

    `buckets` are upper bounds, the last of them infinite, and how many values were no larger. None where there are no
    values; the highest finite bound where it lies beyond.
    """
    ordered = sorted(buckets)
    if not ordered or ordered[-1][1] <= 0:
        return None
    rank, lower, below = q * ordered[-1][1], 0.0, 0.0
    for bound, count in ordered:
        if count >= rank:
            if bound == float("inf"):
                return lower
            return bound if count == below else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def _load(
    model: str, now: Samples, seconds: float, calls: list[Sample], tokens: list[Sample], first: list[Sample]
) -> ModelLoad:
    number = sum(each.value for each in calls)
    hits = sum(each.value for each in calls if each.labels["cache"] in _OF_THE_CACHE)
    errors = sum(each.value for each in calls if each.labels["outcome"] not in _NO_ERROR)
    buckets: defaultdict[float, float] = defaultdict(float)
    for each in first:
        buckets[float(each.labels["le"])] += each.value
    deployment = {"deployment": model}
    return ModelLoad(
        model=model,
        in_flight=int(now.value(_IN_USE, deployment)),
        permits=int(now.value(_PERMITS, deployment)),
        queued=int(now.value(_QUEUED, deployment)),
        calls=number / seconds,
        tokens=sum(each.value for each in tokens if _generated(each)) / seconds,
        first_token_p50_s=quantile(0.5, list(buckets.items())),
        first_token_p99_s=quantile(0.99, list(buckets.items())),
        hits=hits / number if number else None,
        errors=errors / number if number else None,
    )


def _generated(tokens: Sample) -> bool:
    kind, cache = tokens.labels["gen_ai_token_type"], tokens.labels["cache"]
    return kind == "output" and cache not in _OF_THE_CACHE


def _grown(name: str, label: str, before: Samples, now: Samples) -> dict[str, list[Sample]]:
    """By how much counters have grown, by one of their labels; one that is lower has begun anew, with its server."""

    def more(sample: Sample) -> Sample:
        known = before.value(name, sample.labels)
        return Sample(sample.labels, sample.value - known if sample.value >= known else sample.value)

    return {value: [more(sample) for sample in samples] for value, samples in now.by(label, name).items()}
