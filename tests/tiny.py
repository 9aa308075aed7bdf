"""Tiny models with random weights and small trained tokenizers, as folders that transformers loads."""

from __future__ import annotations

import json
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Architecture:
    """How to build one tiny, and the way in which the engine is to run it."""

    kind: str
    shape: dict[str, Any]
    path: str = "packed"
    attention: str | None = None  # where the default drops what the architecture asks for, such as a soft cap
    scale: float = 3.0


_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_SMALL_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_WINDOW: dict[str, Any] = {"sliding_window": 24}
_MIXED: dict[str, Any] = _WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}
_MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama", _SMALL),
    "qwen2": Architecture("qwen2", _SMALL),
    "qwen2 with window": Architecture("qwen2", _SMALL | _MIXED | {"use_sliding_window": True}),
    "qwen3": Architecture("qwen3", _SMALL | {"head_dim": 16}),
    "qwen3_moe": Architecture(
        "qwen3_moe", _SMALL | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    ),
    "gemma": Architecture("gemma", _SMALL | {"head_dim": 16}),
    "gemma2": Architecture(
        "gemma2",
        _SMALL | _MIXED | {"head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0},
        attention="eager",
        scale=10.0,
    ),
    "gemma3": Architecture("gemma3_text", _SMALL | _MIXED | {"head_dim": 16, "query_pre_attn_scalar": 16}),
    "mistral": Architecture("mistral", _SMALL | _WINDOW),
    "mixtral": Architecture("mixtral", _SMALL | {"num_local_experts": 4}),
    "phi": Architecture("phi", _SMALL),
    "phi3": Architecture("phi3", _SMALL | _WINDOW),
    "gpt2": Architecture("gpt2", _SMALL_GPT),
    "gpt_neox": Architecture("gpt_neox", _SMALL),
    "gptj": Architecture("gptj", _SMALL_GPT | {"rotary_dim": 4}, "apart"),
    "opt": Architecture(
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "word_embed_proj_dim": 32,
        },
    ),
    "bloom": Architecture("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "apart"),
    "falcon": Architecture(
        "falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False}, "apart"
    ),
    "falcon with ALiBi": Architecture(
        "falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True}, "apart"
    ),
    "starcoder2": Architecture("starcoder2", _SMALL | _WINDOW),
    "olmo2": Architecture("olmo2", _SMALL),
    "cohere": Architecture("cohere", _SMALL),
    "cohere2": Architecture("cohere2", _SMALL | _MIXED),
    "granite": Architecture("granite", _SMALL),
    "smollm3": Architecture("smollm3", _SMALL | {"no_rope_layers": [1, 0]}),
    "gpt_oss": Architecture("gpt_oss", _SMALL | _MIXED | {"head_dim": 16, "num_local_experts": 4}, attention="eager"),
    "deepseek_v3": Architecture(
        "deepseek_v3",
        _SMALL
        | {
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
    ),
    "glm4": Architecture("glm4", _SMALL | {"head_dim": 8}, scale=10.0),
    "exaone4": Architecture("exaone4", _SMALL | _MIXED),
    "ernie4_5": Architecture("ernie4_5", _SMALL, scale=10.0),
    "llama4": Architecture(
        "llama4_text",
        _SMALL | {"head_dim": 8, "num_local_experts": 2, "attention_chunk_size": 32, "intermediate_size_mlp": 64},
        "apart",
    ),
    "stablelm": Architecture("stablelm", _SMALL, "apart"),
    "mamba": Architecture("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "apart"),
    "granitemoehybrid": Architecture(
        "granitemoehybrid",
        _SMALL | _MAMBA | {"layer_types": ["mamba", "attention"], "num_local_experts": 2, "num_experts_per_tok": 1},
        "apart",
    ),
    "lfm2": Architecture("lfm2", _SMALL | {"layer_types": ["conv", "full_attention"]}, "apart"),
}
"""Small ones of many families. Windows are shorter than the tests' prompts; layers with and without one alternate."""


def build(name: str, vocabulary: int, *, seed: int = 0, **changes: Any) -> Any:
    """A model of `ARCHITECTURES[name]` in float32; its weights are scaled up, so that greedy answers vary."""
    of = ARCHITECTURES[name]
    torch.manual_seed(seed)
    tokens = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    # Tied to the embeddings, the output would repeat the last token whatever attention computes.
    shape = of.shape | tokens | {"tie_word_embeddings": False} | changes
    config = CONFIG_MAPPING[of.kind](**shape)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=of.attention).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() >= 2:
                parameter.mul_(of.scale)
            elif name.endswith("sinks"):
                parameter.normal_(1.0)
    return made


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
