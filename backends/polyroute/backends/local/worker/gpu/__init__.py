"""Kernels for GPUs, in Triton, which torch brings with it there."""
