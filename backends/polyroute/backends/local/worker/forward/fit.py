"""Finds the way in which a model can be run, by trying: packed where that gives what the model's own code gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import DynamicCache

from polyroute.backends.local.worker.forward.apart import ApartForward, ApartMemory, cache_name
from polyroute.backends.local.worker.forward.attention import NAME, NotPackable
from polyroute.backends.local.worker.forward.batch import BATCH, Batch
from polyroute.backends.local.worker.forward.cuda_graphs import recorder
from polyroute.backends.local.worker.forward.fused import fuse
from polyroute.backends.local.worker.forward.graphs import Graphs, Record
from polyroute.backends.local.worker.forward.kv_cache import KVCache
from polyroute.backends.local.worker.forward.packed import PackedForward
from polyroute.backends.local.worker.forward.slabs import LayerShape
from polyroute.backends.local.worker.forward.turn import Chunk, Forward, Turn
from polyroute.backends.local.worker.spare import spare_bytes

_WINDOW = 16  # the width that attention windows are narrowed to for the trial, so that a short text passes them
_LENGTHS = (48, 37)  # of the trial's two texts, beyond any window
_CHUNK = 11
_DECODED = 9  # of their tokens, how many are fed one by one
_TOLERANCE = 2e-3  # of the logits' norm; more where the model itself is not as exact
_ROUNDING = 1e-6  # of a number: what sums of float32 in another order differ by
_GROWING_ROPES = {"dynamic", "longrope"}  # positions whose angles depend on how long the text is
_CACHE_BYTES = 1 << 28
_FIRST_CAPACITY = 32  # of the slots that graphs are tried on: one text outgrows it while both are decoded


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a model is run; `why_apart` says why it cannot be packed, and is empty where it can.

    `fused` tells whether its layers run as compiled functions, `graphs` whether steps that decode are recorded and
    played; `why_eager` says why they are not on a device that could, and is empty elsewhere.
    """

    forward: Forward
    why_apart: str = ""
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

    def cache(limit_bytes: int, **options: int) -> KVCache:
        return KVCache(shapes, kv_dtype or dtype, model.device, limit_bytes=limit_bytes, **options)

    try:
        with _narrow_windows(model):
            trial = _Trial(model)
            model.set_attn_implementation(NAME)
            shapes, dtype = _probe(model)
            fused = _fuses(model, lambda: trial.compare(PackedForward(model, cache(_CACHE_BYTES))))
            record = recorder(model.device)
            why_eager = ""
            if record is not None:
                small = cache(_CACHE_BYTES, first_capacity=_FIRST_CAPACITY)
                why_eager = _why_eager(model, record, small, trial) if cuda_graphs else "`cuda_graphs` is off"
        graphs = Graphs(model, record) if record is not None and not why_eager else None
        forward = PackedForward(model, cache(limit), graphs)
        return Fitted(forward, fused=fused, graphs=graphs is not None, why_eager=why_eager)
    except Exception as error:  # noqa: BLE001 - the model's own code runs here, so anything can come
        model.set_attn_implementation(own)
        why = str(error) if isinstance(error, NotPackable) else f"{type(error).__name__}: {error}"
    base, slope = _state_bytes(model)

    def apart(limit_bytes: int, whole_prompts: bool) -> ApartForward:
        memory = ApartMemory(sequence_bytes=base, token_bytes=slope, limit_bytes=limit_bytes)
        return ApartForward(model, memory, whole_prompts=whole_prompts)

    with _narrow_windows(model):
        try:
            _Trial(model).compare(apart(_CACHE_BYTES, whole_prompts=False))
            whole = False
        except (NotPackable, RuntimeError, ValueError):  # such as a recurrent state, which takes one token at a time
            whole = True
    return Fitted(apart(limit, whole), why)


def _fuses(model: Any, compare: Callable[[], None]) -> bool:
    """Whether the model's layers run as compiled functions from now on: where there are such, and they are right."""
    stack = fuse(model)
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


def _why_eager(model: Any, record: Record, memory: KVCache, trial: _Trial) -> str:
    """Why steps that decode cannot be recorded and played; empty where that gives what the model gives."""
    graphs = Graphs(model, record, after=0)
    try:
        trial.compare(PackedForward(model, memory, graphs), "played from a graph")
    except NotPackable as difference:
        return str(difference)
    except Exception as error:  # noqa: BLE001 - a driver may raise anything; what lasts comes again in the first step
        return f"{type(error).__name__}: {error}"
    return graphs.why_not or ("" if graphs.played else "the trial came to play none")


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


