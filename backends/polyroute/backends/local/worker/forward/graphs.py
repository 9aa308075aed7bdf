"""Steps that only decode, recorded as graphs and played: launching their kernels one by one takes longer than they do.

A graph (CUDA's, or what stands for it in a test) repeats operations on the very same memory. So a step is recorded for
each seating of slots that there is, its inputs and its logits lie in tensors that stay, and whoever joins or leaves
changes numbers in them, until the seating itself changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from polyroute.backends.local.worker.forward.batch import BATCH, Batch, Fixed
from polyroute.backends.local.worker.forward.seating import Seating, Table, seat
from polyroute.backends.local.worker.forward.slabs import Slab
from polyroute.backends.local.worker.forward.turn import Holder
from polyroute.backends.local.worker.gpu.attention import SlotAttention

_AFTER = 3  # steps of a seating that run as they are, before it is worth its recording
_AFTER_WIDER = 32  # the same where another recording serves it with some rows more: what ends soon is not recorded anew
_WIDER = 2  # as many rows at most
_MOST = 48  # graphs that are kept, the latest used
_REMEMBERED = 512  # seatings of which it is known how often they were there
_LEAST_ROWS = 64

Record: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]
"""Runs some work, records it, and returns what plays the recording; raises whatever keeps it from being recorded."""


class Graphs:
    """The recorded steps of a packed model; `record` makes them. Attention is by `kernels`, where there are some.

    A seating is recorded when it comes for the time after `after`; until then, a recording of the same slabs with more
    of their slots serves it, where there is one. The first failure to record is the last: `why_not` then says what it
    was, and every step runs as it is.
    """

    def __init__(
        self, model: Any, record: Record, *, after: int = _AFTER, kernels: SlotAttention | None = None
    ) -> None:
        self._model = model
        self._record = record
        self._kernels = kernels
        self._after = after
        self._space: _Space | None = None
        self._uses: OrderedDict[tuple[Table, ...], int] = OrderedDict()
        self._recorded: OrderedDict[tuple[Table, ...], Callable[[], None]] = OrderedDict()
        self.played = 0
        self.why_not = ""

    def __repr__(self) -> str:
        return f"<Graphs {len(self._recorded)} recorded, {self.played} steps played{self.why_not and ', given up'}>"

    def run(self, decoding: Sequence[Holder], place: Callable[[Holder], tuple[Slab, int]]) -> torch.Tensor | None:
        """Logits after the next token of each sequence, float32 [sequences, vocabulary]; None where no graph is there.

        `place` says in which slots their keys and values are.
        """
        seating = None if self.why_not else self._seat(decoding, place)
        if seating is None:
            return None
        space = self._filled(seating)
        play = self._recorded.get(seating.tables) or self._add(seating.tables, space)
        if play is None:
            return None
        self._recorded.move_to_end(seating.tables)
        play()
        self.played += 1
        return space.logits.index_select(0, space.order[: len(seating.order)])

    def _seat(self, decoding: Sequence[Holder], place: Callable[[Holder], tuple[Slab, int]]) -> Seating | None:
        """A seating that is recorded, or worth it; None where there is none."""
        seating = seat(decoding, place)
        if seating is None or seating.tables in self._recorded:
            return seating
        uses = self._uses[seating.tables] = self._uses.pop(seating.tables, 0) + 1
        if len(self._uses) > _REMEMBERED:
            self._uses.popitem(last=False)
        wider = self._wider(seating)
        if wider is None or uses > _AFTER_WIDER:
            return seating if uses > self._after else None
        return seat(decoding, place, {slab: count for slab, _, count in wider})

    def _wider(self, seating: Seating) -> tuple[Table, ...] | None:
        """The narrowest recording of the same slabs that has all rows of the seating, and not too many more."""
        fitting = [known for known in self._recorded if _covers(known, seating.tables)]
        rows = {known: sum(count for _, _, count in known) for known in fitting}
        narrowest = min(fitting, key=rows.__getitem__, default=None)
        return narrowest if narrowest is not None and rows[narrowest] <= _WIDER * seating.rows else None

    def _filled(self, seating: Seating) -> _Space:
        """Where the step's inputs now stand; what was recorded for a smaller space is forgotten with it."""
        if self._space is None or self._space.rows < seating.rows:
            self._recorded.clear()
            rows = max(_LEAST_ROWS, 1 << (seating.rows - 1).bit_length())
            vocabulary = self._model.config.get_text_config(decoder=True).vocab_size
            self._space = _Space(rows, vocabulary, self._model.device)
        self._space.fill(seating)
        return self._space

    def _add(self, tables: tuple[Table, ...], space: _Space) -> Callable[[], None] | None:
        for known in [known for known in self._recorded if any(slab.moves != moves for slab, moves, _ in known)]:
            del self._recorded[known]  # its slots are no more
        if len(self._recorded) >= _MOST:
            self._recorded.popitem(last=False)
        try:
            play = self._recorded[tables] = self._record(lambda: self._step(tables, space))
        except Exception as error:  # noqa: BLE001 - anything can come; what lasts comes again where the step runs as it is
            self._recorded.clear()
            self._space, self.why_not = None, reason(error)
            return None
        return play

    def _step(self, tables: tuple[Table, ...], space: _Space) -> None:
        """What is recorded: from the space's inputs to its logits, with nothing between that hangs on a number."""
        batch, rows = Batch(kernels=self._kernels), 0
        for slab, _, count in tables:
            batch.fixed.append(Fixed(slab, rows, space.slots[:count], space.positions[rows : rows + count]))
            rows += count
        inputs = {"input_ids": space.tokens[None, :rows], "position_ids": space.positions[None, :rows], BATCH: batch}
        space.logits[:rows] = self._model(**inputs, use_cache=False).logits[0]


class _Space:
    """The tensors that recorded steps begin and end with; all steps share them, for only one is played at a time."""

    def __init__(self, rows: int, vocabulary: int, device: torch.device) -> None:
        self.rows = rows
        self._inputs = torch.zeros((3, rows), dtype=torch.long, device=device)
        self.tokens, self.positions, self.order = self._inputs
        self.slots = torch.arange(rows, device=device)
        self.logits = torch.zeros((rows, vocabulary), dtype=torch.float32, device=device)

    def fill(self, seating: Seating) -> None:
        """Copies what a step needs, all at once. The source is not pinned, so it is read before this returns."""
        rows = seating.rows
        order = seating.order + [0] * (rows - len(seating.order))
        given = torch.tensor([seating.tokens, seating.positions, order])
        self._inputs[:, :rows].copy_(given, non_blocking=True)


def _covers(known: tuple[Table, ...], wanted: tuple[Table, ...]) -> bool:
    same = [of[:2] for of in known] == [of[:2] for of in wanted]
    return same and all(has[2] >= needs[2] for has, needs in zip(known, wanted, strict=True))


def reason(error: BaseException) -> str:
    """The failure in one line; CUDA's own texts have more, on how to debug it."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
