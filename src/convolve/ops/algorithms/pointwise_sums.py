"""The weight gradient of 1x1 layers by our own kernels: a matrix product over the positions of all maps, one to three axes, any stride.

What the kernels do stands in convolve/kernels/pointwise_sums.py. Where threads share the positions, each has a gradient of its own; these
are added at the end, so the bits depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convolve.kernels import pointwise_sums as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.kernels.scratch import ADDRESSES
from convolve.kernels.winograd_gradient import VECTORS, rows
from convolve.ops import direct_call, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.ops.windows import with_bias
from convolve.ops.winograd_call import L2_BYTES
from convolve.problem import DTYPE_BYTES, ROLES, ConvProblem

_CHUNKS = (64, 96, 128, 192, 256)
# Cycles of one vector: copied, copied and transposed, multiplied; of one pass over a chunk; of a line that another thread has written.
_COPY_CYCLES, _GATHERED_CYCLES, _PRODUCT_CYCLES, _PASS_CYCLES, _SHARE_LINE = 3.0, 8.0, 1.15, 40.0, 62.0


def why_not(problem: ConvProblem) -> str | None:
    if problem.role != "weight_gradient":
        return "it computes weight gradients"
    if problem.device != "cpu":
        return f"its kernels run on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernels are written for float32 and float64, not {problem.dtype}"
    window = problem.window
    if math.prod(window.kernel) != 1:
        return f"its kernels have one tap, not {'x'.join(map(str, window.kernel))}"
    if any(side != 0 for pair in window.padding for side in pair):
        return "it needs an input without padding"
    if set(window.input_dilation) != {1}:
        return "it needs an input without dilation"
    return why_no_kernels()


class Cut(NamedTuple):
    shares: int
    """Of the positions."""
    filter_parts: int
    chunk: int
    cycles: float
    """Of the busiest thread."""


@lru_cache(maxsize=4096)
def best_cut(problem: ConvProblem, threads: int) -> Cut:
    """The cheapest way to cut the work, by a count of vector instructions."""
    lanes, size, g = machine().lanes(problem.dtype), DTYPE_BYTES[problem.dtype], problem.groups
    channels, filters = problem.channels // g, problem.filters // g
    blocks, panels = -(-channels // lanes), -(-filters // (VECTORS * lanes))
    all_positions = problem.batch * math.prod(problem.output_size)
    copy = _COPY_CYCLES if problem.layout == "channels_last" else _GATHERED_CYCLES
    weight_lines = math.prod(problem.weight_shape) * size / 64
    found = []
    for shares in (n for n in range(1, threads + 1) if threads % n == 0):
        parts = min(panels, threads // shares) if g < threads else 1
        if shares > max(all_positions, 1) or (g >= threads and shares > 1):
            continue
        mine, some_panels = -(-all_positions // shares), -(-panels // parts)
        tasks = -(-g * shares * parts // threads)
        passes = -(-channels // rows(problem.dtype)) * some_panels
        room = L2_BYTES // 2 // ((blocks + VECTORS * some_panels) * lanes * size)
        chunk = max((n for n in _CHUNKS if n <= room), default=_CHUNKS[0])
        chunks = -(-mine // chunk)
        cycles = mine * copy * (blocks + min(VECTORS * some_panels, -(-filters // lanes)))
        cycles += passes * (_PRODUCT_CYCLES * mine * rows(problem.dtype) * VECTORS + _PASS_CYCLES * chunks)
        cycles = tasks * cycles + _SHARE_LINE * weight_lines * (shares - 1)
        found.append(Cut(shares, parts, -(-mine // chunks) if chunks else 1, cycles))
    return min(found, key=lambda one: one.cycles)


def _axes(problem: ConvProblem, x: Sequence[int], y: Sequence[int]) -> list[tuple[int, int, int]]:
    """Positions of a map along three axes, and their distances in x and dy; axes that follow each other in both are one."""
    found: list[tuple[int, int, int]] = []
    for count, stride, x_step, y_step in zip(problem.output_size, problem.window.stride, x[2:], y[2:], strict=True):
        step = stride * x_step
        if found and found[-1][1:] == (count * step, count * y_step):
            found[-1] = found[-1][0] * count, step, y_step
        elif count > 1:
            found.append((count, step, y_step))
    return [(1, 0, 0)] * (3 - len(found)) + found


def _plan(problem: ConvProblem, x: tuple[int, ...], y: tuple[int, ...], threads: int) -> direct_call.Plan:
    cut, lanes = best_cut(problem, threads), machine().lanes(problem.dtype)
    channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
    panel = VECTORS * lanes
    panels = -(-filters // panel)
    part = -(-panels // cut.filter_parts) * panel
    size = positions.aligned(kernels.thread_size(channels, part, cut.chunk, lanes))
    values = {
        "sums": loaded(kernels.sums(problem.dtype)).address,
        "groups": problem.groups, "channels": channels, "filters": filters,
        "x_n": x[0], "x_c": x[1], "y_n": y[0], "y_k": y[1],
        "positions": problem.batch * math.prod(problem.output_size), "chunk": cut.chunk,
        "shares": cut.shares, "filter_parts": cut.filter_parts,
        "share_size": problem.filters * channels, "w_k": channels, "thread_size": size,
    }  # fmt: skip
    for axis, (count, x_step, y_step) in zip("dhw", _axes(problem, x, y), strict=True):
        values |= {f"count_{axis}": count, f"x_{axis}": x_step, f"y_{axis}": y_step}
    address = loaded(kernels.driver(problem.dtype)).address
    arguments = positions.as_bytes(kernels.ARGUMENTS[len(ADDRESSES) :], values)
    none, scratch = np.zeros(1, np.int64), size * DTYPE_BYTES[problem.dtype] * threads
    strides = (values["share_size"], *positions.result_strides(problem))
    return direct_call.Plan(problem, address, none, arguments, strides, scratch, threads, cut.shares)


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    plan = direct_call.planned(_plan, problem, a, b)
    shares = plan.shares
    found = torch.empty_strided((shares, *problem.weight_shape), plan.result_strides, dtype=a.dtype)
    plan.run(a.data_ptr(), found.data_ptr(), 0, b.data_ptr())
    return with_bias(found[0] if shares == 1 else found.sum(0), bias)


def _cost(problem: ConvProblem) -> Cost:
    return positions.cost(problem, lambda one: best_cut(one, 1).cycles)


ALGORITHM = Algorithm(
    name="pointwise_sums",
    summary="our kernels, one matrix product over all positions: weight gradients of 1x1 layers",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=ROLES,
)
