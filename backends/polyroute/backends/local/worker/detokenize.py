"""Turns token IDs into text as they come: never a part of a character, never a space too many or too few.

The pieces of a stream concatenate to `tokenizer.decode(ids, skip_special_tokens=True,
clean_up_tokenization_spaces=False)`, at a cost per token that does not grow with the answer.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from transformers import PreTrainedTokenizerFast

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CONTEXT_TOKENS = 6
_MAX_PENDING = 16
_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's mark for a space


class TextStream(Protocol):
    """One answer's text."""

    def add(self, token: int) -> str:
        """Takes the next token; returns the text that is now certain."""

    def flush(self) -> str:
        """Returns what is left once no token follows; an incomplete character becomes U+FFFD."""


class Vocabulary:
    """What a tokenizer's tokens stand for; made once a tokenizer, with which its streams share the decoder.

    `special` tokens never show in the text; `hidden` has them by name.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special = _special_ids(tokenizer)
        names = tokenizer.convert_ids_to_tokens(sorted(self.special))
        self.hidden: dict[str, int] = dict(zip(names, sorted(self.special), strict=True))
        self.byte_level = _is_byte_level(tokenizer)
        self.byte_fallback = {} if self.byte_level else _byte_fallback_ids(tokenizer)
        self._bytes: dict[int, bytes] = {}
        self._spelt: dict[int, tuple[str, bytes]] = {}
        self._decode: Callable[..., str] = partial(tokenizer.decode, clean_up_tokenization_spaces=False)
        if isinstance(tokenizer, PreTrainedTokenizerFast) and _decodes_plainly(type(tokenizer)):
            self._decode = tokenizer.backend_tokenizer.decode  # at half the cost

    def stream(self, context: Sequence[int] = ()) -> TextStream:
        """A stream for a new answer.

        `context` is the text that the answer continues, if it does: tokenizers that mark the beginning of a word
        drop the mark of the first one, which is right for an answer of its own and wrong for a continuation.
        """
        if self.byte_level:
            return _ByteLevelStream(self)
        tail = [token for token in context[-_CONTEXT_TOKENS:] if token not in self.special]
        while tail and tail[-1] in self.byte_fallback:
            tail.pop()
        return _WindowStream(self, tail)

    def exact_stream(self) -> TextStream:
        """A stream of what the tokens spell one by one, as a constraint sees them: no space is dropped or added."""
        return _ByteLevelStream(self)

    def token_bytes(self, token: int) -> bytes:
        """What one token adds to the text, as UTF-8, or a part of it."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._read_token(token)
        return known

    def spelt(self, token: int) -> tuple[str, bytes]:
        """One token as text, with U+FFFD for parts of characters, and as `token_bytes`."""
        known = self._spelt.get(token)
        if known is None:
            spelling = self.token_bytes(token)
            known = self._spelt[token] = spelling.decode(errors="replace"), spelling
        return known

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, special ones left out."""
        text: str = self._decode(list(tokens), skip_special_tokens=True)
        return text

    def _read_token(self, token: int) -> bytes:
        if token in self.byte_fallback:
            return bytes([self.byte_fallback[token]])
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # a row of the output layer beyond the vocabulary
            return b""
        if not self.byte_level:
            return str(piece).replace(_WORD_START, " ").encode()
        try:
            return bytes(_BYTE_OF[character] for character in piece)
        except KeyError:  # an added token, which stands for itself
            return str(piece).encode()


class _ByteLevelStream:
    """For tokens that are bytes, as in byte-level BPE: an incremental decoder keeps the incomplete ones."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> str:
        if token in self._vocabulary.special:
            return ""
        return self._decoder.decode(self._vocabulary.token_bytes(token))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class _WindowStream:
    """For every other tokenizer: decodes the latest tokens with those just before them, and shows the difference.

    The tokens before are the decoder's cue for spaces. A run of byte-fallback tokens is decoded only once it has ended:
    whether its bytes are characters is decided for the run as a whole.
    """

    def __init__(self, vocabulary: Vocabulary, context: list[int]) -> None:
        self._vocabulary = vocabulary
        self._window = context
        self._shown_tokens = len(context)
        self._shown_chars = len(vocabulary.decode(context)) if context else 0

    def add(self, token: int) -> str:
        if token in self._vocabulary.special:
            return ""
        self._window.append(token)
        return "" if token in self._vocabulary.byte_fallback else self._show(final=False)

    def flush(self) -> str:
        return self._show(final=True) if len(self._window) > self._shown_tokens else ""

    def _show(self, *, final: bool) -> str:
        text = self._vocabulary.decode(self._window)
        pending = len(self._window) - self._shown_tokens
        if text.endswith(_REPLACEMENT) and not final and pending < _MAX_PENDING:
            return ""
        fresh = text[self._shown_chars :]
        if fresh:
            self._window = self._window[self._shown_tokens :]
            self._shown_tokens = len(self._window)
            self._shown_chars = len(self._vocabulary.decode(self._window))
        return fresh


def _decodes_plainly(kind: type) -> bool:
    """Whether a fast tokenizer's class adds nothing of its own to how the library underneath decodes."""
    return all(getattr(kind, name) is getattr(PreTrainedTokenizerFast, name) for name in ("decode", "_decode"))


def _special_ids(tokenizer: Any) -> frozenset[int]:
    ids = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return frozenset(ids if tokenizer.is_fast else ids | set(tokenizer.all_special_ids))


def _is_byte_level(tokenizer: Any) -> bool:
    decoder = tokenizer.backend_tokenizer.decoder if tokenizer.is_fast else None
    if decoder is None:
        return False
    state = json.loads(decoder.__getstate__())
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    return [step["type"] for step in steps] == ["ByteLevel"]


def _byte_fallback_ids(tokenizer: Any) -> dict[int, int]:
    """Token ID -> byte, of a vocabulary that spells unknown characters in tokens such as `<0xE4>`."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    ids = tokenizer.convert_tokens_to_ids(pieces)
    known = tokenizer.convert_ids_to_tokens([i if i is not None else 0 for i in ids])
    return {i: byte for byte, (i, piece) in enumerate(zip(ids, known, strict=True)) if piece == pieces[byte]}


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte (Radford et al., `bytes_to_unicode`), turned around."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_BYTE_OF = _byte_alphabet()
