"""What turns texts into vectors, by which their meanings can be compared."""

from __future__ import annotations

from typing import Protocol


class NoEmbedding(Exception):
    """There is no vector for a text now; why, in words that do not quote it."""


class Embedder(Protocol):
    """Turns texts into vectors of one length. Two texts are as similar as the product of their vectors is large."""

    async def embed(self, text: str) -> bytes:
        """The vector of `text`, of length 1, as 32-bit floats in the machine's order.

        Raises `NoEmbedding`, at once where it is not ready: it gets ready behind the first call.
        """
        ...

    async def stop(self) -> None:
        """Frees what it holds. Not to be used afterwards."""
        ...
