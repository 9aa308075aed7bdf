"""Random numbers that hang on a seed, a place in an answer and a token's ID, and on nothing else.

They are a hash of these three (SplitMix64: Steele, Lea and Flood, 2014), so they are the same in any batch, on any
device and in any process, and none is made that nobody looks at.
"""

from __future__ import annotations

from typing import Final

import torch

_WORD: Final = 1 << 64
_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def key(seed: int, place: int) -> int:
    """Stands for the noise of all tokens at one place of an answer: 64 bits, as torch's int64 takes them."""
    return _signed(_mixed(_mixed(seed % _WORD) + (place + 1) * _GAMMA))


def gumbel(keys: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Noise of the standard Gumbel distribution for `ids` (int64 [n, m]) under `keys` (int64 [n, 1]), as float64."""
    bits = keys + (ids + 1) * _signed(_GAMMA)
    for shift, factor in _MIX:
        bits = (bits ^ _shifted(bits, shift)) * _signed(factor)
    bits = bits ^ _shifted(bits, 31)
    uniform = (_shifted(bits, 12).double() + 0.5) * 2.0**-52
    return uniform.log_().neg_().log_().neg_()


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Unsigned shift to the right; torch's own keeps the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _mixed(bits: int) -> int:
    bits %= _WORD
    for shift, factor in _MIX:
        bits = (bits ^ (bits >> shift)) * factor % _WORD
    return bits ^ (bits >> 31)


def _signed(bits: int) -> int:
    return bits - _WORD if bits >= _WORD // 2 else bits
