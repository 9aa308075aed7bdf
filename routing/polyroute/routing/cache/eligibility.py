"""Whether a request may be answered from the cache, and its answer be stored: a pure decision, with its reason."""

from __future__ import annotations

import msgspec

from polyroute.core.backend import Facts
from polyroute.core.config import CacheConfig
from polyroute.core.request import CacheMode, Request


class Use(msgspec.Struct, frozen=True, gc=False):
    """What a request may do with the cache, and why, in words."""

    read: bool
    write: bool
    reason: str


def eligibility(request: Request, config: CacheConfig, facts: Facts, *, local: bool) -> Use:
    """What `request` may do with the cache of a deployment; `facts` are its backend's."""
    mode = request.cache.mode
    if mode is CacheMode.BYPASS:
        return Use(False, False, "cache: bypassed, as the request asks")
    if config.mode == "off":
        return Use(False, False, "cache: off for this model")
    if not facts.version:
        return Use(False, False, "cache: not used, the model's version is not known now")
    if mode is CacheMode.REFRESH:
        return Use(False, True, "cache: refreshed, as the request asks")
    if mode is CacheMode.ONLY_IF_CACHED:
        return Use(True, False, "cache: read only, as the request asks")
    if config.mode == "always":
        return Use(True, True, "cache: used for every request to this model")
    if config.mode == "opt_in":
        return Use(False, False, "cache: not used, the request does not ask for it and the model demands that")
    deterministic, why = _deterministic(request, facts, local=local)
    return Use(deterministic, deterministic, f"cache: {'used' if deterministic else 'not used'}, {why}")


def _deterministic(request: Request, facts: Facts, *, local: bool) -> tuple[bool, str]:
    sampling = request.sampling
    if sampling.temperature == 0:
        return True, "temperature 0 is deterministic"
    if local and sampling.seed is not None:
        return True, "a seed on a local model is deterministic"
    if sampling.temperature is not None:
        return False, f"sampling at temperature {sampling.temperature:g} is not deterministic"
    if not local:
        return False, "without a temperature the peer may sample"
    if facts.greedy_default:
        return True, "the model is greedy by default"
    return False, "without a temperature the model samples"
