"""What the engines are asked: prompts of random words, the same for all engines."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORD = re.compile("\u0120[a-z]+")  # a byte-level tokenizer's spelling of a space and a word
_FIRST_IDS = 300  # special tokens and single bytes, which are no words, stand at the front


@dataclass(frozen=True)
class Ask:
    """One request: `prompt` token IDs in, exactly `tokens` out. It is submitted once all requests together have made
    `after` tokens, which times arrivals alike on fast and slow machines."""

    prompt: list[int]
    tokens: int
    after: int = 0


@dataclass(frozen=True)
class Case:
    """A load: `asks` are submitted together, but for those that wait for their `after`. Latencies are told of the first
    `watched` of them."""

    name: str
    asks: tuple[Ask, ...]
    watched: int

    @property
    def output_tokens(self) -> int:
        """Tokens that all answers together have."""
        return sum(ask.tokens for ask in self.asks)

    @property
    def prompt_tokens(self) -> int:
        """Tokens that all prompts together have."""
        return sum(len(ask.prompt) for ask in self.asks)

    def encoded(self) -> dict[str, Any]:
        """As a runner process reads it."""
        return {"asks": [[ask.prompt, ask.tokens, ask.after] for ask in self.asks]}


class Words:
    """Draws prompts from those tokens of a model that are whole words, so that a prompt's text has exactly its tokens.

    `folder` holds the model's `tokenizer.json`, of the byte-level kind. `seed` is text: `random` takes the numbers
    1 and -1 for the same.
    """

    def __init__(self, folder: Path, seed: str) -> None:
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        self._ids = sorted(i for token, i in vocabulary.items() if i >= _FIRST_IDS and _WORD.fullmatch(token))
        self._random = random.Random(seed)

    def prompt(self, tokens: int) -> list[int]:
        """A prompt that no other shares a beginning with."""
        return self._random.choices(self._ids, k=tokens)

    def burst(self, callers: int, prompt: int, output: int) -> Case:
        """So many callers at the same instant, with one request each."""
        return Case(str(callers), tuple(Ask(self.prompt(prompt), output) for _ in range(callers)), callers)

    def mixed(self, *, chats: int, prompt: int, output: int, long: int) -> Case:
        """Short chats, into which four prompts of `long` tokens arrive one after another."""
        total = chats * output
        late = tuple(Ask(self.prompt(long), 8, after=total * (i + 1) // 6) for i in range(4))
        return Case("mixed", tuple(Ask(self.prompt(prompt), output) for _ in range(chats)) + late, chats)
