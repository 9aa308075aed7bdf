"""llama.cpp through the low-level batch API of llama-cpp-python: many sequences in one decode, as its server does."""

from __future__ import annotations

import ctypes
import heapq

import llama_cpp.llama_cpp as llama
import numpy as np

from benchmarks.engine.runner import Asked, Options, Runner, Stepped, main

_BATCH = 512  # tokens of a step, its default for one pass


class Llama(Stepped):
    """A step holds one token of each answer in the making and as much of the waiting prompts as fits."""

    def __init__(self, options: Options) -> None:
        silent = llama.llama_log_callback(lambda _level, _text, _data: None)
        self._silent = silent  # or it is freed while llama.cpp still calls it
        llama.llama_log_set(silent, ctypes.c_void_p(0))
        llama.llama_backend_init()
        model = llama.llama_model_load_from_file(options.folder.encode(), llama.llama_model_default_params())
        if not model:
            raise RuntimeError(f"llama.cpp does not load {options.folder}")
        params = llama.llama_context_default_params()
        params.n_ctx = options.sequences * options.context
        params.n_seq_max = options.sequences
        params.n_batch = params.n_ubatch = _BATCH
        params.n_threads = params.n_threads_batch = options.threads
        params.kv_unified = False
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.no_perf = True
        self._context = llama.llama_init_from_model(model, params)
        if not self._context:
            raise RuntimeError("llama.cpp makes no context")
        self._size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        self._batch = llama.llama_batch_init(_BATCH, 0, 1)
        self._free = list(range(options.sequences))
        self._active: list[_Sequence] = []
        self._waiting: list[Asked] = []
        self.note = llama.llama_print_system_info().decode().strip()

    def submit(self, ask: Asked) -> None:
        """See `Stepped`."""
        self._waiting.append(ask)

    def step(self) -> list[int]:
        """See `Stepped`."""
        while self._waiting and self._free:
            self._active.append(_Sequence(self._waiting.pop(0), heapq.heappop(self._free)))
        batch = self._batch
        batch.n_tokens = 0
        sampled: list[tuple[_Sequence, int]] = []
        # Those that decode go first; and in the order of slots, or llama.cpp makes a pass of its own for each.
        for sequence in sorted(self._active, key=lambda one: (len(one.left) > 1, one.slot)):
            chunk = sequence.left[: _BATCH - batch.n_tokens]
            for token in chunk:
                self._add(token, sequence)
            sequence.left = sequence.left[len(chunk) :]
            if chunk and not sequence.left:
                batch.logits[batch.n_tokens - 1] = 1
                sampled.append((sequence, batch.n_tokens - 1))
        if code := llama.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {code}")
        for sequence, row in sampled:
            logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(self._context, row), shape=(self._size,))
            self._accept(sequence, int(logits.argmax()))
        return [sequence.ask.index for sequence, _ in sampled]

    def _add(self, token: int, sequence: _Sequence) -> None:
        batch, place = self._batch, self._batch.n_tokens
        batch.token[place] = token
        batch.pos[place] = sequence.position
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = sequence.slot
        batch.logits[place] = 0
        batch.n_tokens += 1
        sequence.position += 1

    def _accept(self, sequence: _Sequence, token: int) -> None:
        sequence.made += 1
        sequence.left = [token]
        if sequence.made == sequence.ask.tokens:
            self._active.remove(sequence)
            heapq.heappush(self._free, sequence.slot)
            llama.llama_memory_seq_rm(llama.llama_get_memory(self._context), sequence.slot, -1, -1)


class _Sequence:
    """A request in a slot of the cache; `left` are the tokens that the model has still to read."""

    def __init__(self, ask: Asked, slot: int) -> None:
        self.ask = ask
        self.slot = slot
        self.left = ask.prompt
        self.position = 0
        self.made = 0


def start(options: Options) -> Runner:
    """Loads the model from a `.gguf` file."""
    return Llama(options)


if __name__ == "__main__":
    main(start)
