"""Writes a Llama folder as a `.gguf` file for llama.cpp: `python -m benchmarks.engine.gguf_export FOLDER FILE TYPE`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quants
from safetensors import safe_open

_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "q8_0": "Q8_0", "q4_0": "Q4_0"}
_FILE_TYPES = {
    "BF16": "MOSTLY_BF16",
    "F16": "MOSTLY_F16",
    "F32": "ALL_F32",
    "Q8_0": "MOSTLY_Q8_0",
    "Q4_0": "MOSTLY_Q4_0",
}
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def export(folder: Path, file: Path, precision: str) -> None:
    """Writes `file`, without a tokenizer. Matrices get `precision`; vectors stay float32, as llama.cpp wants them."""
    config = json.loads((folder / "config.json").read_text())
    draft = file.with_suffix(".part")
    writer = GGUFWriter(draft, "llama")
    _describe(writer, config, _TYPES[precision])
    wanted = GGMLQuantizationType[_TYPES[precision]]
    for part in sorted(folder.glob("*.safetensors")):
        with safe_open(part, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                if name == "lm_head.weight" and config["tie_word_embeddings"]:
                    continue
                array = _ordered(name, tensors.get_tensor(name).to(torch.float32).numpy(), config)
                kind = wanted if array.ndim > 1 else GGMLQuantizationType.F32
                writer.add_tensor(_renamed(name), quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    draft.rename(file)


def _describe(writer: GGUFWriter, config: dict[str, Any], kind: str) -> None:
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_file_type(LlamaFileType[_FILE_TYPES[kind]])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _renamed(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if found := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{found[1]}.{_NAMES[found[2]]}.{kind}"
    return f"{_NAMES[stem]}.{kind}"


def _ordered(name: str, array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """llama.cpp rotates neighbouring rows of queries and keys, transformers rows that are half a head apart."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is None:
        return array
    rows, columns = array.shape
    halves = array.reshape(config[heads], 2, rows // config[heads] // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
