"""From the source of a kernel to machine code: language.py translates it, LLVM compiles it, an object file is the result.

A kernel is a function `kernel(arguments)` of a pointer to int64 numbers. It computes one thread's share, allocates nothing and raises
nothing. arguments[0] and arguments[1] are the addresses of OpenMP's omp_get_thread_num and omp_get_num_threads; where they
are 0, arguments[2] and arguments[3] say which thread of how many this is. The kernel's own arguments begin at arguments[HEADER].

The object file has one symbol, `void ENTRY(int64_t *arguments)`, which OpenMP can start as it is.
"""

from __future__ import annotations

import llvmlite.binding as llvm

from convolve.kernels.language import translate
from convolve.kernels.machine import machine, target_machine
from convolve.kernels.preamble import ENTRY
from convolve.kernels.vector import operations


def object_code(name: str, dtype: str, source: str, shared: str) -> bytes:
    """The machine code of a kernel for machine(), as an object file with the symbol ENTRY.

    `shared` is the source of functions that many kernels call.
    """
    translated = translate(shared + source, operations(dtype, machine().lanes(dtype)), ENTRY)
    machine_code = target_machine()
    translated.name, translated.triple = name, llvm.get_process_triple()
    translated.data_layout = str(machine_code.target_data)
    module = llvm.parse_assembly(str(translated))
    module.verify()
    _optimize(module, machine_code)
    code: bytes = machine_code.emit_object(module)
    return code


def _optimize(module: llvm.ModuleRef, machine_code: llvm.TargetMachine) -> None:
    """LLVM's usual passes, without its own vectorizers and unrolling: both are written by hand here."""
    options = llvm.create_pipeline_tuning_options(3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine_code, options)
    builder.getModulePassManager().run(module, builder)
