"""Requests that are known by their vectors, and the nearest of them: exact, bounded, and apart by partition."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

MOST_BYTES: Final = 64 * 1024 * 1024
"""Most that the requests known of one model may take, vectors included: a key holds all of a conversation."""

_SPARE: Final = 8
"""Rows that a partition may have to spare without giving any back."""


@dataclass(frozen=True, slots=True)
class Known:
    """A request that was answered: its `text`, and the canonical key that its answer is stored under."""

    text: str
    key: bytes

    @property
    def size_bytes(self) -> int:
        """About how many bytes it takes."""
        return len(self.text) + len(self.key)


@dataclass(frozen=True, slots=True)
class Near:
    """The nearest known request, and the cosine of the angle between both vectors."""

    known: Known
    similarity: float


@dataclass(slots=True)
class _Partition:
    """Row `i` of `vectors` belongs to `known[i]`; rows beyond them are spare."""

    vectors: Floats
    known: list[Known] = field(default_factory=list)
    places: dict[bytes, int] = field(default_factory=dict)


class Neighbours:
    """At most `most` requests in `most_bytes`, of which the least recently used leave first.

    A search looks at every request of its partition and at no other. numpy is imported with the first vector: a server
    without this tier does without it.
    """

    def __init__(self, most: int, *, most_bytes: int = MOST_BYTES) -> None:
        self.most = most
        self.bytes = 0
        """What they take, with their vectors and the rows to spare."""
        self._most_bytes = most_bytes
        self._partitions: dict[bytes, _Partition] = {}
        self._order: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()  # of partition and key, the newest last

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"<Neighbours {len(self)} of {self.most} in {len(self._partitions)} partitions>"

    def nearest(self, partition: bytes, vector: bytes) -> Near | None:
        """The nearest request of a partition; None where there is none, or vectors of another length are there."""
        found = self._partitions.get(partition)
        if found is None or len(vector) != found.vectors.itemsize * found.vectors.shape[1]:
            return None
        products = found.vectors[: len(found.known)] @ _floats(vector)
        place = int(products.argmax())
        known = found.known[place]
        self._order.move_to_end((partition, known.key))
        return Near(known, float(products[place]))

    def add(self, partition: bytes, vector: bytes, known: Known) -> None:
        """Knows a request from now on, or again."""
        floats, found = _floats(vector), self._partitions.get(partition)
        if found is None or found.vectors.shape[1] != len(floats):
            self._drop(partition)
            found = self._partitions[partition] = _Partition(_rows(0, len(floats)))
        place = found.places.get(known.key)
        if place is None:
            place = len(found.known)
            if place == len(found.vectors):
                self._make_rows(found, max(1, 2 * place))
            found.known.append(known)
            found.places[known.key] = place
            self.bytes += known.size_bytes
        found.vectors[place] = floats
        self._order[partition, known.key] = None
        self._order.move_to_end((partition, known.key))
        self.resize(self.most)

    def resize(self, most: int) -> None:
        """Knows at most so many from now on."""
        self.most = most
        while len(self._order) > most or (self._order and self.bytes > self._most_bytes):
            self.remove(*next(iter(self._order)))

    def remove(self, partition: bytes, key: bytes) -> None:
        """Knows a request no more; the last row takes its place."""
        if self._order.pop((partition, key), self) is self:
            return
        found = self._partitions[partition]
        place, last = found.places.pop(key), found.known.pop()
        gone = last
        if place < len(found.known):
            gone, found.known[place] = found.known[place], last
            found.vectors[place] = found.vectors[len(found.known)]
            found.places[last.key] = place
        self.bytes -= gone.size_bytes
        if not found.known:
            self._make_rows(found, 0)
            del self._partitions[partition]
        elif len(found.vectors) > max(_SPARE, 4 * len(found.known)):
            self._make_rows(found, 2 * len(found.known))

    def _make_rows(self, partition: _Partition, count: int) -> None:
        """Has room for `count` requests, which are no fewer than there are."""
        rows, used = _rows(count, partition.vectors.shape[1]), len(partition.known)
        rows[:used] = partition.vectors[:used]
        self.bytes += rows.nbytes - partition.vectors.nbytes
        partition.vectors = rows

    def _drop(self, partition: bytes) -> None:
        found = self._partitions.get(partition)
        for known in list(found.known) if found is not None else ():
            self.remove(partition, known.key)


def _floats(vector: bytes) -> Floats:
    import numpy

    return numpy.frombuffer(vector, numpy.float32)


def _rows(count: int, length: int) -> Any:
    import numpy

    return numpy.zeros((count, length), numpy.float32)
