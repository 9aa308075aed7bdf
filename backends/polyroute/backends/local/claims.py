"""Who takes how much of a device's memory, and who leaves it for another: pure functions, without clock or I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

LEAST_KV_BYTES: Final = 1 << 26
"""Memory for keys and values that a replica has at least, where nobody has said how much."""


class Standing(Enum):
    """Whether a replica may leave for another model's sake: now, once its calls have ended, or not at all."""

    IDLE = 0
    BUSY = 1
    WANTED = 2


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a replica was measured to take of its device, and what its keys and values may add, in bytes.

    `bytes` is 0 where it could not be measured; `device_bytes` is the memory of the whole device, 0 for the machine's.
    """

    device: str
    bytes: int
    kv_bytes: int
    device_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Needs:
    """What a replica is expected to take, in bytes; `kv_bytes` is None where it takes what it may have.

    Where that is not `sure`, it is no reason to refuse a replica that would have all the memory for itself.
    """

    bytes: int
    kv_bytes: int | None = None
    sure: bool = True

    @property
    def least(self) -> int:
        """Without this much there is no use in loading."""
        return self.bytes + (LEAST_KV_BYTES if self.kv_bytes is None else self.kv_bytes)


@dataclass(frozen=True, slots=True)
class Claim:
    """One replica's part of a device's memory, as a decision sees it; `used_at` is when a call last needed it."""

    replica: str
    bytes: int
    standing: Standing
    used_at: float


def whom_to_evict(claims: Sequence[Claim], bytes: int) -> tuple[int, ...]:
    """The places in `claims` of the idle ones that leave so that `bytes` come free: least recently used first.

    None leaves in vain: not where the others suffice, and nobody where all idle ones together hold less.
    """
    idle = [place for place, claim in enumerate(claims) if claim.standing is Standing.IDLE]
    chosen: list[int] = []
    freed = 0
    for at in sorted(idle, key=lambda at: (claims[at].used_at, claims[at].replica)):
        if freed >= bytes:
            break
        chosen.append(at)
        freed += claims[at].bytes
    if freed < bytes:
        return ()
    for at in sorted(chosen, key=lambda at: claims[at].bytes):  # a large last one may have made small ones needless
        if freed - claims[at].bytes >= bytes:
            chosen.remove(at)
            freed -= claims[at].bytes
    return tuple(chosen)


def place(device: str, gpus: int, room: Callable[[str], int]) -> str:
    """The device for another replica: of several GPUs the one with the most room, where any of them will do."""
    if device != "cuda" or gpus < 2:
        return device
    return max((f"cuda:{index}" for index in range(gpus)), key=room)


def size(bytes: int) -> str:
    """`3.2 GiB`, or in MiB where it is less than one."""
    return f"{bytes / (1 << 30):.1f} GiB" if bytes >= 1 << 30 else f"{bytes / (1 << 20):.0f} MiB"
