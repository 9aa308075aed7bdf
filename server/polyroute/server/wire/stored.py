"""Answers in the cache: `polyroute.store.v1` messages, as bytes."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from polyroute.core.event import Timing, Token
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.server.wire.answer import delta_from_wire, end_from_wire, put_delta, put_outcome, put_timing
from polyroute.server.wire.values import put_duration, put_time, seconds_of, unix_of
from polyroute.store.v1 import answer_pb2 as pb

FORMAT: Final = 2
"""Raised whenever a stored answer changes its meaning: entries of another format are misses."""

_READ: Final = (1, FORMAT)
"""Formats that are read: 1 had no `texts`."""
_NO_TIME: Final = Timing()


class AnswerCodec:
    """Implements `polyroute.routing.cache.codec.Codec` with protobuf."""

    def encode(self, answer: StoredAnswer) -> bytes:
        """The answer as bytes."""
        wire = pb.StoredAnswer(
            format=FORMAT, key=answer.key, model=answer.model, version=answer.version, gaps_ms=answer.gaps_ms
        )
        if any(token.tool_calls or token.logprobs for token in answer.tokens):
            for token in answer.tokens:
                put_delta(wire.deltas.add(), token)
        else:
            wire.texts.extend([token.text for token in answer.tokens])
        put_outcome(wire.end, answer.finished)
        if answer.finished.timing != _NO_TIME:  # what is stored has none: it would be that of another call
            put_timing(wire.end.timing, answer.finished.timing)
        put_time(wire.created, answer.created)
        put_duration(wire.took, answer.took_s)
        return wire.SerializeToString()

    def decode(self, blob: bytes) -> StoredAnswer:
        """The answer in `blob`; raises `ValueError` for another format, missing parts and anything foreign."""
        try:
            wire = pb.StoredAnswer.FromString(blob)
        except DecodeError as error:
            raise ValueError("is no stored answer") from error
        if wire.format not in _READ:
            raise ValueError(f"has format {wire.format}, not {FORMAT}")
        if not (wire.key and wire.model and wire.version and wire.HasField("end") and wire.HasField("created")):
            raise ValueError("lacks a part")
        if wire.texts and wire.deltas:
            raise ValueError("has parts in two ways")
        tokens = tuple(map(Token, wire.texts) if wire.texts else map(delta_from_wire, wire.deltas))
        gaps_ms = tuple(wire.gaps_ms)
        if len(gaps_ms) not in (0, len(tokens) + 1):
            raise ValueError(f"has times for {len(gaps_ms) - 1} of {len(tokens)} parts")
        return StoredAnswer(
            key=wire.key,
            model=wire.model,
            version=wire.version,
            tokens=tokens,
            finished=end_from_wire(wire.end),
            created=unix_of(wire.created),
            took_s=seconds_of(wire.took),
            gaps_ms=gaps_ms,
        )
