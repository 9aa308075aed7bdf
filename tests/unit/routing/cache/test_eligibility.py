"""Which requests may be answered from the cache, by their mode and the deployment's."""

from __future__ import annotations

import pytest

from polyroute.core.backend import Facts, ModelState
from polyroute.core.config import CacheConfig
from polyroute.core.request import CacheMode, CacheOptions, Request, Sampling
from polyroute.routing.cache.eligibility import eligibility

GREEDY, SEEDED, SAMPLED, PLAIN = (
    Sampling(temperature=0),
    Sampling(temperature=0.7, seed=1),
    Sampling(temperature=0.7),
    Sampling(),
)


def use(
    mode: str = "deterministic",
    asks: CacheMode = CacheMode.UNSPECIFIED,
    sampling: Sampling = GREEDY,
    *,
    local: bool = True,
    version: str = "v1",
    greedy_default: bool = False,
) -> tuple[bool, bool, str]:
    facts = Facts(ModelState.WARM, version=version, greedy_default=greedy_default)
    request = Request(prompt="hi", sampling=sampling, cache=CacheOptions(asks))
    decided = eligibility(request, CacheConfig(mode=mode), facts, local=local)  # type: ignore[arg-type]
    return decided.read, decided.write, decided.reason


@pytest.mark.parametrize(
    ("sampling", "local", "greedy_default", "eligible", "reason"),
    [
        (GREEDY, True, False, True, "cache: used, temperature 0 is deterministic"),
        (GREEDY, False, False, True, "cache: used, temperature 0 is deterministic"),
        (SEEDED, True, False, True, "cache: used, a seed on a local model is deterministic"),
        (SEEDED, False, False, False, "cache: not used, sampling at temperature 0.7 is not deterministic"),
        (SAMPLED, True, True, False, "cache: not used, sampling at temperature 0.7 is not deterministic"),
        (PLAIN, True, True, True, "cache: used, the model is greedy by default"),
        (PLAIN, True, False, False, "cache: not used, without a temperature the model samples"),
        (PLAIN, False, True, False, "cache: not used, without a temperature the peer may sample"),
        (Sampling(seed=1), False, False, False, "cache: not used, without a temperature the peer may sample"),
    ],
)
def test_only_deterministic_answers_by_default(
    sampling: Sampling, local: bool, greedy_default: bool, eligible: bool, reason: str
) -> None:
    assert use(sampling=sampling, local=local, greedy_default=greedy_default) == (eligible, eligible, reason)


@pytest.mark.parametrize(
    ("mode", "asks", "read", "write"),
    [
        ("deterministic", CacheMode.BYPASS, False, False),
        ("deterministic", CacheMode.REFRESH, False, True),
        ("deterministic", CacheMode.ONLY_IF_CACHED, True, False),
        ("opt_in", CacheMode.UNSPECIFIED, False, False),
        ("opt_in", CacheMode.BYPASS, False, False),
        ("opt_in", CacheMode.REFRESH, False, True),
        ("opt_in", CacheMode.ONLY_IF_CACHED, True, False),
        ("always", CacheMode.UNSPECIFIED, True, True),
        ("always", CacheMode.BYPASS, False, False),
        ("always", CacheMode.REFRESH, False, True),
        ("off", CacheMode.UNSPECIFIED, False, False),
        ("off", CacheMode.BYPASS, False, False),
        ("off", CacheMode.REFRESH, False, False),
        ("off", CacheMode.ONLY_IF_CACHED, False, False),
    ],
)
def test_what_the_request_asks_for_within_what_the_deployment_allows(
    mode: str, asks: CacheMode, read: bool, write: bool
) -> None:
    assert use(mode, asks, SAMPLED)[:2] == (read, write)


@pytest.mark.parametrize("asks", list(CacheMode))
def test_without_a_version_there_is_no_key(asks: CacheMode) -> None:
    assert use("always", asks, version="")[:2] == (False, False)
