"""Rendezvous hashing: which of several names a key belongs to, the same in every process and for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_MASK: Final = (1 << 64) - 1


def highest(key: str, names: Iterable[str]) -> str:
    """The name that scores highest for `key`; `names` holds at least one, in whatever order.

    D. G. Thaler and C. V. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 6(1), 1998. A
    name that is added takes 1/n of the keys, from all others alike; one that is removed leaves its own to them, and no
    other key moves.
    """
    keyed = _digest(key)
    return max(names, key=lambda name: (_mixed(keyed ^ _named(name)), name))


@lru_cache(maxsize=4096)
def _named(name: str) -> int:
    return _digest(name)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _mixed(bits: int) -> int:
    """All 64 bits depend on each: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _MASK
    return bits ^ (bits >> 31)
