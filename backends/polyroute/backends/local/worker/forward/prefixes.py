"""Keys and values of what prompts begin with, kept in a radix tree, so that a shared prefix is computed once.

After RadixAttention (Zheng et al., SGLang, 2024), with copies in the place of shared pages: restoring is a copy of a
few milliseconds, where computing takes hundreds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

LEAST_TOKENS = 16  # shorter pieces cost more to keep track of than to compute


@dataclass(frozen=True, slots=True)
class Segment:
    """Keys and values of some tokens in a row, a tensor a layer: [heads, key width, n] and [heads, n, value width]."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def part(self, start: int, stop: int) -> Segment:
        """Those of the tokens from `start` to `stop`, in memory of their own."""
        return Segment(
            copies([k[:, :, start:stop] for k in self.keys]),
            copies([v[:, start:stop] for v in self.values]),
        )


def copies(layers: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each of `layers` in memory that none but them holds on to; on a GPU, where they are alike, by one kernel."""
    if layers[0].device.type == "cpu" or len({layer.shape for layer in layers}) > 1:
        return [layer.clone() for layer in layers]
    return list(torch.stack(layers).unbind())


@dataclass(eq=False, slots=True)
class _Node:
    tokens: tuple[int, ...]
    segment: Segment
    parent: _Node | None
    children: dict[int, _Node] = field(default_factory=dict)
    used: int = 0


class Prefixes:
    """A tree whose paths are token sequences; each edge holds the keys and values of its tokens."""

    def __init__(self) -> None:
        self._root = _Node((), Segment([], []), None)
        self._clock = itertools.count(1)
        self.tokens = 0  # whose keys and values are held, all in all

    def __repr__(self) -> str:
        return f"<Prefixes of {self.tokens} tokens>"

    def match(self, tokens: Sequence[int]) -> list[tuple[int, Segment, int]]:
        """The longest known beginning of `tokens`, in pieces: where each begins, its segment, how much of it counts."""
        pieces = []
        done = 0
        for node, common in self._walk(tokens):
            pieces.append((done, node.segment, common))
            done += common
        return pieces

    def known(self, tokens: Sequence[int]) -> int:
        """How many of the first tokens are known."""
        return sum(common for _, common in self._walk(tokens))

    def insert(self, tokens: Sequence[int], tail: Segment) -> None:
        """Adds `tokens`, of which `tail` holds those that are not yet known."""
        node, done = self._root, 0
        for step, common in self._walk(tokens):
            done += common
            node = step if common == len(step.tokens) else self._split(step, common)
        added = tuple(tokens[done:])
        if added:
            node.children[added[0]] = _Node(added, tail, node, used=next(self._clock))
            self.tokens += len(added)

    def evict(self) -> bool:
        """Forgets the end that was unused for longest; False where nothing is left."""
        leaves = [node for node in self._nodes() if not node.children]
        if not leaves:
            return False
        oldest = min(leaves, key=lambda node: node.used)
        assert oldest.parent is not None  # noqa: S101 - the root is no leaf that `_nodes` gives
        del oldest.parent.children[oldest.tokens[0]]
        self.tokens -= len(oldest.tokens)
        return True

    def _walk(self, tokens: Sequence[int]) -> Iterator[tuple[_Node, int]]:
        """The nodes along `tokens`, with how many of each one's tokens agree; marks them as used."""
        node, done, now = self._root, 0, next(self._clock)
        while done < len(tokens) and (child := node.children.get(tokens[done])) is not None:
            common = _common(child.tokens, tokens, done)
            ends = common < len(child.tokens)  # looked at now, since whoever is given the node may split it
            child.used = now
            yield child, common
            if ends:
                return
            node, done = child, done + common

    def _split(self, node: _Node, at: int) -> _Node:
        """Cuts a node in two; returns the upper one. Both get memory of their own, so that each can be evicted."""
        assert node.parent is not None  # noqa: S101 - the root has no tokens to split
        first, second = node.segment.part(0, at), node.segment.part(at, len(node.tokens))  # memory may run out here
        upper = _Node(node.tokens[:at], first, node.parent, used=node.used)
        node.parent.children[upper.tokens[0]] = upper
        node.segment = second
        node.tokens, node.parent = node.tokens[at:], upper
        upper.children[node.tokens[0]] = node
        return upper

    def _nodes(self) -> Iterator[_Node]:
        waiting = list(self._root.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(node.children.values())


def _common(known: tuple[int, ...], tokens: Sequence[int], start: int) -> int:
    """How many of `known` agree with `tokens` from `start` on."""
    most = min(len(known), len(tokens) - start)
    ours = tuple(tokens[start : start + most])
    if known[:most] == ours:
        return most
    return next(i for i, (a, b) in enumerate(zip(known, ours, strict=False)) if a != b)
