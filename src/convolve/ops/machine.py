"""Which machine this is, as far as the speed of an algorithm depends on it."""

from __future__ import annotations

import functools
import platform


@functools.cache
def processor() -> str:
    """The CPU's own name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  (Linux only)
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def capability() -> str:
    """The widest instruction set that torch uses here: "AVX512", "AVX2", "DEFAULT"."""
    import torch

    return torch.backends.cpu.get_cpu_capability()
