"""Steps an engine by hand and collects the tokens that come out; and what `generate` makes of the same prompts."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from polyroute.backends.local.messages import Finish, Rejected
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.forward.kv_cache import KVCache
from polyroute.backends.local.worker.sampling import SamplingDefaults
from polyroute.core.request import Sampling
from tests import tiny

CONTEXT = 512


def audit(memory: KVCache) -> None:
    """Counts anew, from the tensors themselves, what the memory of keys and values says about itself."""
    held = 0
    for slab in memory._slabs.values():
        held += sum(tensor.nbytes for tensor in (*slab.keys, *slab.values))
        assert len(slab.owners) <= slab.size
        assert {tensor.shape[0] for tensor in (*slab.keys, *slab.values)} == {slab.size}
        for slot, owner in enumerate(slab.owners):
            assert memory.place(owner) == (slab, slot)
            assert owner.processed <= slab.capacity
    assert sum(len(slab.owners) for slab in memory._slabs.values()) == len(memory._places)
    tokens = 0
    for node in memory.prefixes._nodes():
        assert node.parent is not None
        assert node.parent.children[node.tokens[0]] is node
        assert (
            {k.shape[2] for k in node.segment.keys} == {v.shape[1] for v in node.segment.values} == {len(node.tokens)}
        )
        for tensor in (*node.segment.keys, *node.segment.values):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes  # no view that holds on to more
            held += tensor.nbytes
        tokens += len(node.tokens)
    assert tokens == memory.prefixes.tokens
    assert held == memory.used_bytes <= memory.limit_bytes


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary(tiny.byte_level_tokenizer())


@cache
def _tokens() -> dict[bytes, int]:
    return {vocabulary().token_bytes(token): token for token in range(len(vocabulary().tokenizer))}


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """The next `count` tokens by transformers' own `generate`."""
    ids = torch.tensor([prompt])
    options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "eos_token_id": None}
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=1, **options)[0].tolist()
    return list(whole[len(prompt) :])


class Run:
    """An engine over `model`, which it takes over, and what it has answered: tokens, ends and rejections by ID."""

    def __init__(self, model: Any, **options: Any) -> None:
        options = {"context_length": CONTEXT, "eos": frozenset(), "defaults": SamplingDefaults()} | options
        options.setdefault("clock", lambda: 0.0)  # else how fast the machine is would decide on who takes part when
        self.engine = Engine(model, vocabulary(), **options)
        self.tokens: dict[int, list[int]] = {}
        self.finished: dict[int, Finish] = {}
        self.rejected: dict[int, Rejected] = {}

    def submit(self, id: int, prompt: list[int], count: int, **sampling: Any) -> None:
        """Asks for `count` tokens, the most probable ones unless `sampling` says otherwise."""
        asked = Sampling(**({"temperature": 0.0} | sampling), max_tokens=count, logprobs=0)
        assert self.engine.submit(id, prompt, asked) is None
        self.tokens[id] = []

    def cancel(self, id: int) -> None:
        self.engine.cancel(id)
        del self.tokens[id]

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            for output in self.engine.step():
                if isinstance(output, Rejected):
                    self.rejected[output.id] = output
                    continue
                assert output.id not in self.finished
                self.tokens[output.id] += [_tokens()[entry.token_bytes] for entry in output.logprobs]
                if output.finish is not None:
                    self.finished[output.id] = output.finish

    def drain(self, most: int = 2000) -> None:
        """Steps until nobody is left; fails after `most` steps."""
        for _ in range(most):
            if not self.engine.busy:
                return
            self.step()
        raise AssertionError(f"still busy after {most} steps: {self.engine}")
