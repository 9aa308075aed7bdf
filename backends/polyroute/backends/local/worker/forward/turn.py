"""What one step advances: the words between the scheduler, which decides, and a forward pass, which computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


class Holder(Protocol):
    """A sequence as the scheduler and the KV cache see it.

    `processed` of its `length` tokens have their keys and values in memory; `cached` of its prompt were found there,
    and not computed. `arrival` orders sequences by age.
    """

    id: int
    arrival: int
    processed: int
    cached: int

    @property
    def prompt(self) -> list[int]: ...

    @property
    def length(self) -> int: ...

    @property
    def room(self) -> int:
        """How many tokens may yet be generated."""

    def tokens(self, start: int, stop: int) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `count` tokens of a sequence that the model has yet to read."""

    sequence: Holder
    count: int

    @property
    def completes(self) -> bool:
        """Whether the model then has read all of the sequence, so that its next token can be chosen."""
        return self.sequence.processed + self.count == self.sequence.length


@dataclass(frozen=True, slots=True)
class Turn:
    """Those that decode, one token each, and chunks of those that the model still reads (prefill)."""

    decoding: list[Holder]
    chunks: list[Chunk]

    def __bool__(self) -> bool:
        return bool(self.decoding or self.chunks)

    @property
    def choosing(self) -> list[Holder]:
        """Whose next token is to be chosen, in the order of the rows of logits."""
        return [*self.decoding, *(chunk.sequence for chunk in self.chunks if chunk.completes)]

    @property
    def members(self) -> list[Holder]:
        """Everyone who takes part."""
        return [*self.decoding, *(chunk.sequence for chunk in self.chunks)]

    def without(self, leaving: set[int]) -> Turn:
        """The same turn without the sequences of those IDs."""
        return Turn(
            [s for s in self.decoding if s.id not in leaving],
            [c for c in self.chunks if c.sequence.id not in leaving],
        )


class Memory(Protocol):
    """Room for keys and values, under a cap."""

    @property
    def capacity_tokens(self) -> int:
        """The longest sequence that fits when it is alone."""

    @property
    def used_bytes(self) -> int:
        """Memory that is taken."""

    @property
    def limit_bytes(self) -> int:
        """The cap."""

    def reserve(self, sequence: Holder, tokens: int) -> bool:
        """Makes room for `tokens` of the sequence in all; False, and nothing changed, where the cap leaves none."""

    def release(self, sequence: Holder) -> None:
        """Takes the sequence's memory back; nothing where it has none."""

    def restore(self, sequence: Holder) -> None:
        """Fills the memory of a sequence that begins with what is known of its first tokens; sets `processed`."""

    def keep(self, sequence: Holder) -> None:
        """Remembers the keys and values of the sequence so far, for others that begin with the same tokens."""


class Forward(Protocol):
    """Runs the model over a turn."""

    @property
    def path(self) -> str:
        """Which way this is."""

    @property
    def whole_prompts(self) -> bool:
        """Whether a sequence must be read at once, since the model cannot go on from a state with several tokens."""

    @property
    def played(self) -> bool:
        """Whether the latest run was played from a recording, and so says nothing of what other runs cost."""

    @property
    def why_eager(self) -> str:
        """Why nothing is recorded any more, though that was begun; empty where it is, or never was."""

    @property
    def memory(self) -> Memory:
        """Where keys and values are kept."""

    def run(self, turn: Turn) -> torch.Tensor:
        """Logits after the last token of each of `turn.choosing`: float32 [rows, vocabulary].

        The sequences' memory must have been reserved. `processed` is the caller's to advance: a run that fails may be
        repeated.
        """
