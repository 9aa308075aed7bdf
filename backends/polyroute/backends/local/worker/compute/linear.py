"""Linear and embedding layers over packed weights, in the place of torch's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from polyroute.backends.local.worker.compute.kernels import Layer


class Linear(nn.Module):
    """Takes the place of `nn.Linear`, float32 in and out: [..., in_features] -> [..., out_features]."""

    def __init__(self, layer: Any, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.bias = None  # added by the layer
        self.forward = layer.run  # spares a call
        self.layer = layer
        # Models ask for its dtype, device and shape; whoever computes with it shall see that there is nothing.
        self.weight = torch.full((), float("nan")).expand(out_features, in_features)


class Part(nn.Module):
    """One of several linear layers of the same input whose weights lie together: the first call computes for all."""

    def __init__(self, whole: Whole, place: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.bias = None
        self.weight = torch.full((), float("nan")).expand(out_features, in_features)
        self._whole = (whole,)  # a tuple, since it is no part of this module
        self._place = place

    @property
    def whole(self) -> Whole:
        """The product that this is a part of."""
        return self._whole[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._whole[0].part(x, self._place)


class Whole:
    """The product of several linear layers at once, handed out in parts.

    What was computed stays until each part has been fetched once for the very same input, and the first part's fetch
    always begins anew: so nothing is held between forward passes, and nothing stale is ever returned.
    """

    def __init__(self, layer: Any, sizes: list[int]) -> None:
        self.layer = layer
        self._sizes = sizes
        self._input: torch.Tensor | None = None
        self._left: dict[int, torch.Tensor] = {}

    def part(self, x: torch.Tensor, place: int) -> torch.Tensor:
        if place == 0 or x is not self._input or place not in self._left:
            self._input = x
            self._left = dict(enumerate(self.layer.run(x).split(self._sizes, -1)))
        found = self._left.pop(place)
        if not self._left:
            self._input = None
        return found


class Embedding(nn.Module):
    """Looks rows up in the packed weights of the output layer, which it shares: ids [...] -> float32 [..., width],
    times `scale`."""

    def __init__(self, layer: Layer, scale: float) -> None:
        super().__init__()
        self.num_embeddings = layer.packed.out_features
        self.embedding_dim = layer.packed.in_features
        self.weight = torch.full((), float("nan")).expand(self.num_embeddings, self.embedding_dim)
        self._layer = layer
        self._scale = scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = self._layer.form.unpack(self._layer.packed, ids)
        return rows if self._scale == 1 else rows.mul_(self._scale)
