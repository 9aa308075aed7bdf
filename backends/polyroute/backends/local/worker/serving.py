"""The worker's life: load, then steps and messages in turn until the router is gone."""

from __future__ import annotations

import copy
from typing import TypedDict

import torch

from polyroute.backends.local.messages import Load, LoadFailed, Ready, Rejected
from polyroute.backends.local.worker import compute
from polyroute.backends.local.worker.constraint import Constraints
from polyroute.backends.local.worker.conversation import Conversation, Inbox
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.failures import LoadError, explain
from polyroute.backends.local.worker.link import Link
from polyroute.backends.local.worker.loading import Loaded, load
from polyroute.backends.local.worker.progress import Reporter
from polyroute.backends.local.worker.prompts import PromptReader
from polyroute.backends.local.worker.spare import spare_bytes, taken_bytes
from polyroute.core.request import Sampling


def serve(order: Load, link: Link, inbox: Inbox) -> None:
    """Loads the model and serves it for ever; returns only where it cannot be loaded."""
    torch.set_num_threads(order.threads)  # counts for the thread that calls it, which is the one that steps
    try:
        loaded, weights, limits, engine = _build(order, Reporter(link.send))
    except Exception as error:  # noqa: BLE001 - a model's own code runs here, so anything can come
        link.send(LoadFailed(str(explain(error, order.source, hub_source=False))))
        return
    tokenizer = copy.deepcopy(loaded.tokenizer)  # read with in a thread of its own, while the engine decodes
    reader = PromptReader(tokenizer, loaded.context_length)
    constraints = Constraints(tokenizer, loaded.vocabulary_size, loaded.eos)
    memory_bytes, device_bytes = taken_bytes(torch.device(loaded.device))
    link.send(
        Ready(
            version=loaded.version,
            context_length=loaded.context_length,
            chat=reader.chat,
            greedy_default=not loaded.defaults.sample,
            device=loaded.device,
            dtype=loaded.dtype,
            max_sequences=limits["max_sequences"],
            weights=weights,
            path=engine.path,
            why_apart=engine.why_apart,
            kernels=engine.kernels,
            why_plain=engine.why_plain,
            graphs=engine.graphs,
            why_eager=engine.why_eager,
            kv_cache_tokens=engine.kv_capacity_tokens,
            memory_bytes=memory_bytes,
            kv_cache_bytes=limits["kv_cache_bytes"],
            device_bytes=device_bytes,
            defaults=loaded.defaults.told(),
        )
    )
    Conversation(engine, reader, constraints, link.send, inbox, torch.set_num_threads).run()


def _build(order: Load, report: Reporter) -> tuple[Loaded, str, _Limits, Engine]:
    """The model, what its weights are in words, what bounds its engine, and that one, which has answered once."""
    loaded = load(order, report)
    report(f"converting to {order.quantization}" if order.quantization else "preparing the layers")
    prepared = compute.prepare(loaded.model, quantization=order.quantization)
    report("trying it out")
    limits = _limits(order, loaded.device)
    engine = Engine(
        loaded.model,
        Vocabulary(loaded.tokenizer),
        context_length=loaded.context_length,
        eos=loaded.eos,
        defaults=loaded.defaults,
        kv_dtype=prepared.kv_dtype,
        cuda_graphs=order.cuda_graphs,
        **limits,
    )
    _prove(engine, loaded)
    return loaded, prepared.words, limits, engine


class _Limits(TypedDict):
    max_sequences: int
    max_batch_tokens: int
    kv_cache_bytes: int


def _limits(order: Load, device: str) -> _Limits:
    """What bounds the engine: as ordered, else as is right for the kind of device."""
    most, tokens = (256, 2048) if device.startswith("cuda") else (64, 512)
    kv_cache_bytes = order.kv_cache_bytes
    if kv_cache_bytes is None:
        kv_cache_bytes = spare_bytes(torch.device(device))
        if order.kv_cache_most is not None:
            kv_cache_bytes = min(kv_cache_bytes, order.kv_cache_most)
    return {
        "max_sequences": order.max_sequences or most,
        "max_batch_tokens": order.max_batch_tokens or tokens,
        "kv_cache_bytes": kv_cache_bytes,
    }


def _prove(engine: Engine, loaded: Loaded) -> None:
    """Has the model answer once, so that ready means ready."""
    engine.submit(0, [loaded.tokenizer.bos_token_id or 0], Sampling(max_tokens=1, temperature=0))
    for output in engine.step():
        if isinstance(output, Rejected):
            raise LoadError(f"the model loads but does not run: {output.message}")
