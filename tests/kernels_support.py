"""What the tests of kernels share: operands, guard pages around everything that a row allocates, and a processor with AVX2 only."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from convolve.kernels.machine import machine
from convolve.ops import engine
from convolve.problem import ConvProblem
from guard_pages import guarded

LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def operands(problem: ConvProblem) -> tuple[Tensor, Tensor, Tensor]:
    """Random operands of the problem's layout, and a bias."""
    generator = torch.Generator().manual_seed(problem.macs % 1000)
    dtype = getattr(torch, problem.dtype)
    a, b = (torch.randn(shape, dtype=dtype, generator=generator) for shape in problem.operand_shapes)
    if problem.layout == "channels_last":
        a, b = (x.contiguous(memory_format=LAST[problem.axes]) for x in (a, b))
    return a, b, torch.randn(problem.result_shape[1], dtype=dtype, generator=generator)


def guard_allocations(patch: pytest.MonkeyPatch, at_end: bool) -> None:
    """From now on results and scratch memory lie between inaccessible pages; scratch is NaN where nothing was written."""

    def between_pages(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
        dense = guarded([shape[axis] for axis in order], dtype, at_end)
        return dense.permute([order.index(axis) for axis in range(len(shape))])

    def scratch(size: int) -> int:
        return guarded([-(-size // 64) * 64], torch.uint8, at_end).fill_(255).data_ptr()

    patch.setattr(torch, "empty_strided", between_pages)
    patch.setattr(engine, "scratch", scratch)


def passes_for_avx2(file: str, *options: str) -> None:
    """Run the tests of `file` once more as on a processor with AVX2 only, in a process of its own, since a process has one machine."""
    if "NUMBA_CPU_NAME" in os.environ:
        pytest.skip("already running for another processor")
    if machine().instruction_set not in ("avx512", "avx2"):
        pytest.skip("needs a processor with AVX2")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", file, *options]
    environment = {**os.environ, "NUMBA_CPU_NAME": "haswell"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
