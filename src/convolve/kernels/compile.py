"""From the source of a kernel to machine code: Numba is the front end, LLVM's object code the result.

A kernel is a function `kernel(arguments)` of a pointer to int64 numbers. It computes one thread's share, allocates nothing and raises
nothing. arguments[0] and arguments[1] are the addresses of OpenMP's omp_get_thread_num and omp_get_num_threads; where they
are 0, arguments[2] and arguments[3] say which thread of how many this is. The kernel's own arguments begin at arguments[HEADER].

The result is an object file with one symbol, `void ENTRY(int64_t *arguments)`, which OpenMP can start as it is, and which needs
neither Numba nor Python to be loaded again (cache.py).
"""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from numba import njit, types
from numba.core import compiler, registry
from numba.core.compiler_lock import global_compiler_lock

from convolve.kernels.machine import machine, target_machine
from convolve.kernels.preamble import ENTRY
from convolve.kernels.vector import operations


@global_compiler_lock
def object_code(name: str, dtype: str, source: str, shared: str) -> bytes:
    """The machine code of a kernel for machine(), as an object file with the symbol ENTRY.

    `shared` is the source of functions that many kernels call: it is compiled once in a process.
    """
    names = {**_shared(dtype, shared), "__name__": f"convolve.kernels.{name}"}
    exec(compile(source, f"<{names['__name__']}>", "exec"), names)
    flags: Any = compiler.Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    target, signature = registry.cpu_target, (types.CPointer(types.int64),)
    with _without_collector():
        result = compiler.compile_extra(
            target.typing_context, target.target_context, names["kernel"], signature, types.void, flags, {}
        )
    library = result.library
    for other in library._linking_libraries:  # what finalize() would do, without its code for this process
        library._final_module.link_in(other._get_module_for_linking(), preserve=True)
    module = llvm.parse_assembly(_with_entry(str(library._final_module), result.fndesc.mangled_name))
    module.verify()
    machine_code = target_machine()
    _optimize(module, machine_code)
    code: bytes = machine_code.emit_object(module)
    return code


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Numba's front end makes many objects and few cycles: looking for them costs an eighth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _optimize(module: llvm.ModuleRef, machine_code: llvm.TargetMachine) -> None:
    """LLVM's usual passes, without its own vectorizers and unrolling: both are written by hand here."""
    options = llvm.create_pipeline_tuning_options(3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine_code, options)
    builder.getModulePassManager().run(module, builder)


@cache
def _shared(dtype: str, source: str) -> dict[str, Any]:
    return _functions(source, {**operations(dtype, machine().lanes(dtype)), "__name__": "convolve.kernels.shared"})


def _functions(source: str, names: dict[str, Any]) -> dict[str, Any]:
    """`names` and the compiled functions of `source`, which may use them and one another."""
    names = dict(names)
    options: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiled = njit(**options)
    exec(compile(source, f"<{names['__name__']}>", "exec"), names)
    for key, value in list(names.items()):
        if getattr(value, "__module__", None) == names["__name__"]:
            names[key] = compiled(value)
    return names


def _with_entry(text: str, symbol: str) -> str:
    """The module with an entry that hides Numba's calling convention: i32 f(result *, exception **, arguments)."""
    # Only the entry is visible, so that the rest may be inlined and dropped.
    text = re.sub(r"^define (linkonce_odr )?", "define internal ", text, flags=re.MULTILINE)
    # Shared functions run once for many multiply-adds: inlined, they would double the time to compile.
    text = re.sub(rf"^(define (?!.*@{re.escape(_quoted(symbol))}\().*) {{$", r"\1 noinline {", text, flags=re.MULTILINE)
    return f"""{text}
define void @{ENTRY}(ptr %arguments) {{
  %result = alloca ptr
  %exception = alloca ptr
  %status = call i32 @{_quoted(symbol)}(ptr %result, ptr %exception, ptr %arguments)
  ret void
}}
"""


def _quoted(symbol: str) -> str:
    return f'"{symbol}"' if not re.fullmatch(r"[\w.$]+", symbol) else symbol
