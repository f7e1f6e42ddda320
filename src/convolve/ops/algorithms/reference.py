"""The definition, as loops over output positions and taps; never declines.

    y[n, k, j] = sum over c, t of  x[n, c, j s - p + t d] w[k, c, t]         zeros outside the input

All three roles by the same loops. Each step contracts the channels of one position and one tap, so it is slow and plain on
purpose: the other rows are tested against it in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from convolve.geometry import spread
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound, summing_dtype
from convolve.ops.windows import stuff_zeros, unpad, zero_pad
from convolve.problem import ConvProblem

_SECONDS_PER_STEP = 1.2e-5  # one small contraction of torch


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    n, k, cg, g = problem.batch, problem.filters, problem.channels // problem.groups, problem.groups
    wide = summing_dtype(a.dtype)
    a_wide, b_wide = a.to(wide), b.to(wide)
    window = problem.window

    if problem.role == "input_gradient":
        # Scattered into the padded, zero-stuffed input; what falls on padding and stuffing is dropped at the end.
        y, w = a_wide.reshape(n, g, k // g, *problem.output_size), b_wide.reshape(g, k // g, cg, *window.kernel)
        axes = zip(problem.size, window.input_dilation, window.padding, strict=True)
        padded = [spread(m, e) + p + q for m, e, (p, q) in axes]
        x = a_wide.new_zeros((n, g, cg, *padded))
        for output, tap, position in _steps(problem):
            x[position] += torch.einsum("ngk,gkc->ngc", y[output], w[tap])
        result = unpad(x, window.padding, window.input_dilation).reshape(problem.input_shape)
    else:
        x = zero_pad(stuff_zeros(a_wide, window.input_dilation), window.padding)
        x = x.reshape(n, g, cg, *x.shape[2:])
        if problem.role == "output":
            w = b_wide.reshape(g, k // g, cg, *window.kernel)
            y = a_wide.new_zeros((n, g, k // g, *problem.output_size))
            for output, tap, position in _steps(problem):
                y[output] += torch.einsum("ngc,gkc->ngk", x[position], w[tap])
            result = y.reshape(problem.output_shape)
        else:
            y = b_wide.reshape(n, g, k // g, *problem.output_size)
            w = a_wide.new_zeros((g, k // g, cg, *window.kernel))
            for output, tap, position in _steps(problem):
                w[tap] += torch.einsum("ngc,ngk->gkc", x[position], y[output])
            result = w.reshape(problem.weight_shape)
    if bias is not None:
        result = result + bias.to(wide).reshape(-1, *[1] * problem.axes)
    return result.to(a.dtype)


def _steps(problem: ConvProblem) -> Iterator[tuple[Any, Any, Any]]:
    """Every output, tap and position in the padded input that meet, as indices of the last axes."""
    window = problem.window
    for output in itertools.product(*map(range, problem.output_size)):
        for tap in itertools.product(*map(range, window.kernel)):
            steps = zip(output, window.stride, tap, window.dilation, strict=True)
            yield (..., *output), (..., *tap), (..., *(j * s + t * d for j, s, t, d in steps))


def _cost(problem: ConvProblem) -> Cost:
    steps = math.prod(problem.output_size) * math.prod(problem.window.kernel)
    return Cost(steps * _SECONDS_PER_STEP + problem.macs * 1e-9, problem.bytes)


ALGORITHM = Algorithm(
    name="reference",
    summary="the definition, in loops",
    run=run,
    why_not=lambda _: None,
    cost=_cost,
    bound=direct_bound,
    roles=("output", "input_gradient", "weight_gradient"),
)
