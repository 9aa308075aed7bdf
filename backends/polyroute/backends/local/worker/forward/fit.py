"""Finds the way in which a model can be run, by trying: packed where that gives what the model's own code gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from polyroute.backends.local.worker.forward.apart import ApartForward, ApartMemory, cache_name
from polyroute.backends.local.worker.forward.attention import NAME, NotPackable
from polyroute.backends.local.worker.forward.batch import BATCH, Batch
from polyroute.backends.local.worker.forward.cuda_graphs import recorder
from polyroute.backends.local.worker.forward.fused import Stack, fuse
from polyroute.backends.local.worker.forward.fused_gpu import GpuStack, fuse_on_gpu
from polyroute.backends.local.worker.forward.graphs import Graphs, reason
from polyroute.backends.local.worker.forward.kv_cache import KVCache
from polyroute.backends.local.worker.forward.packed import PackedForward
from polyroute.backends.local.worker.forward.slabs import LayerShape
from polyroute.backends.local.worker.forward.trial import Trial, narrow_windows
from polyroute.backends.local.worker.forward.turn import Forward
from polyroute.backends.local.worker.gpu.attention import SlotAttention, slot_attention
from polyroute.backends.local.worker.spare import spare_bytes

_GROWING_ROPES = {"dynamic", "longrope"}  # positions whose angles depend on how long the text is
_CACHE_BYTES = 1 << 28  # of a trial apart
_CACHE_TOKENS = 1024  # of one packed: more than its texts take while they move, however much a token has
_SPLIT_AT = 16  # positions from which kernels split a text in one of their trials, else they would not meet the case
_CAPACITY = 64  # of the slots that hold a text
_FIRST_CAPACITY = 32  # of those that graphs are tried on: one text outgrows it while both are decoded


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a model is run; `why_apart` says why it cannot be packed, and is empty where it can.

    `kernels` tells whether it attends by a GPU's, `fused` whether its layers run as compiled functions, `graphs`
    whether steps that decode are recorded and played; `why_plain` and `why_eager` say why it does not attend so, and
    why they are not, on a device that could, and are empty elsewhere.
    """

    forward: Forward
    why_apart: str = ""
    kernels: bool = False
    why_plain: str = ""
    fused: bool = False
    graphs: bool = False
    why_eager: str = ""


@torch.inference_mode()
def fit(
    model: Any, kv_cache_bytes: int | None, kv_dtype: torch.dtype | None = None, *, cuda_graphs: bool = True
) -> Fitted:
    """Tries the packed way against the model's own; leaves the model set up for the way that is returned.

    `kv_cache_bytes` caps the memory of keys and values; None is what the device has to spare. Packed, they are kept in
    `kv_dtype`; None is the one that the model computes them in. On a GPU, steps that decode are recorded, where that is
    wanted (`cuda_graphs`) and gives the same.
    """
    own = model.config._attn_implementation
    limit = kv_cache_bytes if kv_cache_bytes is not None else spare_bytes(model.device)

    def cache(limit_bytes: int, kernels: SlotAttention | None, **options: int) -> KVCache:
        zeroed = kernels is None
        return KVCache(shapes, kv_dtype or dtype, model.device, limit_bytes=limit_bytes, zeroed=zeroed, **options)

    def trial_cache(kernels: SlotAttention | None, first_capacity: int) -> KVCache:
        token_bytes = sum(shape.numbers for shape in shapes) * (kv_dtype or dtype).itemsize
        return cache(_CACHE_TOKENS * token_bytes, kernels, first_capacity=first_capacity)

    try:
        with narrow_windows(model):
            trial = Trial(model)
            model.set_attn_implementation(NAME)
            shapes, dtype = _probe(model)
            compared = _attending(
                model, lambda of: trial.compare(PackedForward(model, trial_cache(of, _CAPACITY), None, of))
            )
            kernels, record = compared.kernels, recorder(model.device)
            why_eager = ""
            if record is not None:
                small = PackedForward(
                    model,
                    trial_cache(kernels, _FIRST_CAPACITY),
                    Graphs(model, record, after=0, kernels=kernels),
                    kernels,
                )
                why_eager = _why_eager(small, trial) if cuda_graphs else "`cuda_graphs` is off"
        graphs = Graphs(model, record, kernels=kernels) if record is not None and not why_eager else None
        return Fitted(
            PackedForward(model, cache(limit, kernels), graphs, kernels),
            kernels=kernels is not None,
            why_plain=compared.why_plain,
            fused=compared.fused,
            graphs=graphs is not None,
            why_eager=why_eager,
        )
    except Exception as error:  # noqa: BLE001 - the model's own code runs here, so anything can come
        model.set_attn_implementation(own)
        why = str(error) if isinstance(error, NotPackable) else f"{type(error).__name__}: {error}"
    base, slope = _state_bytes(model)

    def apart(limit_bytes: int, whole_prompts: bool) -> ApartForward:
        memory = ApartMemory(sequence_bytes=base, token_bytes=slope, limit_bytes=limit_bytes)
        return ApartForward(model, memory, whole_prompts=whole_prompts)

    with narrow_windows(model):
        try:
            Trial(model).compare(apart(_CACHE_BYTES, whole_prompts=False))
            whole = False
        except (NotPackable, RuntimeError, ValueError):  # such as a recurrent state, which takes one token at a time
            whole = True
    return Fitted(apart(limit, whole), why)


