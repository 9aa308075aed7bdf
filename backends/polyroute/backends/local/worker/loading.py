"""Loads a causal language model from the hub, a folder, a `.gguf` file or the packaged demo."""

from __future__ import annotations

import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import huggingface_hub.constants as hub
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from polyroute.backends.local.messages import Load
from polyroute.backends.local.worker import gguf
from polyroute.backends.local.worker.digest import folder_version
from polyroute.backends.local.worker.failures import LoadError, explain
from polyroute.backends.local.worker.lean import without_compiler
from polyroute.backends.local.worker.progress import Reporter
from polyroute.backends.local.worker.sampling import SamplingDefaults

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_CONNECT_S = 5.0
_NO_LIMIT = 10**9  # tokenizers say "no limit" by absurdly large numbers


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device, ready for the engine. `context_length` is in tokens, 0 where there is no limit;
    `vocabulary_size` is that of its logits."""

    model: Any
    tokenizer: Any
    vocabulary_size: int
    version: str
    context_length: int
    eos: frozenset[int]
    defaults: SamplingDefaults
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class _Source:
    """Where to load from: a folder or a hub ID. `version` is set where the weights have one of their own already, and
    then `dtype` is the one that they have without being asked for another."""

    name: str
    hub: bool = False
    version: str = ""
    dtype: torch.dtype | None = None


def load(order: Load, report: Reporter) -> Loaded:
    """Loads what `order` names; raises `LoadError`."""
    quiet()
    source = _Source(order.source)
    try:
        device = _device(order.device)
        source = _source(order, report)
        return _load(order, source, device, report)
    except Exception as error:  # a model may bring its own code, so anything can come
        raise explain(error, order.source, hub_source=source.hub) from error


def quiet() -> None:
    """Keeps the libraries' progress bars and advice off stderr; errors remain."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _load(order: Load, source: _Source, device: torch.device, report: Reporter) -> Loaded:
    where: dict[str, Any] = {"trust_remote_code": order.trust_remote_code}
    watched: Any = nullcontext()
    if source.hub:
        where |= {"revision": order.revision} if order.revision else {}
        where |= {"local_files_only": True} if not _hub_reachable() else {}
        folder = Path(hub.HF_HUB_CACHE) / f"models--{source.name.replace('/', '--')}" / "blobs"
        watched = report.growth("downloading", folder)
    transformers_logging.set_tqdm_hook(lambda _factory, args, kwargs: report.bar("loading weights")(*args, **kwargs))
    report("loading")
    hashed = None
    if not source.hub and not source.version:  # while the weights load, since both take seconds for large ones
        hashed = ThreadPoolExecutor(1, "version").submit(folder_version, Path(source.name))
    with watched:
        config = AutoConfig.from_pretrained(source.name, **where)  # first, since its errors say most
        own = source.dtype or config.dtype
        tokenizer = AutoTokenizer.from_pretrained(source.name, **where)
        model, missing = _model(source.name, where | {"dtype": _dtype(order.dtype) or "auto"})
    if lacking := sorted(missing["missing_keys"]):
        raise LoadError(f"`{order.source}`: its weights lack {len(lacking)} tensors, {lacking[0]} among them")
    own = own or model.dtype
    if order.dtype == "auto" and device.type == "cpu" and model.dtype == torch.float16:
        model = model.float()  # half precision has no fast arithmetic on CPUs, and loses answers to overflow
    model = model.to(device).eval()
    report("naming the version")
    version = source.version or (hashed.result() if hashed is not None else _hub_version(source, model))
    if model.dtype != own:  # the same weights answer differently
        version = f"{version}-{_name(model.dtype)}"
    if order.quantization is not None:
        version = f"{version}-{order.quantization}"
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        vocabulary_size=model.config.get_text_config(decoder=True).vocab_size,
        version=version,
        context_length=_context_length(model, tokenizer),
        eos=_eos(model, tokenizer),
        defaults=SamplingDefaults.of(model.generation_config),
        device=str(device),
        dtype=_name(model.dtype),
    )


def _model(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """The model and what its files lack; without the compiler where it bears that, which saves seconds."""
    load = partial(AutoModelForCausalLM.from_pretrained, name, output_loading_info=True, **options)
    if not options["trust_remote_code"]:
        with suppress(ImportError, AttributeError, TypeError), without_compiler():
            return cast("tuple[Any, Any]", load())
    return cast("tuple[Any, Any]", load())


def _source(order: Load, report: Reporter) -> _Source:
    if order.source == "demo" or order.source.endswith(".gguf"):
        file = None if order.source == "demo" else Path(order.source).expanduser()
        made = gguf.prepare(file, Path(order.cache_dir), _dtype(order.dtype) or gguf.DTYPE, report)
        return _Source(str(made.folder), version=made.version, dtype=gguf.DTYPE)
    path = Path(order.source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LoadError(f"`{path}` holds no model: there is no config.json in it")
        return _Source(str(path))
    if path.exists():
        raise LoadError(f"`{path}` is neither a folder nor a .gguf file")
    if not _HUB_ID.fullmatch(order.source) or order.source.startswith("."):
        raise LoadError(f"there is no folder `{path}`, and it is no ID on the Hugging Face hub")
    return _Source(order.source, hub=True)


def _hub_reachable() -> bool:
    """Whether to ask the hub at all: its client retries for half a minute where there is no network."""
    if hub.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the proxy can tell
    url = urlsplit(hub.ENDPOINT)
    try:
        address = (url.hostname or "", url.port or (80 if url.scheme == "http" else 443))
        socket.create_connection(address, _CONNECT_S).close()
    except OSError:
        return False
    return True


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    device = torch.device(wanted)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}[device.type]
    if (device.index or 0) >= count:
        raise LoadError(f"there is no device `{wanted}` here (torch {torch.__version__} sees {count} of that kind)")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # Triton launches on the current one
    return device


def _dtype(wanted: str) -> torch.dtype | None:
    """None is the checkpoint's own."""
    dtype: torch.dtype | None = None if wanted == "auto" else getattr(torch, wanted)
    return dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _hub_version(source: _Source, model: Any) -> str:
    if commit := getattr(model.config, "_commit_hash", None):
        return str(commit)
    return folder_version(Path(cached_file(source.name, "config.json", local_files_only=True)).parent)


def _context_length(model: Any, tokenizer: Any) -> int:
    config = model.config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "max_sequence_length", "seq_length", "max_seq_len"):
        if isinstance(length := getattr(config, name, None), int) and length > 0:
            return length
    limit = int(tokenizer.model_max_length)
    return limit if limit < _NO_LIMIT else 0


def _eos(model: Any, tokenizer: Any) -> frozenset[int]:
    said = model.generation_config.eos_token_id
    ids = set(said if isinstance(said, list) else [said])
    return frozenset(i for i in ids | {tokenizer.eos_token_id} if i is not None)
