"""Records on a GPU, by CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from polyroute.backends.local.worker.forward.graphs import Record

_WARM_UPS = 1  # runs before a recording: libraries choose kernels and take memory in the first ones


def recorder(device: torch.device) -> Record | None:
    """What records on `device`; None where nothing does."""
    return CudaRecorder(device).record if device.type == "cuda" else None


class CudaRecorder:
    """Records work on one device, on a stream beside the one in use. All recordings share their memory.

    See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. Only calls of the thread that records count as
    part of a recording, so what other threads do meanwhile cannot spoil it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Record`. `work` runs some times before, and its recording has yet to be played when this returns."""
        using = torch.cuda.current_stream(self._device)
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(using)
        try:
            with torch.cuda.stream(self._stream):  # around the capture too, which leaves its stream set where it fails
                for _ in range(_WARM_UPS):
                    work()
                self._capture(graph, work)
        finally:
            using.wait_stream(self._stream)  # what ran before a failure may still be writing
        return graph.replay

    def _capture(self, graph: torch.cuda.CUDAGraph, work: Callable[[], None]) -> None:
        """Raises what `work` raises, rather than what the end of the capture makes of that."""
        failure: Exception | None = None
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                try:
                    work()
                except Exception as error:
                    failure = error
                    raise
        except Exception:
            if failure is None:
                raise
            raise failure from None
