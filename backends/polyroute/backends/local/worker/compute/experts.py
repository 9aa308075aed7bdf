"""The experts of a mixture, each one's weights packed like a linear layer's."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from polyroute.backends.local.worker.compute.layers import Maker

_TRIED = 4  # rows that are compared
_TOLERANCE = 0.05  # of the results' norm: more than 8 bits lose
_COARSE = 0.3  # the same, for 4 bits


class Experts(nn.Module):
    """Takes the place of what transformers calls experts: (x [rows, hidden], chosen experts [rows, k], their weights
    [rows, k]) -> [rows, hidden], float32."""

    def __init__(self, own: Any, maker: Maker) -> None:
        super().__init__()
        self.num_experts = int(own.gate_up_proj.shape[0])
        self._gate = type(own)._apply_gate
        self._like = (own,)  # the gate is a method of it; it is no part of this module, and loses its weights
        self._first = [maker.make(*_expert(own, "gate_up_proj", i), False) for i in range(self.num_experts)]
        self._second = [maker.make(*_expert(own, "down_proj", i), False) for i in range(self.num_experts)]

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        rows: dict[int, list[int]] = defaultdict(list)
        places: dict[int, list[int]] = defaultdict(list)
        for row, chosen in enumerate(top_k_index.tolist()):
            for place, expert in enumerate(chosen):
                if expert < self.num_experts:  # beyond: none
                    rows[expert].append(row)
                    places[expert].append(place)
        out = torch.zeros_like(hidden_states)
        for expert in sorted(rows):
            index = torch.tensor(rows[expert])
            gated = self._gate(self._like[0], self._first[expert].run(hidden_states[index]))
            weight = top_k_weights[index, torch.tensor(places[expert])]
            out.index_add_(0, index, self._second[expert].run(gated) * weight[:, None])
        return out


def packed_experts(own: Any, maker: Maker) -> Experts | None:
    """Experts in the place of `own`, a module of a kind that transformers lays out alike in all its models; None where
    it is none, or where the results differ by more than rounding."""
    if not _known(own):
        return None
    made = Experts(own, maker)
    generator = torch.Generator().manual_seed(0)
    hidden = own.gate_up_proj.shape[1 if own.is_transposed else 2]
    x = torch.randn(_TRIED, hidden, generator=generator).to(own.gate_up_proj.dtype)
    chosen = torch.stack([torch.randperm(made.num_experts, generator=generator)[:2] for _ in range(_TRIED)])
    weights = torch.rand(chosen.shape, generator=generator).to(x.dtype)
    with torch.inference_mode():
        wanted = own(x, chosen, weights).float()
        found = made(x.float(), chosen, weights.float())
    tolerance = _COARSE if maker.coarse else _TOLERANCE
    if not float((found - wanted).norm()) <= tolerance * float(wanted.norm()):
        return None
    for name in [name for name, parameter in own.named_parameters(recurse=False) if parameter.dim() > 1]:
        delattr(own, name)
    return made


def _known(own: Any) -> bool:
    """Whether it is a gated set of experts as `transformers.integrations.moe` describes them."""
    return (
        getattr(own, "has_gate", False)
        and not own.has_post_expert_norm
        and hasattr(own, "_apply_gate")
        and all(isinstance(getattr(own, name, None), nn.Parameter) for name in ("gate_up_proj", "down_proj"))
        and own.gate_up_proj.dim() == 3
    )


def _expert(own: Any, name: str, index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights [outputs, inputs] and bias of one expert's layer."""
    weight = getattr(own, name).detach()[index]
    bias = getattr(own, f"{name}_bias").detach()[index] if own.has_bias else None
    return (weight.t() if own.is_transposed else weight), bias
