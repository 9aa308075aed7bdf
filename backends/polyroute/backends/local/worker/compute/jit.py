"""Compiles kernels for this very processor at load, by LLVM (llvmlite): no compiler need be installed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm


@dataclass(frozen=True, slots=True)
class Processor:
    """What kernels are written for: `width` is how many float32 a vector register holds, `registers` how many of them
    there are, `pairs` whether products of int16 are summed in pairs by one instruction (x86: `pmaddwd`)."""

    name: str
    features: frozenset[str]
    width: int
    registers: int
    pairs: bool


class Library:
    """Compiled code; its functions' addresses are valid while it lives."""

    def __init__(self, engine: llvm.ExecutionEngine) -> None:
        self._engine = engine

    def address(self, function: str) -> int:
        return int(self._engine.get_function_address(function))


@cache
def processor() -> Processor:
    features = frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)
    name = llvm.get_host_cpu_name()
    if "avx512f" in features and "avx512bw" in features and "avx512vl" in features:
        return Processor(name, features, 16, 32, pairs=True)
    if "avx2" in features and "fma" in features and "f16c" in features:
        return Processor(name, features, 8, 16, pairs=True)
    return Processor(name, features, 4, 32 if "neon" in features else 8, pairs=False)


def compile(text: str) -> Library:
    """The functions in `text` (LLVM IR); raises RuntimeError where it is malformed."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=processor().name, features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False  # done by hand
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return Library(engine)
