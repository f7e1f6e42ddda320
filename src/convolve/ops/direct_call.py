"""One call of a direct kernel: everything but the addresses is packed once per problem and layout."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from convolve.kernels.machine import machine
from convolve.kernels.scratch import ADDRESSES
from convolve.ops import engine, positions
from convolve.ops.positions import Blocks
from convolve.problem import DTYPE_BYTES, ConvProblem

Strides = tuple[int, ...]
_POINTERS = struct.Struct(f"{len(ADDRESSES)}q")
_MOST_PLANS = 4096
STREAMED_BYTES = 6 << 20
"""Results of rows that wait for memory are written past the caches from here on: measured, it pays."""


@dataclass(frozen=True)
class Plan:
    problem: ConvProblem
    address: int
    """Of the kernel."""
    table: npt.NDArray[np.int64]
    arguments: bytes
    """The kernel's arguments behind the addresses."""
    result_strides: Strides
    scratch_bytes: int
    """Of all threads."""
    threads: int
    shares: int = 1
    """Results that lie one after the other, for the caller to add."""

    @cached_property
    def table_address(self) -> int:
        return self.table.ctypes.data

    def run(self, x: int, w: int, bias: int, y: int, flags: int = 0) -> None:
        """`flags`: what a kernel without a table is told in its place."""
        pointers = _POINTERS.pack(x, w, bias, y, engine.scratch(self.scratch_bytes), flags or self.table_address)
        engine.run(self.address, pointers + self.arguments, self.threads)


Planner = Callable[[ConvProblem, Strides, Strides, int], Plan]
_PLANS: dict[tuple[object, ...], Plan] = {}


def planned(planner: Planner, problem: ConvProblem, a: Tensor, b: Tensor) -> Plan:
    """The plan of a row for operands that lie so, remembered."""
    threads = engine.thread_count()
    # A record that is alive is its own key: hashing its fields would cost more than a small kernel.
    key = (planner, id(problem), a.stride(), b.stride(), threads)
    found = _PLANS.get(key)
    if found is None or found.problem is not problem:
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        found = _PLANS[key] = planner(problem, a.stride(), b.stride(), threads)
    return found


def streams(problem: ConvProblem, along: int, least: int | None = None) -> bool:
    """Whether the result is of `least` bytes (STREAMED_BYTES), and each vector along this axis of it begins where a streamed one must."""
    least = STREAMED_BYTES if least is None else least
    lanes, steps = machine().lanes(problem.dtype), list(positions.result_strides(problem))
    whole = steps.pop(along) == 1 and all(step % lanes == 0 for step in steps)
    return whole and math.prod(problem.result_shape) * DTYPE_BYTES[problem.dtype] >= least


def run(planner: Planner, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The output or input gradient."""
    plan = planned(planner, problem, a, b)
    result = torch.empty_strided(problem.result_shape, plan.result_strides, dtype=a.dtype)
    if bias is not None:
        bias = bias.contiguous()
    plan.run(a.data_ptr(), b.data_ptr(), 0 if bias is None else bias.data_ptr(), result.data_ptr())
    return result


def plan(
    problem: ConvProblem,
    address: int,
    names: Sequence[str],
    blocks: Blocks,
    strides: tuple[Strides, Strides],
    packed_tile: int,
    threads: int,
    own: Callable[[dict[str, int]], dict[str, int]],
    areas: Sequence[str],
) -> Plan:
    """The plan of a kernel with a packed weight.

    names: its arguments. packed_tile: filters of a packed tile. own: its own arguments, given the common ones.
    areas: the arguments that say how much scratch one thread needs.
    """
    convolution = problem.as_convolution()
    axes = positions.axes_of(convolution)
    x, w = strides
    values = positions.arguments(convolution, axes, blocks, x)
    turned = problem.role == "input_gradient"
    weight = (w[1], w[0], *w[2:]) if turned else w
    filters = -(-values["filters"] // packed_tile) * packed_tile
    y = positions.result_strides(problem)
    table, packed = positions.table(convolution, axes, values, y, weight, turned, filters)
    values |= {
        "w_g": w[0] * (problem.filters // problem.groups),
        "w_k": weight[0],
        "y_n": y[0],
        "y_k": y[1],
        "packed_size": positions.aligned(packed + filters),
        "chunks": blocks.chunks,
    }
    values |= own(values)
    scratch = sum(values[area] for area in areas) * DTYPE_BYTES[problem.dtype] * threads
    return Plan(problem, address, table, positions.as_bytes(names[len(ADDRESSES) :], values), y, scratch, threads)
