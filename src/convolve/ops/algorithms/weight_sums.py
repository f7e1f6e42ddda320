"""The weight gradient by our own kernel of dot products along positions: few channels, any window, one to three axes.

What the kernel does stands in convolve/kernels/weight_sums.py. Each thread sums its share of the batch into a gradient of its own; the
gradients are added at the end, so the bits depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache

import torch
from torch import Tensor

from convolve.kernels import weight_sums as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.scratch import ADDRESSES
from convolve.ops import direct_call, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.ops.positions import Blocks
from convolve.ops.windows import with_bias
from convolve.problem import DTYPE_BYTES, ROLES, ConvProblem

_MOST_WEIGHTS = 1 << 22


def why_not(problem: ConvProblem) -> str | None:
    if problem.role != "weight_gradient":
        return "it computes weight gradients"
    if set(problem.window.input_dilation) != {1}:
        return "it needs an input without dilation"
    if problem.filters * problem.taps > _MOST_WEIGHTS:
        return f"each thread keeps a gradient of its own, up to {_MOST_WEIGHTS} weights"
    return positions.why_not(replace(problem, role="output"))


@lru_cache(maxsize=4096)
def blocks(problem: ConvProblem, threads: int) -> Blocks:
    """The cheapest way to cut the work, by a count of vector instructions."""
    axes, lanes, channels, filters, planes, _, _, outer, in_order = positions.work_of(replace(problem, role="output"))
    _, height, width = axes
    room = 2 * positions.room_of(problem)  # lanes are summed up after each block: the fewer, the better
    rows, columns = positions.equal_blocks(axes, planes + (0 if in_order else filters), room, 8 * lanes, outer, threads)
    tasks = outer * -(-height.outputs // rows) * -(-width.outputs // columns)
    found = []
    for tile, taps in kernels.tiles():
        tiles = -(-filters // tile) * -(-problem.taps // taps)
        sums, loads = tile * taps, tile + 1.7 * taps  # a load between two cache lines counts twice
        inner = rows * -(-columns // lanes) * (max(sums, loads) + 0.15 * min(sums, loads)) + 6 * rows
        fill = positions.fill_cycles(axes, channels, rows, columns, lanes, in_order)
        copy = 0 if in_order else 1.5 * filters * rows * columns
        cycles = tasks * (tiles * (inner + 12 * tile * taps) + fill + copy)
        found.append(Blocks(tile, taps, rows, columns, 1, 0, cycles))
    return min(found, key=lambda one: one.cycles)


@cache
def _address(tile: int, width: int, dtype: str) -> int:
    return loaded(kernels.kernel(tile, width, dtype)).address


def _plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> direct_call.Plan:
    cut = blocks(problem, threads)
    forward = replace(problem, role="output")
    axes = positions.axes_of(forward)
    values = positions.arguments(forward, axes, cut, a)
    # Where the gradient lies is written by the kernel: (filter, channel, *kernel), one after the other.
    ignored = (0,) * (2 + problem.axes)
    table, _ = positions.table(forward, axes, values, b, ignored, False, 0, unit=cut.width)
    in_place = b[-1] == 1
    values |= {
        "y_n": b[0],
        "y_k": b[1],
        "gradient_size": problem.filters * problem.taps,
        "maps_size": 0 if in_place else positions.aligned(values["filters"] * cut.rows * cut.columns),
        "scratch_size": positions.aligned(values["scratch_size"]),
    }
    scratch = (values["scratch_size"] + values["maps_size"]) * DTYPE_BYTES[problem.dtype] * threads
    address = _address(cut.tile, cut.width, problem.dtype)
    arguments = positions.as_bytes(kernels.ARGUMENTS[len(ADDRESSES) :], values)
    return direct_call.Plan(problem, address, table, arguments, (), scratch, threads)


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    plan = direct_call.planned(_plan, problem, a, b)
    # OpenMP may start fewer threads than it is asked for: whoever did not come has added nothing.
    shares = torch.zeros((plan.threads, *problem.weight_shape), dtype=a.dtype)
    plan.run(a.data_ptr(), shares.data_ptr(), 0, b.data_ptr())
    total = shares[0] if plan.threads == 1 else shares.sum(0)
    return with_bias(total, bias)


def _cost(problem: ConvProblem) -> Cost:
    return positions.cost(problem, lambda one: blocks(one, 1).cycles)


ALGORITHM = Algorithm(
    name="weight_sums",
    summary="our kernel, dot products along positions: weight gradients of few channels",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=ROLES,
)
