"""Which replicas have seen the beginning of a prompt, as well as a router can know it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from polyroute.core.request import Request

BLOCK_CHARS: Final = 1024
MAX_BLOCKS: Final = 16
CAPACITY: Final = 1 << 15
"""Blocks that are remembered in all; some 250 bytes each."""


class Prefixes:
    """An approximate prefix tree: for each prefix that went by, the replicas that were given it.

    A prefix is known by the hash of its last block and of the prefix before it, so the tree is a table from hashes to
    replicas, and equal hashes are equal paths from the root. The least recently used leaves go once there are
    `capacity`; what a replica has itself dropped from its cache is not known here.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._holders: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._holders)

    def holders(self, path: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
        """How many blocks of `path` are known, with the replicas that have them: the most blocks first."""
        for depth in range(len(path), 0, -1):
            numbers = self._holders.get(path[depth - 1])
            if numbers:
                yield depth, [self._names[number] for number in numbers if number in self._names]

    def give(self, path: Sequence[int], name: str) -> None:
        """Remembers that `name` gets every prefix of `path`."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = self._next
            self._names[number] = name
            self._next += 1
        table = self._holders
        for key in reversed(path):  # so that the beginning, which others share, leaves last
            numbers = table.get(key, ())
            if number not in numbers:
                table[key] = (*(n for n in numbers if n in self._names), number)
            table.move_to_end(key)
        while len(table) > self._capacity:
            table.popitem(last=False)

    def forget(self, name: str) -> None:
        """No prefix is known to be at `name` any more."""
        number = self._numbers.pop(name, None)
        if number is not None:
            del self._names[number]


def path_of(request: Request) -> list[int]:
    """The prefixes of the request's input, from the shortest on: one hash a block of `BLOCK_CHARS`, equal in this
    process alone. What a last block does not fill counts for nothing, nor does what follows `MAX_BLOCKS` blocks.
    """
    text = _beginning(request, BLOCK_CHARS * MAX_BLOCKS)
    path, key = [], 0
    for start in range(0, len(text) - BLOCK_CHARS + 1, BLOCK_CHARS):
        key = hash((key, text[start : start + BLOCK_CHARS]))
        path.append(key)
    return path


def _beginning(request: Request, chars: int) -> str:
    """The first `chars` characters of what a model reads; tools come first, as in most chat templates."""
    if request.prompt is not None:
        return request.prompt[:chars]
    parts: list[str] = []
    for tool in request.tools:
        parts += (tool.name, tool.description)
    length = sum(map(len, parts))
    for message in request.messages or ():
        if length >= chars:
            break
        parts += (message.role, message.content)
        length += len(message.content)
        for call in message.tool_calls:
            parts += (call.name, call.arguments)
    return "\n".join(parts)[:chars]