@dataclass(frozen=True, slots=True)
class _Attending:
    """What the packed way attends by, None being torch, whether layers are fused, and see `Fitted.why_plain`."""

    kernels: SlotAttention | None
    fused: bool
    why_plain: str = ""


def _attending(model: Any, compare: Callable[[SlotAttention | None], None]) -> _Attending:
    """The quickest way that `compare` lets pass; raises what it raises for the plainest one."""
    why_plain = ""
    try:
        kernels, splitting = slot_attention(model.device), slot_attention(model.device, least_share=_SPLIT_AT)
        if kernels is not None:

            def both() -> None:
                compare(splitting)
                compare(kernels)

            return _Attending(kernels, _fuses(fuse_on_gpu(model), both))
    except Exception as error:  # noqa: BLE001 - a compiler and a driver take part, and torch's own way is left
        why_plain = str(error) if isinstance(error, NotPackable) else reason(error)
    return _Attending(None, _fuses(fuse(model), lambda: compare(None)), why_plain)


def _fuses(stack: Stack | GpuStack | None, compare: Callable[[], None]) -> bool:
    """Whether the model's layers run as compiled functions from now on: where there are such, and they are right."""
    try:
        compare()
    except Exception:
        if stack is None:
            raise
        stack.undo()
        compare()
        return False
    if stack is not None:
        stack.forget()
    return stack is not None


def _why_eager(forward: PackedForward, trial: Trial) -> str:
    """Why steps that decode cannot be recorded and played; empty where that gives what the model gives."""
    try:
        trial.compare(forward, "played from a graph")
    except NotPackable as difference:
        return str(difference)
    except Exception as error:  # noqa: BLE001 - a driver may raise anything; what lasts comes again in the first step
        return f"{type(error).__name__}: {error}"
    return forward.why_eager or ("" if forward.ever_played else "the trial came to play none")


def _probe(model: Any) -> tuple[list[LayerShape], torch.dtype]:
    """What each layer keeps of a token, from what its attention is given; not every configuration tells."""
    if found := _GROWING_ROPES & set(_rope_types(model.config.to_dict())):
        raise NotPackable(f"its positions ({found.pop()}) depend on the length of the text")
    batch = Batch(shapes={})
    ids = torch.zeros((1, 3), dtype=torch.long, device=model.device)
    model(input_ids=ids, position_ids=torch.arange(3, device=model.device)[None], use_cache=False, **{BATCH: batch})
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    if batch.shapes is None or batch.dtype is None or sorted(batch.shapes) != list(range(layers)):
        raise NotPackable(f"{len(batch.shapes or ())} of its {layers} layers attend through the interface")
    return [batch.shapes[layer] for layer in range(layers)], batch.dtype


def _rope_types(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for name, value in found.items():
            if name in ("rope_type", "type") and isinstance(value, str):
                yield value
            yield from _rope_types(value)


def _state_bytes(model: Any) -> tuple[int, int]:
    """What a sequence keeps, and what each of its tokens adds, in bytes: measured on the model's own cache."""
    sizes = []
    for length in (4, 20):
        cache = DynamicCache(config=model.config)
        ids = torch.zeros((1, length), dtype=torch.long, device=model.device)
        model(input_ids=ids, use_cache=True, **{cache_name(model): cache})
        sizes.append(sum(_nbytes(layer) for layer in cache.layers))
    slope = max(1, (sizes[1] - sizes[0]) // 16)
    return max(0, sizes[0] - 4 * slope), slope


def _nbytes(layer: Any) -> int:
    return sum(v.nbytes for v in vars(layer).values() if isinstance(v, torch.Tensor))
