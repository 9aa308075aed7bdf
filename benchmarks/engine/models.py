"""Makes the models that are measured: the packaged demo, or random weights of a known shape, saved in bfloat16.

Run as a module, it makes one: `python -m benchmarks.engine.models NAME FOLDER`.
"""

from __future__ import annotations

import itertools
import json
import os
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEED = 20
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 2048,
    },
    "135m": {  # SmolLM2-135M
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "1b": {  # Llama-3.2-1B
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
    },
    "8b": {  # Llama-3.1-8B
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}
"""Fields of a `LlamaConfig`; word embeddings are tied where nothing else is said."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polyroute" / "benchmarks"
"""Where models are made and kept where nothing else is said."""

DEMO = "demo"
NAMES = (DEMO, *SHAPES)
_DONE = "made"  # a file that stands in a folder once all others do


def find(name: str, models: Path) -> Path | None:
    """The folder of the model that `name` is or names, in `models`, if it is there."""
    if name not in NAMES:
        return Path(name).expanduser()
    folder = models / name
    if name == DEMO:
        made = sorted((folder / "models").glob("*/config.json"))
        return made[-1].parent if made else None
    return folder if (folder / _DONE).exists() else None


def make(name: str, models: Path) -> None:
    """Writes the model `name` under `models`: minutes, and memory for its weights."""
    if name == DEMO:
        from polyroute.backends.local.worker import gguf
        from polyroute.backends.local.worker.progress import Reporter

        gguf.prepare(None, models / name, gguf.DTYPE, Reporter(lambda _: None))
        return
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = models / name
    torch.manual_seed(SEED)
    config = LlamaConfig(
        **{"tie_word_embeddings": True} | SHAPES[name],
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # a GPU draws billions of weights in seconds
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    _tokenizer(SHAPES[name]["vocab_size"]).save_pretrained(folder)
    (folder / _DONE).touch()


def weight_count(folder: Path) -> tuple[int, int]:
    """Weights of the Llama in `folder` that every token meets, and those of its output layer."""
    config = json.loads((folder / "config.json").read_text())
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    attention = hidden * head * (2 * heads + 2 * config["num_key_value_heads"])
    layer = attention + 3 * hidden * config["intermediate_size"]
    return layer * config["num_hidden_layers"], hidden * config["vocab_size"]


def _tokenizer(size: int) -> Any:
    """A byte-level tokenizer of `size` tokens, most of which are made-up words of four letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = list(itertools.islice(_merges(), size - len(tokens)))
    vocabulary = {token: i for i, token in enumerate(tokens + [left + right for left, right in merges])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>")


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs of letters, then a space before each pair, then two pairs after a space: each made of what was before."""
    pairs = ["".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2)]
    yield from (tuple(pair) for pair in pairs)  # type: ignore[misc]
    yield from (("\u0120", pair) for pair in pairs)
    yield from ((f"\u0120{first}", second) for first in pairs for second in pairs)


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
