"""Imports transformers without torch's compiler and its distributed tensors, which take longer than all the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_COMPILER: Final = "torch._dynamo"


def import_transformers() -> None:
    """Imports what a worker needs of transformers; what is left out loads in the ordinary way where it is asked for.

    transformers decorates a few functions with hints for the compiler, and knows builds of torch that are not
    distributed: for the time of the import there are no hints, and torch is such a build. Where a version of either
    library does not bear this, nothing is imported here, and the ordinary import does it.
    """
    import torch

    try:
        with without_compiler(), _not_distributed(torch):
            import transformers.generation.utils
            import transformers.modeling_utils
            import transformers.models.auto.modeling_auto  # noqa: F401
    except (ImportError, AttributeError, TypeError):
        return


@contextmanager
def without_compiler() -> Iterator[None]:
    """Has a stand-in for the compiler's package, unless it is loaded; modules inside it load without what is around.

    Building a model on the meta device asks for the compiler's hints too, each of torch's functions once.
    """
    import torch

    if _COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(_COMPILER)
    stand_in.__path__ = [str(Path(torch.__file__).parent / "_dynamo")]
    stand_in.__getattr__ = _hint  # type: ignore[method-assign]
    sys.modules[_COMPILER] = stand_in
    torch._dynamo = stand_in  # type: ignore[attr-defined,unused-ignore]
    try:
        yield
    finally:
        del sys.modules[_COMPILER], torch._dynamo


@contextmanager
def _not_distributed(torch: Any) -> Iterator[None]:
    real = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = real


def _hint(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)
    return _unchanged


def _unchanged(function: Any = None, *_args: object, **_options: object) -> Any:
    """Decorates nothing, with or without arguments."""
    return (lambda decorated: decorated) if function is None else function