@contextmanager
def _narrow_windows(model: Any) -> Iterator[None]:
    """Attention windows and chunks of `_WINDOW` tokens for a while: a fault shows at any width."""
    config = model.config.get_text_config(decoder=True)
    changed: list[tuple[Any, str, int]] = []
    for owner in (model.config, config, *model.modules()):
        for name in ("sliding_window", "attention_chunk_size"):
            width = getattr(owner, name, None)
            if isinstance(width, int) and not isinstance(width, bool) and width > _WINDOW:
                changed.append((owner, name, width))
                setattr(owner, name, _WINDOW)
    try:
        yield
    finally:
        for owner, name, width in reversed(changed):
            setattr(owner, name, width)


@dataclass(eq=False, slots=True)
class _Text:
    """A text of the trial, as a sequence; the tokens are given, and only looked at one by one."""

    id: int
    all: list[int]
    wanted: torch.Tensor  # the model's own logits after each of its tokens
    length: int = 0
    arrival: int = 0
    processed: int = 0
    cached: int = 0
    room: int = 0

    @property
    def prompt(self) -> list[int]:
        return self.all

    def tokens(self, start: int, stop: int) -> list[int]:
        return self.all[start:stop]


class _Trial:
    """Two texts, with what the model's own code makes of them; made before its attention is replaced."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config(decoder=True)
        most = getattr(config, "max_position_embeddings", None) or max(_LENGTHS)
        chance = torch.Generator().manual_seed(0)
        self._texts = []
        self._tolerance = _TOLERANCE
        for id, length in enumerate(_LENGTHS):
            tokens = torch.randint(config.vocab_size, (min(length, most),), generator=chance)
            logits = _own_logits(model, tokens)
            half = _own_logits(model, tokens[: len(tokens) // 2])
            with _disturbed(model):
                noisy = _own_logits(model, tokens)
            trembling = max(_error(*rows) for rows in zip(noisy, logits, strict=True))
            self._tolerance = max(self._tolerance, 4 * _error(half[-1], logits[len(half) - 1]), 2 * trembling)
            self._texts.append(_Text(id, tokens.tolist(), logits))

    def compare(self, forward: Forward, way: str = "packed") -> None:
        """Reads the texts in chunks, the second joining late, then token by token.

        Raises `NotPackable`, which says that the model answers differently this `way`.
        """
        for text in self._texts:
            text.processed, text.length = 0, max(1, len(text.all) - _DECODED)
        active = self._texts[:1]
        while active:
            self._run(forward, active, way)
            active = [text for text in self._texts if text.processed < len(text.all)]

    def _run(self, forward: Forward, active: list[_Text], way: str) -> None:
        turn = Turn([], [])
        for text in active:
            if text.processed >= text.length:
                text.length += 1
            forward.memory.reserve(text, text.length)
            left = text.length - text.processed
            if left == 1 and text.processed:
                turn.decoding.append(text)
            else:
                turn.chunks.append(Chunk(text, min(left, _CHUNK)))
        wanted_rows = [cast("_Text", text).wanted[text.length - 1] for text in turn.choosing]
        logits = forward.run(turn)
        for member in turn.decoding:
            member.processed += 1
        for chunk in turn.chunks:
            chunk.sequence.processed += chunk.count
        for row, wanted in zip(logits, wanted_rows, strict=True):
            if not (error := _error(row, wanted)) <= self._tolerance:
                raise NotPackable(f"{way}, it answers differently (logits are off by {error:.1%})")


@contextmanager
def _disturbed(model: Any) -> Iterator[None]:
    """What float32's own rounding may do to the embeddings: where products round to 16 bits, it does not stay small."""
    chance = torch.Generator().manual_seed(0)

    def disturb(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(output.shape, generator=chance).to(output)
        return output * (1 + _ROUNDING * noise)

    hook = model.get_input_embeddings().register_forward_hook(disturb)
    try:
        yield
    finally:
        hook.remove()


def _own_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=tokens.to(model.device)[None], use_cache=False).logits[0]
    return logits.float()


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    spread = wanted - wanted.mean()
    return float((found.float() - wanted).norm() / spread.norm().clamp_min(1e-9))


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
