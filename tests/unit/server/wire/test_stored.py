"""What the cache keeps comes back as it was, and nothing else is taken for an answer."""

from __future__ import annotations

import pickle

import pytest
from msgspec.structs import replace

from polyroute.core.event import Finished, FinishReason, Timing, Token, TokenLogprob, TopLogprob, Usage
from polyroute.core.request import ToolCall
from polyroute.routing.cache.codec import StoredAnswer, size_of
from polyroute.server.wire.stored import FORMAT, AnswerCodec
from polyroute.store.v1 import answer_pb2 as pb
from polyroute.v1 import inference_pb2

ANSWER = StoredAnswer(
    key=b"key",
    model="m",
    version="v1",
    tokens=(Token("Grü"), Token("ße 👋", (ToolCall("i", "n", "{}", 2),), (TokenLogprob("t", b"\xf0", -1.0),))),
    finished=Finished(
        FinishReason.STOP, Usage(3, 2, 1), Timing(queue_s=0.5, first_token_s=0.25, total_s=1.5), "END", -7
    ),
    created=1_700_000_000.5,
    took_s=1.25,
    gaps_ms=(250, 0, 1_000_000),
)


def test_an_answer_comes_back_as_it_was() -> None:
    codec = AnswerCodec()
    assert codec.decode(codec.encode(ANSWER)) == ANSWER


TOP = (TopLogprob("b", b"b", -2.0),) * 5
TEXT = replace(ANSWER, tokens=(Token("Grü"), Token(""), Token("ße 👋")), gaps_ms=(1, 2, 3, 4))


@pytest.mark.parametrize("tokens", [TEXT.tokens, (), (Token(""),)])
def test_so_does_one_that_is_nothing_but_text(tokens: tuple[Token, ...]) -> None:
    codec = AnswerCodec()
    given = replace(TEXT, tokens=tokens, gaps_ms=tuple(range(len(tokens) + 1)))
    raw = codec.encode(given)
    assert codec.decode(raw) == given
    wire = pb.StoredAnswer.FromString(raw)
    assert (list(wire.texts), len(wire.deltas)) == ([token.text for token in tokens], 0)


@pytest.mark.parametrize(
    "answer",
    [
        TEXT,
        replace(TEXT, key=b"k" * 500, tokens=(Token("light " * 1000),), gaps_ms=(1, 2)),
        replace(TEXT, key=b"k" * 500, tokens=(Token("\u4e00"),) * 1000, gaps_ms=()),
        replace(TEXT, tokens=(Token(tool_calls=(ToolCall("id", "name", "{}" * 1000, 0),)),), gaps_ms=(1, 2)),
        replace(TEXT, tokens=(Token("a", logprobs=(TokenLogprob("a", b"a", -1.0, TOP),)),) * 100, gaps_ms=()),
    ],
)
def test_how_large_an_answer_is_is_about_known_before_it_is_encoded(answer: StoredAnswer) -> None:
    assert 0.5 < size_of(answer) / len(AnswerCodec().encode(answer)) < 2


def test_a_text_that_cannot_be_encoded_is_known_before() -> None:
    half = replace(TEXT, tokens=(Token("\ud83d"),), gaps_ms=())
    for what in (size_of, AnswerCodec().encode):
        with pytest.raises(ValueError, match=r"surrogates|UTF-8"):
            what(half)


def test_text_stored_in_deltas_by_an_older_version_is_read() -> None:
    wire = pb.StoredAnswer.FromString(AnswerCodec().encode(TEXT))
    wire.format = 1
    for text in wire.texts:
        wire.deltas.add().text = text
    wire.ClearField("texts")
    assert AnswerCodec().decode(wire.SerializeToString()) == TEXT


def test_parts_in_two_ways_are_refused() -> None:
    wire = pb.StoredAnswer.FromString(AnswerCodec().encode(TEXT))
    wire.deltas.add().text = "more"
    with pytest.raises(ValueError, match="in two ways"):
        AnswerCodec().decode(wire.SerializeToString())


def test_the_bytes_are_a_message_that_others_can_read() -> None:
    wire = pb.StoredAnswer.FromString(AnswerCodec().encode(ANSWER))
    assert (wire.format, wire.model, wire.deltas[0].text) == (FORMAT, "m", "Grü")
    assert wire.end.finish_reason == inference_pb2.FINISH_REASON_STOP


def test_times_that_do_not_fit_the_parts_are_refused() -> None:
    wire = pb.StoredAnswer.FromString(AnswerCodec().encode(ANSWER))
    del wire.gaps_ms[0]
    with pytest.raises(ValueError, match="has times for 1 of 2 parts"):
        AnswerCodec().decode(wire.SerializeToString())
    wire.ClearField("gaps_ms")
    assert AnswerCodec().decode(wire.SerializeToString()).gaps_ms == ()


@pytest.mark.parametrize("part", ["format", "key", "model", "version", "end", "created"])
def test_an_answer_that_lacks_a_part_is_none(part: str) -> None:
    wire = pb.StoredAnswer.FromString(AnswerCodec().encode(ANSWER))
    wire.ClearField(part)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lacks|format"):
        AnswerCodec().decode(wire.SerializeToString())


@pytest.mark.parametrize(
    "blob",
    [b"", b"junk", b"\xff" * 40, pickle.dumps({"a": 1}), AnswerCodec().encode(ANSWER)[:-3], b"{}"],
    ids=["empty", "junk", "bytes", "pickle", "cut", "json"],
)
def test_foreign_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any message
        AnswerCodec().decode(blob)


def test_another_format_and_an_unknown_ending_are_refused() -> None:
    wire = pb.StoredAnswer.FromString(AnswerCodec().encode(ANSWER))
    wire.format = FORMAT + 1
    with pytest.raises(ValueError, match="format 3"):
        AnswerCodec().decode(wire.SerializeToString())
    wire.format = FORMAT
    wire.end.finish_reason = 99  # type: ignore[assignment]
    with pytest.raises(ValueError, match="99"):
        AnswerCodec().decode(wire.SerializeToString())
