"""Runs a model for many answers at once: `step()` is the only clock, and nothing here knows processes or sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import torch

from polyroute.backends.local.messages import Output, Rejected
from polyroute.backends.local.worker.constraint import Constraint
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.failures import out_of_memory
from polyroute.backends.local.worker.forward.fit import fit
from polyroute.backends.local.worker.forward.turn import Holder, Turn
from polyroute.backends.local.worker.logprobs import report
from polyroute.backends.local.worker.pace import Pace
from polyroute.backends.local.worker.sampling import Sampler, SamplingDefaults, choose
from polyroute.backends.local.worker.scheduler import Scheduler
from polyroute.backends.local.worker.sequence import Sequence
from polyroute.backends.local.worker.tally import Tally
from polyroute.core.backend import EngineStatus
from polyroute.core.request import Sampling

_UNLIMITED_MAX_TOKENS = 4096  # for a model without a context limit, where nothing else sets one


class Engine:
    """Continuous batching (Orca, Yu et al., 2022) with chunked prefill (Sarathi, Agrawal et al., 2023).

    A step gives each answer in the making its next token, and reads chunks of waiting prompts beside them, in one
    forward pass of at most about `max_batch_tokens` tokens. A new call joins in the next step; whatever is cancelled
    between two steps takes no part in the next. `kv_cache_bytes` caps the memory of keys and values; None takes what
    the device has to spare. They are kept in `kv_dtype`; None is the one that the model computes them in. On a GPU,
    steps that only decode are recorded and played, unless `cuda_graphs` says otherwise.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        *,
        context_length: int,
        eos: frozenset[int],
        defaults: SamplingDefaults,
        max_sequences: int = 64,
        max_batch_tokens: int = 512,
        kv_cache_bytes: int | None = None,
        kv_dtype: torch.dtype | None = None,
        cuda_graphs: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._vocabulary = vocabulary
        self._context_length = context_length
        self._eos = eos
        self._defaults = defaults
        self._clock = clock
        self._fitted = fitted = fit(model, kv_cache_bytes, kv_dtype, cuda_graphs=cuda_graphs)
        self._forward = fitted.forward
        self.why_apart = fitted.why_apart
        self.kernels, self.why_plain = fitted.kernels, fitted.why_plain
        self.fused = fitted.fused
        self._scheduler: Scheduler[Sequence] = Scheduler(
            self._forward.memory, max_sequences=max_sequences, whole_prompts=self._forward.whole_prompts
        )
        self._pace = Pace(max_batch_tokens)
        self._tally = Tally()

    def __repr__(self) -> str:
        return f"<Engine {self.path}{', by graphs' if self.graphs else ''}, {self._scheduler!r}>"

    @property
    def path(self) -> str:
        """`packed`: one forward pass for all; `apart`: one for each sequence, for the reason in `why_apart`."""
        return self._forward.path

    @property
    def graphs(self) -> bool:
        """Whether steps that only decode are recorded and played."""
        return self._fitted.graphs and not self._forward.why_eager

    @property
    def why_eager(self) -> str:
        """Why they are not, on a device where they could be; empty elsewhere. It may come to be while serving."""
        return self._fitted.why_eager or self._forward.why_eager

    @property
    def kv_capacity_tokens(self) -> int:
        """The longest sequence that the KV memory can hold."""
        return self._forward.memory.capacity_tokens

    @property
    def steps(self) -> int:
        """How many steps it has made."""
        return self._tally.steps

    @property
    def preemptions(self) -> int:
        """How many times a sequence had to give back its memory and was computed anew."""
        return self._scheduler.preemptions

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._scheduler.busy

    def status(self) -> EngineStatus:
        """How it is, and what it has done since it was made."""
        scheduler, memory = self._scheduler, self._forward.memory
        return self._tally.status(
            running=scheduler.running,
            waiting=scheduler.waiting,
            paused=scheduler.paused,
            kv_used_bytes=memory.used_bytes,
            kv_limit_bytes=memory.limit_bytes,
            preemptions=scheduler.preemptions,
        )

    def progress(self) -> dict[int, int]:
        """How many tokens each answer in the making has, by its ID; not every token shows as text at once."""
        return {sequence.id: len(sequence.generated) for sequence in self._scheduler}

    @torch.inference_mode()
    def submit(
        self,
        id: int,
        prompt: list[int],
        sampling: Sampling,
        stop: tuple[str, ...] = (),
        *,
        continues: bool = False,
        constraint: Constraint | None = None,
    ) -> Rejected | None:
        """Queues an answer to `prompt`, which holds 1 to `context_length` - 1 tokens; None where that is done.

        `continues` says that the answer's text goes on where the prompt's ends, instead of standing alone. A prompt
        that the KV memory can never hold is rejected.
        """
        if len(prompt) >= self.kv_capacity_tokens:
            limit = f"{len(prompt)} tokens, but the memory for keys and values holds {self.kv_capacity_tokens}"
            return Rejected(id, "too_long", "prompt" if continues else "messages", limit)
        sequence = Sequence(
            id,
            prompt,
            Sampler(sampling, self._defaults, prompt, constraint),
            self._vocabulary,
            max_tokens=self._room(len(prompt), sampling.max_tokens),
            eos=self._eos,
            stop=stop,
            logprobs=sampling.logprobs,
            continues=continues,
        )
        sequence.submitted_at = self._clock()
        self._scheduler.add(sequence)
        return None

    @torch.inference_mode()
    def cancel(self, id: int) -> int | None:
        """Forgets an answer at once; returns how many tokens it had, or None where there is none of that ID."""
        sequence = self._scheduler.find(id)
        if sequence is None:
            return None
        self._scheduler.remove(sequence)
        return len(sequence.generated)

    def pause(self, id: int) -> None:
        """Leaves an answer out of steps, since its reader is behind; its memory may be taken."""
        self._scheduler.pause(id)

    def resume(self, id: int) -> None:
        """Goes on with a paused answer; its text is as if it had never been paused."""
        self._scheduler.resume(id)

    @torch.inference_mode()
    def step(self) -> list[Output | Rejected]:
        """Advances the answers; returns what was added to each. An answer that fails ends alone, as `Rejected`."""
        began = self._clock()
        turn = self._scheduler.turn(self._pace.tokens(self._scheduler.decoding, self._scheduler.unread))
        turn, logits, outputs = self._run(turn)
        outputs += self._advance(turn, logits, began)
        read, took_s = sum(chunk.count for chunk in turn.chunks), self._clock() - began
        if not self._forward.played:  # prompts pay for a step that is not, so what they may add is a share of that
            self._pace.note(len(turn.decoding), read, took_s)
        self._tally.step(len(turn.members), read, took_s)
        return outputs

    def _run(self, turn: Turn) -> tuple[Turn, torch.Tensor, list[Output | Rejected]]:
        """The forward pass, without those that it fails for."""
        rejected: list[Output | Rejected] = []
        while turn:
            try:
                return turn, self._forward.run(turn), rejected
            except torch.AcceleratorError:
                raise  # leaves the device unusable for everybody: the process must go
            except MemoryError as error:
                failed = [self._reject(_costliest(turn), error)]
            except (RuntimeError, ValueError, IndexError) as error:  # torch's ways to say that an input is bad
                failed = [self._reject(_costliest(turn), error)] if out_of_memory(error) else self._try_each(turn)
            rejected += failed
            turn = turn.without({one.id for one in failed})
        return turn, torch.empty(0, 0), rejected

    def _try_each(self, turn: Turn) -> list[Rejected]:
        """Which sequences fail when they run alone, as rejections; all of them where none does."""
        failed, members = [], turn.members
        for sequence in members:
            others = {member.id for member in members if member is not sequence}
            try:
                self._forward.run(turn.without(others))
            except torch.AcceleratorError:
                raise
            except (RuntimeError, ValueError, IndexError, MemoryError) as error:
                failed.append(self._reject(sequence, error))
        return failed or [self._reject(s, RuntimeError("fails beside others")) for s in members]

    def _reject(self, sequence: Holder, error: Exception) -> Rejected:
        self._scheduler.remove(cast("Sequence", sequence))
        if out_of_memory(error):
            return Rejected(sequence.id, "out_of_memory", "", "the device has no memory left for this answer")
        return Rejected(sequence.id, "failed", "", f"{type(error).__name__}: {error}")

    def _advance(self, turn: Turn, logits: torch.Tensor, began: float) -> list[Output | Rejected]:
        """Notes what has been processed in the step that `began` then, and chooses and takes the next tokens."""
        choosing = cast("list[Sequence]", turn.choosing)
        for sequence in turn.decoding:
            sequence.processed += 1
        for chunk in turn.chunks:
            completes, sequence = chunk.completes, cast("Sequence", chunk.sequence)
            if sequence.begun_at is None:
                sequence.begun_at = began
            sequence.processed += chunk.count
            if completes:
                self._tally.read(sequence)
                self._forward.memory.keep(chunk.sequence)
        if not choosing:
            return []
        if logits.device.type == "mps":
            logits = logits.cpu()  # choosing wants float64, which this device lacks; its memory is the CPU's anyway
        tokens = choose(logits, [sequence.sampler for sequence in choosing])
        entries = report(logits, tokens, [sequence.logprobs for sequence in choosing])
        outputs: list[Output | Rejected] = []
        now = self._clock()
        for sequence, token, entry in zip(choosing, tokens, entries, strict=True):
            if not sequence.generated:
                sequence.read_at = now
            output = sequence.accept(token, entry)
            if isinstance(output, Rejected):
                self._scheduler.remove(sequence)
                outputs.append(output)
                continue
            self._tally.output_tokens += 1
            if output.finish is not None:
                self._forward.memory.keep(sequence)
                self._scheduler.remove(sequence)
            if output.text or output.logprobs or output.finish is not None:
                outputs.append(output)
        return outputs

    def _room(self, prompt_tokens: int, asked: int | None) -> int:
        wanted = asked if asked is not None else self._defaults.max_new_tokens
        left = self.kv_capacity_tokens - prompt_tokens
        if self._context_length:
            left = min(left, self._context_length - prompt_tokens)
        elif wanted is None:
            left = min(left, _UNLIMITED_MAX_TOKENS)
        return left if wanted is None else min(wanted, left)


def _costliest(turn: Turn) -> Holder:
    """Whose part of a turn takes the most memory: that of a prompt being read, else that of the youngest answer."""
    chunks = [chunk.sequence for chunk in turn.chunks]
    return max(chunks, key=lambda s: s.length) if chunks else max(turn.decoding, key=lambda s: s.arrival)
