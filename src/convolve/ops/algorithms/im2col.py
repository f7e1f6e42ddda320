"""Windows as columns, then one matrix product: y (k, positions) = w (k, c taps) @ columns (c taps, positions).

The columns repeat each input element once per tap; that copy is the price for the speed of a matrix product. Images are taken
one group of the batch at a time, so that the workspace stays below a limit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound, summing_dtype
from convolve.ops.windows import stuff_zeros, windows, with_bias, zero_pad
from convolve.problem import DTYPE_BYTES, ConvProblem

_WORKSPACE = 64 * 2**20  # bytes of columns at a time


def run(problem: ConvProblem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    wide = summing_dtype(x.dtype)
    x = zero_pad(stuff_zeros(x, problem.window.input_dilation), problem.window.padding)
    n, g, taps, positions = problem.batch, problem.groups, problem.taps, math.prod(problem.output_size)
    rows = w.to(wide).reshape(g, problem.filters // g, taps)
    y = x.new_empty((n, g, problem.filters // g, positions), dtype=wide)
    step = max(1, _WORKSPACE // (g * taps * positions * wide.itemsize))
    for start in range(0, n, step):
        part = windows(x[start : start + step], problem.window.kernel, problem.window.stride, problem.window.dilation)
        m = part.shape[0]
        part = part.reshape(m, g, problem.channels // g, *part.shape[2:])
        columns = part.permute(0, 1, 2, *range(3 + problem.axes, 3 + 2 * problem.axes), *range(3, 3 + problem.axes))
        torch.matmul(rows, columns.to(wide).reshape(m, g, taps, positions), out=y[start : start + step])
    return with_bias(y.reshape(problem.output_shape), None if bias is None else bias.to(wide)).to(x.dtype)


def _cost(problem: ConvProblem) -> Cost:
    columns = problem.batch * problem.groups * problem.taps * math.prod(problem.output_size)
    itemsize = DTYPE_BYTES[problem.dtype]
    rate = {4: 4.5e10, 8: 2e10}.get(itemsize, 1e10) if problem.dtype.startswith("float") else 1e9
    workspace = min(columns * itemsize, max(_WORKSPACE, columns // max(1, problem.batch) * itemsize))
    return Cost(3e-5 + columns * itemsize * 4e-10 + problem.macs / rate, workspace)


ALGORITHM = Algorithm(
    name="im2col",
    summary="windows copied into columns, then one matrix product",
    run=run,
    why_not=lambda _: None,
    cost=_cost,
    bound=direct_bound,
)
