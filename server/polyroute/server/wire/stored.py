"""Answers in the cache: `polyroute.store.v1` messages, as bytes."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from polyroute.routing.cache.codec import StoredAnswer
from polyroute.server.wire.answer import delta_from_wire, delta_to_wire, end_from_wire, end_to_wire
from polyroute.server.wire.values import duration, seconds_of, timestamp, unix_of
from polyroute.store.v1 import answer_pb2 as pb

FORMAT: Final = 1
"""Raised whenever a stored answer changes its meaning: entries of another format are misses."""


class AnswerCodec:
    """Implements `polyroute.routing.cache.codec.Codec` with protobuf."""

    def encode(self, answer: StoredAnswer) -> bytes:
        """The answer as bytes."""
        return pb.StoredAnswer(
            format=FORMAT,
            key=answer.key,
            model=answer.model,
            version=answer.version,
            deltas=map(delta_to_wire, answer.tokens),
            end=end_to_wire(answer.finished),
            created=timestamp(answer.created),
            took=duration(answer.took_s),
            gaps_ms=answer.gaps_ms,
        ).SerializeToString()

    def decode(self, blob: bytes) -> StoredAnswer:
        """The answer in `blob`; raises `ValueError` for another format, missing parts and anything foreign."""
        try:
            wire = pb.StoredAnswer.FromString(blob)
        except DecodeError as error:
            raise ValueError("is no stored answer") from error
        if wire.format != FORMAT:
            raise ValueError(f"has format {wire.format}, not {FORMAT}")
        if not (wire.key and wire.model and wire.version and wire.HasField("end") and wire.HasField("created")):
            raise ValueError("lacks a part")
        if len(wire.gaps_ms) not in (0, len(wire.deltas) + 1):
            raise ValueError(f"has times for {len(wire.gaps_ms) - 1} of {len(wire.deltas)} deltas")
        return StoredAnswer(
            key=wire.key,
            model=wire.model,
            version=wire.version,
            tokens=tuple(map(delta_from_wire, wire.deltas)),
            finished=end_from_wire(wire.end),
            created=unix_of(wire.created),
            took_s=seconds_of(wire.took),
            gaps_ms=tuple(wire.gaps_ms),
        )
