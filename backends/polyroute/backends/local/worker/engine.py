"""Runs a model for several answers at once: `step()` is the only clock, and nothing here knows processes or sockets."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from polyroute.backends.local.messages import Output, Rejected
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.logprobs import report
from polyroute.backends.local.worker.sampling import Sampler, SamplingDefaults, choose
from polyroute.backends.local.worker.sequence import Sequence
from polyroute.core.request import Sampling

_UNLIMITED_MAX_TOKENS = 4096  # for a model without a context limit, where nothing else sets one


@dataclass(slots=True)
class _Active:
    sequence: Sequence
    cache: DynamicCache


class Engine:
    """Up to `max_sequences` answers at once, the others waiting in order.

    A step advances each answer in the making by one token, and one of those whose prompt is still being read by
    `prefill_chunk` tokens: so a long prompt holds up the others by no more than a chunk, and whatever is cancelled
    between two steps takes no part in the next.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        *,
        context_length: int,
        eos: frozenset[int],
        defaults: SamplingDefaults,
        max_sequences: int = 8,
        prefill_chunk: int = 256,
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._context_length = context_length
        self._eos = eos
        self._defaults = defaults
        self._max_sequences = max_sequences
        self._prefill_chunk = prefill_chunk
        self._waiting: deque[Sequence] = deque()
        self._active: list[_Active] = []
        self._mask = torch.ones((1, 0), dtype=torch.long, device=model.device)
        self._last_row_only = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        self.steps = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._active or self._waiting)

    def submit(
        self, id: int, prompt: list[int], sampling: Sampling, stop: tuple[str, ...] = (), *, continues: bool = False
    ) -> None:
        """Queues an answer to `prompt`, which holds 1 to `context_length` - 1 tokens.

        `continues` says that the answer's text goes on where the prompt's ends, instead of standing alone.
        """
        self._waiting.append(
            Sequence(
                id,
                prompt,
                Sampler(sampling, self._defaults, prompt),
                self._vocabulary,
                max_tokens=self._room(len(prompt), sampling.max_tokens),
                eos=self._eos,
                stop=stop,
                logprobs=sampling.logprobs,
                continues=continues,
            )
        )

    def cancel(self, id: int) -> int | None:
        """Forgets an answer at once; returns how many tokens it had, or None where there is none of that ID."""
        for sequence in self._waiting:
            if sequence.id == id:
                self._waiting.remove(sequence)
                return 0
        for active in self._active:
            if active.sequence.id == id:
                self._active.remove(active)
                return len(active.sequence.generated)
        return None

    @torch.inference_mode()
    def step(self) -> list[Output | Rejected]:
        """Advances the answers; returns what was added to each. An answer that fails ends alone, as `Rejected`."""
        self.steps += 1
        while self._waiting and len(self._active) < self._max_sequences:
            self._active.append(_Active(self._waiting.popleft(), DynamicCache(config=self._model.config)))
        outputs = [output for active in self._due() if (output := self._advance(active)) is not None]
        over = {o.id for o in outputs if isinstance(o, Rejected) or o.finish is not None}
        if over:
            self._active = [active for active in self._active if active.sequence.id not in over]
        return outputs

    def _due(self) -> list[_Active]:
        """Who takes part in this step: all that decode, and the first of those that still read their prompt."""
        prefilling = [active for active in self._active if active.sequence.remaining > 1]
        return [active for active in self._active if active.sequence.remaining == 1] + prefilling[:1]

    def _advance(self, active: _Active) -> Output | Rejected | None:
        sequence = active.sequence
        try:
            tokens = sequence.tokens(sequence.processed, min(sequence.processed + self._prefill_chunk, sequence.length))
            logits = self._forward(tokens, sequence.processed, active.cache)
            sequence.processed += len(tokens)
            if sequence.remaining:
                return None
            tokens = choose(logits, [sequence.sampler])
            return sequence.accept(tokens[0], report(logits, tokens, [sequence.logprobs])[0])
        except torch.OutOfMemoryError:
            return Rejected(sequence.id, "out_of_memory", "", "the device has no memory left for this answer")
        except torch.AcceleratorError:
            raise  # leaves the device unusable for everybody: the process must go
        except (RuntimeError, ValueError, IndexError) as error:  # torch's ways to say that one input is bad
            return Rejected(sequence.id, "failed", "", f"{type(error).__name__}: {error}")

    def _forward(self, tokens: list[int], past: int, cache: DynamicCache) -> torch.Tensor:
        """Logits after the last of `tokens`, float32 [1, vocabulary], prepared as `generate` prepares them."""
        total = past + len(tokens)
        if self._mask.shape[1] < total:
            self._mask = self._mask.new_ones((1, max(total, 2 * self._mask.shape[1])))
        inputs = self._model.prepare_inputs_for_generation(
            torch.tensor([tokens], device=self._mask.device),
            past_key_values=cache,
            attention_mask=self._mask[:, :total],
            use_cache=True,
            is_first_iteration=past == 0,
            **self._last_row_only,
        )
        logits: torch.Tensor = self._model(**inputs, return_dict=True).logits[:, -1]
        return logits.float()

    def _room(self, prompt_tokens: int, asked: int | None) -> int:
        wanted = asked if asked is not None else self._defaults.max_new_tokens
        if not self._context_length:
            return wanted or _UNLIMITED_MAX_TOKENS
        left = self._context_length - prompt_tokens
        return left if wanted is None else min(wanted, left)
