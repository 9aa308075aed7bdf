"""Which engines there are, and at which precisions each can run a model whose weights are bfloat16."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """An engine that can be measured: its runner module, the package that its interpreter must have, and what it can.

    `most_callers` bounds the loads that it gets, where more callers only take longer. `arrivals` says whether it takes
    requests while it works on others, `devices` where it runs.
    """

    module: str
    package: str
    precisions: tuple[str, ...]
    most_callers: int = 10**6
    arrivals: bool = True
    gguf: bool = False
    devices: tuple[str, ...] = ("cpu",)


_TORCH = ("bfloat16", "float32")
_EITHER = ("cpu", "cuda")
KINDS = {
    "ours": Kind("ours", "polyroute.backends", (*_TORCH, "int8", "int4"), devices=_EITHER),
    "served": Kind("served", "polyroute.backends", (*_TORCH, "int8", "int4")),
    "generate": Kind("generate", "transformers", _TORCH, most_callers=4, arrivals=False, devices=_EITHER),
    "static": Kind("static", "transformers", _TORCH, arrivals=False, devices=_EITHER),
    "transformers-cb": Kind("transformers_cb", "transformers", _TORCH, devices=_EITHER),
    "vllm": Kind("vllm_cpu", "vllm", _TORCH),
    "llama.cpp": Kind("llama_cpp", "llama_cpp", ("bfloat16", "float32", "float16", "q8_0", "q4_0"), gguf=True),
}
DEFAULT = ("ours", "generate", "static", "transformers-cb", "vllm", "llama.cpp")


@dataclass(frozen=True)
class Engine:
    """An engine of one kind at one precision, and the interpreter that it runs in."""

    name: str
    precision: str
    python: str

    @property
    def kind(self) -> Kind:
        """What it can."""
        return KINDS[self.name]

    @property
    def module(self) -> str:
        """Its runner."""
        return self.kind.module

    def __str__(self) -> str:
        return f"{self.name}:{self.precision}"


def parse(text: str, pythons: dict[str, str]) -> Engine:
    """The engine that `NAME` or `NAME:PRECISION` names; `pythons` tells the interpreters that are not this one.

    Raises `ValueError` for one that there is not.
    """
    name, _, precision = text.partition(":")
    if name not in KINDS:
        raise ValueError(f"there is no engine `{name}`; there are {', '.join(KINDS)}")
    known = KINDS[name].precisions
    if precision and precision not in known:
        raise ValueError(f"`{name}` has no precision `{precision}`; it has {', '.join(known)}")
    return Engine(name, precision or known[0], pythons.get(name, sys.executable))
