"""Tiny models with random weights and small trained tokenizers, as folders that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is the capital of France? It is Paris, of course.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "敏捷的棕色狐狸跳过了懒狗。今天天气很好，我们去公园吧。",  # noqa: RUF001
    "いろはにほへと ちりぬるを わかよたれそ つねならむ",
    "다람쥐 헌 쳇바퀴에 타고파",
    "نص حكيم له سر قاطع وذو شأن عظيم",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
    "def add(a, b):\n    return a + b\n\n\tif x:  # don't!\n",
    "👍 👩‍👩‍👧‍👦 🇫🇷 e\u0301 ✨✨",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'tool' %}{{ raise_exception('no tool messages, please') }}{% endif %}"
    "{{ '<s>' + message.role + '\n' + message.content + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)

_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}

SHAPES: dict[str, dict[str, Any]] = {
    "llama": _SHAPE,
    "qwen2": _SHAPE,
    "gemma": _SHAPE | {"head_dim": 32},
    "mistral": _SHAPE | {"sliding_window": 24, "head_dim": 16},
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512},
}
"""Configuration of each architecture under test; Mistral's window is shorter than the tests' prompts."""


def byte_level_tokenizer(vocabulary: int = 800, chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as of GPT-2, Llama 3 and Qwen: `<s>` is 0, `</s>` is 1."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.add_tokens([AddedToken("<|plain added|>", normalized=False)])
    return _wrap(core, chat_template)


def byte_fallback_tokenizer(vocabulary: int = 500) -> PreTrainedTokenizerFast:
    """BPE with SentencePiece's word marks and byte fallback, as of Llama 2 and Mistral."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    alphabet = sorted({c for line in CORPUS[:3] for c in line if c.isascii()} | {"▁"})
    core.train_from_iterator(
        ["▁" + line.replace(" ", "▁") for line in CORPUS[:3]],
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))],
            limit_alphabet=len(alphabet),
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return _wrap(_plain_bytes(core), None)


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece, as of BERT: the space stands between tokens, not in them."""
    core = Tokenizer(models.WordPiece(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(cleanup=False)
    core.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=600, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False),
    )
    return _wrap(core, None)


def build_model(kind: str, vocabulary: int, *, scale: float | None = None, seed: int = 0, **changes: Any) -> Any:
    """A model of `SHAPES[kind]` in float32; its weights are scaled up, so that greedy answers vary."""
    scale = scale or {"gemma": 10.0}.get(kind, 3.0)
    torch.manual_seed(seed)
    shape = SHAPES[kind] | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "vocab_size": vocabulary}
    config = CONFIG_MAPPING[kind](**(shape | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
    return model


def save(kind: str, folder: Path, **changes: Any) -> Path:
    """Writes a model of that kind, with a byte-level tokenizer and a chat template, into `folder`."""
    tokenizer = byte_level_tokenizer()
    build_model(kind, len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _plain_bytes(core: Tokenizer) -> Tokenizer:
    """The same tokenizer with its byte tokens as ordinary ones, which decoding does not skip."""
    spec = json.loads(core.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(spec))


def _wrap(core: Tokenizer, chat_template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = chat_template
    return tokenizer
