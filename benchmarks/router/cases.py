"""What is measured: each case is a kind of request, and says which floor is under it and who takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.rig.floors import STREAM_WORDS, WORDS
from benchmarks.rig.workload import UNIQUE, Ask

OURS: Final = "polyroute"
OURS_DISK: Final = "polyroute, disk tier alone"
LITELLM: Final = "litellm"
LITELLM_DISK: Final = "litellm, disk"
DIRECT: Final = "direct"
"""The peer in C itself, without anything between: what the load generator and it can do."""
RUST_PEERS: Final = ("sglang-router", "vllm-router", "smg", "tensorzero")
PEERS: Final = (LITELLM, LITELLM_DISK, *RUST_PEERS)


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request over one protocol, `grpc` or `http`.

    `floors` are bare servers, the first of which is the one that ratios are taken to. `by_words` is whether rates are
    of words and not of answers. `hits` says that no answer may come from the peer.
    """

    name: str
    protocol: str
    ask: Ask
    floors: tuple[str, ...]
    contenders: tuple[str, ...]
    callers: tuple[int, ...]
    hits: bool = False
    by_words: bool = False

    @property
    def title(self) -> str:
        """For people."""
        return f"{TITLES[self.name]}, {PROTOCOLS[self.protocol]}"


PROTOCOLS: Final = {"grpc": "gRPC", "http": "REST"}
"""The protocols, as people call them."""
TITLES: Final = {
    "unary-miss": f"unary miss, {WORDS} words",
    "memory-hit": f"memory hit, {WORDS} words",
    "disk-hit": f"disk hit, {WORDS} words",
    "stream-burst": f"stream of {STREAM_WORDS}, as fast as it comes",
    "stream-paced": f"stream of {STREAM_WORDS}, a word every 10 ms",
    "first-token": f"stream of {STREAM_WORDS}, a word every ms",
}

_MISS: Final = Ask(WORDS, slot=UNIQUE)
_HIT: Final = Ask(WORDS)
_BURST: Final = Ask(STREAM_WORDS, stream=True, slot=UNIQUE)
_PACED: Final = Ask(STREAM_WORDS, stream=True, pace_us=10_000, slot=UNIQUE)
_FIRST: Final = Ask(STREAM_WORDS, stream=True, pace_us=1_000, slot=UNIQUE)
_OTHERS: Final = (LITELLM, *RUST_PEERS, DIRECT)
_STREAMS: Final = ("grpc pass-through", "grpc relay of reads")

CASES: Final = (
    Case("unary-miss", "grpc", _MISS, ("grpc pass-through",), (OURS,), (1, 32, 256, 2000)),
    Case("unary-miss", "http", _MISS, ("http proxy",), (OURS, *_OTHERS), (1, 32, 256, 2000)),
    Case("memory-hit", "grpc", _HIT, ("grpc echo", "grpc echo of messages"), (OURS,), (1, 32, 256, 2000), hits=True),
    Case("memory-hit", "http", _HIT, ("http echo",), (OURS, LITELLM), (1, 32, 256, 2000), hits=True),
    Case("disk-hit", "grpc", _HIT, ("grpc echo", "grpc echo of messages"), (OURS_DISK,), (1, 32), hits=True),
    Case("disk-hit", "http", _HIT, ("http echo",), (OURS_DISK, LITELLM_DISK), (1, 32), hits=True),
    Case("stream-burst", "grpc", _BURST, _STREAMS, (OURS,), (1, 32), by_words=True),
    Case("stream-burst", "http", _BURST, ("http proxy",), (OURS, *_OTHERS), (1, 32), by_words=True),
    Case("stream-paced", "grpc", _PACED, _STREAMS, (OURS,), (32,), by_words=True),
    Case("stream-paced", "http", _PACED, ("http proxy",), (OURS, *_OTHERS), (32,), by_words=True),
    Case("first-token", "grpc", _FIRST, _STREAMS[:1], (OURS, DIRECT), (1,), by_words=True),
    Case("first-token", "http", _FIRST, ("http proxy",), (OURS, *_OTHERS), (1,), by_words=True),
)


def chosen(names: Sequence[str], protocols: Sequence[str]) -> list[Case]:
    """The cases of those names over those protocols."""
    return [case for case in CASES if case.name in names and case.protocol in protocols]
