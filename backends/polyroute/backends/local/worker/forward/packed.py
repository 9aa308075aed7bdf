"""One forward pass for a whole turn: the tokens of all sequences packed into one row."""

from __future__ import annotations

from typing import Any

import torch

from polyroute.backends.local.worker.forward.batch import BATCH, Batch, Decoding, Prefilling
from polyroute.backends.local.worker.forward.graphs import Graphs
from polyroute.backends.local.worker.forward.kv_cache import KVCache
from polyroute.backends.local.worker.forward.slabs import Slab
from polyroute.backends.local.worker.forward.turn import Chunk, Holder, Turn
from polyroute.backends.local.worker.gpu.attention import SlotAttention


class PackedForward:
    """See `turn.Forward`. The model's attention must be `attention.packed_attention` already.

    Steps that only decode are played from `graphs`, where these have them; the others attend by `kernels`, or torch's
    own where there are none.
    """

    path = "packed"
    whole_prompts = False

    def __init__(
        self, model: Any, memory: KVCache, graphs: Graphs | None = None, kernels: SlotAttention | None = None
    ) -> None:
        self._model = model
        self._graphs = graphs
        self._kernels = kernels
        self.played = False
        self.memory = memory
        self._device = model.device
        self._rows_only = model._supports_logits_to_keep()

    @property
    def why_eager(self) -> str:
        """See `turn.Forward`."""
        return self._graphs.why_not if self._graphs is not None else ""

    @property
    def ever_played(self) -> bool:
        """Whether any step was played from a graph."""
        return self._graphs is not None and self._graphs.played > 0

    def run(self, turn: Turn) -> torch.Tensor:
        """Logits after the last token of each of `turn.choosing`: float32 [rows, vocabulary]."""
        logits = None if turn.chunks or self._graphs is None else self._graphs.run(turn.decoding, self.memory.place)
        self.played = logits is not None
        return self._run(turn) if logits is None else logits

    def _run(self, turn: Turn) -> torch.Tensor:
        row = _Row(self._kernels)
        for slab, members in self._by_slab(turn.decoding).items():
            row.add_decoding(slab, members)
        places = {sequence.id: place for place, sequence in enumerate(row.decoding)}
        wanted = [places[sequence.id] for sequence in turn.decoding]
        for chunk in turn.chunks:
            row.add_chunk(chunk, *self.memory.place(chunk.sequence))
            if chunk.completes:
                wanted.append(len(row.tokens) - 1)
        return self._forward(row, torch.tensor(wanted, dtype=torch.long, device=self._device))

    def _by_slab(self, decoding: list[Holder]) -> dict[Slab, list[tuple[int, Holder]]]:
        groups: dict[Slab, list[tuple[int, Holder]]] = {}
        for sequence in decoding:
            slab, slot = self.memory.place(sequence)
            groups.setdefault(slab, []).append((slot, sequence))
        return groups

    def _forward(self, row: _Row, wanted: torch.Tensor) -> torch.Tensor:
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([row.tokens], device=self._device),
            "position_ids": torch.tensor([row.positions], device=self._device),
            "use_cache": False,
            BATCH: row.batch,
        }
        if self._rows_only:
            logits: torch.Tensor = self._model(**inputs, logits_to_keep=wanted).logits[0]
        else:
            logits = self._model(**inputs).logits[0, wanted]
        return logits.float()


class _Row:
    """Collects tokens, their positions and how they belong together."""

    def __init__(self, kernels: SlotAttention | None) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.decoding: list[Holder] = []
        self.batch = Batch(kernels=kernels)

    def add_decoding(self, slab: Slab, members: list[tuple[int, Holder]]) -> None:
        members.sort(key=lambda member: member[0])
        past = [sequence.processed for _, sequence in members]
        self.batch.decoding.append(Decoding(slab, [slot for slot, _ in members], past, len(self.tokens)))
        for _, sequence in members:
            self.tokens += sequence.tokens(sequence.processed, sequence.processed + 1)
            self.decoding.append(sequence)
        self.positions += past

    def add_chunk(self, chunk: Chunk, slab: Slab, slot: int) -> None:
        past, count = chunk.sequence.processed, chunk.count
        self.batch.prefilling.append(Prefilling(slab, slot, past, count, len(self.tokens)))
        self.tokens += chunk.sequence.tokens(past, past + count)
        self.positions += range(past, past + count)
