"""One answer in the making: its tokens, its text and when it ends."""

from __future__ import annotations

from collections.abc import Set

from polyroute.backends.local.messages import Begun, Finish, Output, Rejected
from polyroute.backends.local.worker.detokenize import TextStream, Vocabulary
from polyroute.backends.local.worker.logprobs import Chosen, LogprobTrail
from polyroute.backends.local.worker.sampling import Sampler
from polyroute.backends.local.worker.stops import StopScan
from polyroute.core.event import FinishReason, TokenLogprob


class Sequence:
    """Holds everything about one answer but its cache of keys and values, which is the engine's.

    `processed` counts the tokens, of the prompt and of the answer, whose keys and values are in memory; `cached`, those
    of the prompt that came from the prefix cache. To preempt the answer, set `processed` to 0: nothing else changes.
    `submitted_at`, `begun_at` (a step first reads of it) and `read_at` (there is a first token) are the engine's times.
    """

    def __init__(
        self,
        id: int,
        prompt: list[int],
        sampler: Sampler,
        vocabulary: Vocabulary,
        *,
        max_tokens: int,
        eos: Set[int],
        stop: tuple[str, ...] = (),
        logprobs: int | None = None,
        continues: bool = False,
    ) -> None:
        self.id = id
        self.prompt = prompt
        self.generated: list[int] = []
        self.processed = 0
        self.cached = 0
        self.arrival = 0  # the order among all, given by the scheduler
        self.submitted_at = 0.0
        self.begun_at: float | None = None
        self.read_at = 0.0
        self.sampler = sampler
        self.logprobs = logprobs
        self._max_tokens = max_tokens
        self._eos = eos
        self._stream: TextStream = (
            vocabulary.stream(prompt if continues else ()) if sampler.constraint is None else vocabulary.exact_stream()
        )
        self._stops = StopScan(stop)
        self._stop_tokens = {vocabulary.hidden[text]: text for text in stop if text in vocabulary.hidden}
        self._trail = None if logprobs is None else LogprobTrail(vocabulary)
        self._decoded = 0  # characters that the tokens so far have made, shown or held back
        self._shown = 0
        self._told_begun = False

    def __repr__(self) -> str:
        return f"<Sequence {self.id}: {self.processed} of {len(self.prompt)}+{len(self.generated)} tokens processed>"

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return len(self.prompt) + len(self.generated)

    @property
    def remaining(self) -> int:
        """Tokens that the model has still to read before the next one can be chosen: 1 while decoding."""
        return len(self.prompt) + len(self.generated) - self.processed

    @property
    def room(self) -> int:
        """How many tokens may yet be generated."""
        return self._max_tokens - len(self.generated)

    def tokens(self, start: int, stop: int) -> list[int]:
        """The tokens at places `start` to `stop` (excluded) of the prompt and the answer."""
        read = len(self.prompt)
        if stop <= read:
            return self.prompt[start:stop]
        if start >= read:
            return self.generated[start - read : stop - read]
        return self.prompt[start:] + self.generated[: stop - read]

    def accept(self, token: int, entry: Chosen | None = None) -> Output | Rejected:
        """Takes the next token, with its log probabilities where the answer wants them; returns what that adds.

        -1 is none, as `choose` says it: the answer has failed.
        """
        if token < 0:
            failure = "" if self.sampler.constraint is None else self.sampler.constraint.failure
            return Rejected(self.id, "failed", "", failure or "no token can be chosen: the logits are not numbers")
        self.generated.append(token)
        if token in self._stop_tokens:
            return self._end(FinishReason.STOP_SEQUENCE, "", self._stop_tokens[token])
        if token in self._eos:
            return self._end(FinishReason.STOP, "")
        if self._trail is not None and entry is not None:
            self._trail.add(token, entry, self._decoded)
        text = self._scan(self._stream.add(token))
        if self._stops.found is not None:
            return self._output(text, self._finish(FinishReason.STOP_SEQUENCE))
        if self.sampler.constraint is not None and self.sampler.constraint.complete:
            return self._end(FinishReason.STOP, text)
        if len(self.generated) >= self._max_tokens:
            return self._end(FinishReason.LENGTH, text)
        return self._output(text)

    def _end(self, reason: FinishReason, text: str, stop: str | None = None) -> Output:
        text += self._scan(self._stream.flush())
        if self._stops.found is not None:
            return self._output(text, self._finish(FinishReason.STOP_SEQUENCE))
        return self._output(text + self._stops.flush(), self._finish(reason, stop))

    def _scan(self, piece: str) -> str:
        self._decoded += len(piece)
        return self._stops.feed(piece)

    def _output(self, text: str, finish: Finish | None = None) -> Output:
        self._shown += len(text)
        logprobs: tuple[TokenLogprob, ...] = ()
        if self._trail is not None:
            cut = finish is None or self._stops.found is not None
            logprobs = self._trail.take(self._shown if cut else None)
        begun = None
        if not self._told_begun and (text or logprobs or finish is not None):
            self._told_begun, begun = True, self._begun()
        return Output(self.id, text, logprobs, finish, len(self.generated), begun)

    def _begun(self) -> Begun:
        begun_at = self.submitted_at if self.begun_at is None else self.begun_at
        waited_s, read_s = begun_at - self.submitted_at, self.read_at - begun_at
        return Begun(len(self.prompt), self.cached, max(0.0, waited_s), max(0.0, read_s))

    def _finish(self, reason: FinishReason, stop: str | None = None) -> Finish:
        stop = self._stops.found or stop
        return Finish(reason, len(self.prompt), len(self.generated), stop, self.sampler.seed, self.cached)
