"""What this machine can do at most, measured now: multiply-adds per second in registers, and bytes per second by working set.

The arithmetic is a loop of independent fused multiply-adds on the widest vectors of the CPU that NUMBA_CPU_NAME allows, written as LLVM
text: no memory is touched. The bandwidth is the faster of reading (a sum) and of copying (both ways counted) in torch.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Mapping

import llvmlite.binding as llvm
import torch

CHAINS = 24  # independent accumulators: two units with four cycles each need eight
ROUNDS = 400_000
WORKING_SETS = (2**18, 2**20, 2**22, 2**24, 2**26, 2**28)


def lanes(kind: str) -> int:
    """float or double lanes of one vector register of the CPU that kernels are compiled for."""
    name = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features() if name == llvm.get_host_cpu_name() else {}
    width = 64 if features.get("avx512f") else 16 if features.get("neon") else 32
    return width // (4 if kind == "float" else 8)


@functools.cache
def _probe(kind: str) -> tuple[object, Callable[[int], float]]:
    """A compiled function of a number of rounds; the engine is kept alive beside it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    n = lanes(kind)
    vector = f"<{n} x {kind}>"
    fma = f"llvm.fma.v{n}{'f32' if kind == 'float' else 'f64'}"
    one = "<" + ", ".join([f"{kind} 1.0"] * n) + ">"
    half = "<" + ", ".join([f"{kind} 0.5"] * n) + ">"
    start = "<" + ", ".join([f"{kind} %s"] * n) + ">"
    body = ["loop:", "  %i = phi i64 [0, %entry], [%next, %loop]"]
    for j in range(CHAINS):
        first = start.replace("%s", f"{j}.0")
        body.append(f"  %a{j} = phi {vector} [{first}, %entry], [%b{j}, %loop]")
    body += [f"  %b{j} = call {vector} @{fma}({vector} %a{j}, {vector} {half}, {vector} {one})" for j in range(CHAINS)]
    body += [
        "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %rounds",
        "  br i1 %more, label %loop, label %end",
    ]
    body += ["end:", f"  %s0 = fadd {vector} %b0, %b1"]
    body += [f"  %s{j - 1} = fadd {vector} %s{j - 2}, %b{j}" for j in range(2, CHAINS)]
    body += [f"  %r = extractelement {vector} %s{CHAINS - 2}, i32 0"]
    body += ["  %d = fpext float %r to double" if kind == "float" else "  %d = fadd double %r, 0.0", "  ret double %d"]
    text = "\n".join(
        [
            f"declare {vector} @{fma}({vector}, {vector}, {vector})",
            "define double @probe(i64 %rounds) {",
            "entry:",
            "  br label %loop",
            *body,
            "}",
        ]
    )
    module = llvm.parse_assembly(text)
    module.verify()
    name = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features().flatten() if name == llvm.get_host_cpu_name() else ""
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=3)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine, ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(engine.get_function_address("probe"))


def fma_per_second(threads: int, kind: str = "float", tries: int = 5) -> float:
    """Multiply-adds per second of `threads` threads: the best of a few tries of some milliseconds."""
    _, probe = _probe(kind)
    best = 0.0
    for _ in range(tries):
        # ctypes releases the interpreter's lock, so the threads run at once.
        others = [threading.Thread(target=probe, args=(ROUNDS,)) for _ in range(threads - 1)]
        started = time.perf_counter()
        for thread in others:
            thread.start()
        probe(ROUNDS)
        for thread in others:
            thread.join()
        best = max(best, threads * ROUNDS * CHAINS * lanes(kind) / (time.perf_counter() - started))
    return best


def bandwidth() -> dict[int, float]:
    """Bytes per second for working sets of the sizes WORKING_SETS, with torch's threads."""
    found = {}
    for size in WORKING_SETS:
        a = torch.ones(size // 4)
        half = size // 8
        source, target = a[:half], a[half:]
        times = max(1, 2**26 // size)
        copied = _best(lambda s=source, t=target: t.copy_(s), times)
        read = _best(lambda t=a: t.sum(), times)
        found[size] = max(size / copied, size / read)
    return found


def bandwidth_at(table: Mapping[int, float], size: float) -> float:
    """The table at any size, linear in the logarithm between its entries. A smaller level is never slower than a larger one."""
    sizes = sorted(table)
    speeds = [max(table[other] for other in sizes[i:]) for i in range(len(sizes))]
    if size <= sizes[0]:
        return speeds[0]
    for (low, high), (a, b) in zip(itertools.pairwise(sizes), itertools.pairwise(speeds), strict=True):
        if size <= high:
            share = math.log(size / low) / math.log(high / low)
            return a ** (1 - share) * b**share
    return speeds[-1]


def _best(run: Callable[[], object], times: int, tries: int = 5) -> float:
    best = math.inf
    for _ in range(tries):
        started = time.perf_counter()
        for _ in range(times):
            run()
        best = min(best, (time.perf_counter() - started) / times)
    return best


if __name__ == "__main__":
    print(f"{2 * fma_per_second(torch.get_num_threads()) / 1e9:.0f} GFLOP/s, float, {torch.get_num_threads()} threads")
    print(f"{2 * fma_per_second(torch.get_num_threads(), 'double') / 1e9:.0f} GFLOP/s, double")
    for size, speed in bandwidth().items():
        print(f"{size / 2**20:8.2f} MiB  {speed / 1e9:.1f} GB/s")
