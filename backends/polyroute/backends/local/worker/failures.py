"""Why a model cannot be loaded, in one line that says what to do: foreign exceptions are translated here."""

from __future__ import annotations

import re

import torch
from huggingface_hub import errors as hub
from safetensors import SafetensorError

from polyroute.core.errors import clip

_REMEDY = "set MODEL_ID (or `source`) to a local path, or start with --demo"


class LoadError(Exception):
    """The model cannot be loaded; the text is for the operator, and whole."""


def explain(error: BaseException, source: str, *, hub_source: bool) -> LoadError:
    """The reason why loading `source` failed with `error`."""
    if isinstance(error, LoadError):
        return error
    chain = _chain(error)
    return LoadError(_hub_reason(chain, source) if hub_source and _from_hub(chain) else _reason(chain, source))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of the device, or of the machine."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "out of memory" in text)
    )


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.append(found)
        found = found.__cause__ or found.__context__
    return chain


def _from_hub(chain: list[BaseException]) -> bool:
    return any(
        isinstance(e, hub.HfHubHTTPError | hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled | OSError)
        for e in chain
    )


def _hub_reason(chain: list[BaseException], source: str) -> str:
    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(e, kinds) for e in chain)

    statuses = {getattr(getattr(e, "response", None), "status_code", None) for e in chain}
    if met(hub.GatedRepoError) or 403 in statuses:
        return (
            f"`{source}` is gated on the Hugging Face hub: accept its terms there and set HF_TOKEN to a token of that "
            f"account; or {_REMEDY}"
        )
    if met(hub.RevisionNotFoundError):
        return f"`{source}` has no such revision on the Hugging Face hub: check `revision`"
    if met(hub.RepositoryNotFoundError) or 401 in statuses:
        return (
            f"`{source}` is not on the Hugging Face hub, or is private: check the ID, set HF_TOKEN if it is private; "
            f"or {_REMEDY}"
        )
    if met(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled):
        return (
            f"`{source}` is not in the local hub cache, and the Hugging Face hub cannot be reached or is switched off "
            f"(HF_HUB_OFFLINE): check the network, and set HF_TOKEN if the model is gated; or {_REMEDY}"
        )
    return f"`{source}` cannot be fetched from the Hugging Face hub: {_line(chain[0])}; or {_REMEDY}"


def _reason(chain: list[BaseException], source: str) -> str:
    error = chain[0]
    if any(isinstance(e, SafetensorError) for e in chain):
        return f"`{source}`: its weights are damaged ({_line(error)}): fetch them again"
    if any(out_of_memory(e) for e in chain):
        return f"`{source}`: not enough memory for its weights; choose a smaller model, or another `device` or `dtype`"
    if isinstance(error, ImportError):
        return f"`{source}`: a package that it needs is missing: {_line(error)}"
    return f"`{source}` cannot be loaded: {_line(error)}"


def _line(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return clip(text, 300)
