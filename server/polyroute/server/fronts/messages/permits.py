"""Of permits: what a front borrows, and what it tells of that."""

from __future__ import annotations

import msgspec


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """A call wants a permit of `deployment`, and with `ahead` some for the next ones. See `routing.lending`.

    `key` is the front's name for these permits.
    """

    id: int
    key: int
    deployment: str
    caller: str
    deadline: float | None
    ahead: bool


class Lent(msgspec.Struct, frozen=True, tag="lent"):
    """A permit for `id`, on these terms: see `routing.lent_permits.Terms`."""

    id: int
    spare: int
    keep: int
    learns: bool


class GiveBack(msgspec.Struct, frozen=True, tag="give_back"):
    """Permits are free again."""

    key: int
    count: int


class Recall(msgspec.Struct, frozen=True, tag="recall"):
    """Spare permits are wanted back; answered by `Recalled`."""

    key: int


class Recalled(msgspec.Struct, frozen=True, tag="recalled"):
    """The spare permits that there were."""

    key: int
    count: int


class Judged(msgspec.Struct, frozen=True, tag="judged"):
    """A call that got its permit at `began` has its first token, or was too much for the backend."""

    key: int
    began: float
    overloaded: bool


class Busy(msgspec.Struct, frozen=True, tag="busy"):
    """What has changed of a front's permits since the last one, by key: those in use and those spare."""

    permits: dict[int, tuple[str, int, int]]
