"""The processor that kernels are compiled for: its name, features, vector width and number of vector registers.

NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, which Numba reads too, choose another one, so that the code for AVX2 can be tested on a
machine with AVX-512. llvmlite is needed only when asked.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import llvmlite.binding as llvm

_AVX512 = (
    "skylake-avx512",
    "cascadelake",
    "icelake",
    "sapphirerapids",
    "emeraldrapids",
    "graniterapids",
    "znver4",
    "znver5",
)
_AVX2 = ("haswell", "broadwell", "skylake", "alderlake", "znver1", "znver2", "znver3", "x86-64-v3")


@dataclass(frozen=True)
class Machine:
    cpu: str
    features: str
    """As LLVM writes them: "+avx2,-avx512f,…"."""
    instruction_set: str
    """A row of INSTRUCTION_SETS."""
    vector_bytes: int
    registers: int

    def lanes(self, dtype: str) -> int:
        return self.vector_bytes // {"float32": 4, "float64": 8}[dtype]


# instruction set: (bytes of a vector register, number of them)
INSTRUCTION_SETS = {"avx512": (64, 32), "avx2": (32, 16), "neon": (16, 32), "other": (16, 16)}


@cache
def machine() -> Machine:
    import llvmlite.binding as llvm

    name = os.environ.get("NUMBA_CPU_NAME") or ""
    given = os.environ.get("NUMBA_CPU_FEATURES")
    features = given if given is not None else "" if name else llvm.get_host_cpu_features().flatten()
    cpu = name or llvm.get_host_cpu_name()
    kind = _instruction_set(cpu, features)
    return Machine(cpu, features, kind, *INSTRUCTION_SETS[kind])


Tiles = tuple[tuple[int, int], ...]


def tiles_for(many: Tiles, few: Tiles) -> Tiles:
    """The register tiles of a kernel here: `many` for 32 vector registers, `few` for 16."""
    return many if machine().registers >= 32 else few


@cache
def why_no_kernels() -> str | None:
    """Why kernels cannot be compiled or run here, or None."""
    if find_spec("llvmlite") is None:
        return "its kernels are compiled by LLVM through llvmlite, which is not installed"
    try:
        import llvmlite.binding  # noqa: F401
    except (ImportError, OSError) as error:
        return f"its kernels need LLVM, which is not usable here ({error})"
    return None


def _instruction_set(cpu: str, features: str) -> str:
    words = features.split(",")
    if platform.machine() in ("aarch64", "arm64"):
        return "neon"
    if "+avx512f" in words or (not features and cpu.startswith(_AVX512)):
        return "avx512"
    if "+avx2" in words or (not features and cpu.startswith((*_AVX2, *_AVX512))):
        return "avx2"
    return "other"


def target_machine() -> llvm.TargetMachine:
    """LLVM's code generator for `machine()`, for code that is loaded into this process."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=machine().cpu, features=machine().features, opt=3, jit=True, reloc="default", codemodel="jitdefault"
    )
