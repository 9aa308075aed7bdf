"""Where the GPU's kernels can be run: on a GPU, or in Triton's interpreter, which computes with numpy on the CPU."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

needs_kernels = pytest.mark.skipif(
    DEVICE.type == "cpu" and not (find_spec("triton") and os.environ.get("TRITON_INTERPRET") == "1"),
    reason="there is no GPU, nor Triton's interpreter (`make test-kernels` has it)",
)
"""Tests that run kernels, on tensors of `DEVICE`."""
