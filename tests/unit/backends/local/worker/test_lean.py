"""A worker imports no more of torch than it needs, and what is left out works when it is asked for."""

from __future__ import annotations

import subprocess
import sys

LEFT_OUT = {"torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.distributed.fsdp", "sympy"}


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_what_a_worker_imports() -> None:
    run(f"""
import sys
from polyroute.backends.local.worker.lean import import_transformers
import_transformers()
assert "transformers.modeling_utils" in sys.modules
import polyroute.backends.local.worker.serving, transformers.models.llama.modeling_llama
found = {LEFT_OUT!r} & set(sys.modules)
assert not found, found
""")


def test_what_is_left_out_works_when_it_is_asked_for() -> None:
    run("""
from polyroute.backends.local.worker.lean import import_transformers
import_transformers()
import torch
assert torch.distributed.is_available()
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
import torch.distributed.tensor
import torch._dynamo
assert torch._dynamo.utils.counters is not None
""")


def test_a_version_that_does_not_bear_it_is_imported_in_the_ordinary_way() -> None:
    run("""
import sys, torch
from polyroute.backends.local.worker import lean
lean._hint = lambda name: None
lean.import_transformers()
assert "torch._dynamo" not in sys.modules
import transformers.modeling_utils
assert "torch._dynamo" in sys.modules and torch._dynamo.utils.counters is not None
""")
