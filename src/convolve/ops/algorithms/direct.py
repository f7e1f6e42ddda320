"""Sliding windows: one multiplication and one addition of whole maps for each channel and tap, in one fixed order.

    for each channel c of a group, for each tap t:   y[n, k] += x[n, c, shifted by t] * w[k, c, t]

Each product and each sum is rounded by itself, element by element: the bits depend neither on the batch nor on the number of
threads, which no matrix product of a library promises. The weight gradient is a sum over positions instead; it is added by
halves (pairwise), again element by element. Traffic: three maps per tap and channel, so few channels or small maps suit it.
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
from convolve.ops.windows import stuff_zeros, unpad, with_bias, zero_pad
from convolve.problem import ROLES, ConvProblem

_SECONDS_PER_STEP = 8e-6  # two small operators of torch
_SECONDS_PER_MAC = 3.5e-10
_SECONDS_PER_OUTPUT = 2e-9  # of two fresh maps


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    wide = summing_dtype(a.dtype)
    role = {"output": _output, "input_gradient": _input_gradient, "weight_gradient": _weight_gradient}[problem.role]
    result = role(problem, a.to(wide), b.to(wide))
    return with_bias(result, None if bias is None else bias.to(wide)).to(a.dtype)


def _output(problem: ConvProblem, x: Tensor, w: Tensor) -> Tensor:
    x, w = _padded(problem, x), _per_group(problem, w)
    y = x.new_zeros((problem.batch, problem.groups, w.shape[1], *problem.output_size))
    product = torch.empty_like(y)
    for c in range(w.shape[2]):
        for tap, window in _taps(problem):
            torch.mul(x[:, :, c, None][window], _column(w[:, :, c][tap], problem), out=product)
            y += product
    return y.flatten(1, 2)


def _input_gradient(problem: ConvProblem, y: Tensor, w: Tensor) -> Tensor:
    w = _per_group(problem, w)
    y = y.reshape(problem.batch, problem.groups, w.shape[1], *problem.output_size)
    sizes = zip(problem.size, problem.window.input_dilation, problem.window.padding, strict=True)
    x = y.new_zeros((problem.batch, problem.groups, w.shape[2], *(spread(n, e) + p + q for n, e, (p, q) in sizes)))
    for k in range(w.shape[1]):
        for tap, window in _taps(problem):
            x[window] += y[:, :, k, None] * _column(w[:, k][tap], problem)
    return unpad(x.flatten(1, 2), problem.window.padding, problem.window.input_dilation)


def _weight_gradient(problem: ConvProblem, x: Tensor, y: Tensor) -> Tensor:
    x = _padded(problem, x)
    y = y.reshape(problem.batch, problem.groups, -1, *problem.output_size)
    w = x.new_empty((problem.groups, y.shape[2], x.shape[2], *problem.window.kernel))
    for c in range(x.shape[2]):
        for tap, window in _taps(problem):
            products = x[:, :, c, None][window] * y
            w[:, :, c][tap] = _sum_pairwise(products.movedim(0, -1).flatten(2))
    return w.flatten(0, 1)


def _padded(problem: ConvProblem, x: Tensor) -> Tensor:
    x = zero_pad(stuff_zeros(x, problem.window.input_dilation), problem.window.padding)
    return x.reshape(problem.batch, problem.groups, problem.channels // problem.groups, *x.shape[2:])


def _per_group(problem: ConvProblem, w: Tensor) -> Tensor:
    return w.reshape(problem.groups, problem.filters // problem.groups, *w.shape[1:])


def _column(weights: Tensor, problem: ConvProblem) -> Tensor:
    """(g, k) weights of one tap, ready to meet maps (n, g, k, *size)."""
    return weights.reshape(*weights.shape, *[1] * problem.axes)


def _taps(problem: ConvProblem) -> Iterator[tuple[Any, Any]]:
    """Each tap, and the positions of the padded input that it reads for all outputs, as indices of the last axes."""
    window = problem.window
    axes = list(zip(problem.output_size, window.stride, window.dilation, strict=True))
    for tap in itertools.product(*map(range, window.kernel)):
        yield (
            (..., *tap),
            (..., *(slice(t * d, t * d + s * (m - 1) + 1, s) for t, (m, s, d) in zip(tap, axes, strict=True))),
        )


def _sum_pairwise(terms: Tensor) -> Tensor:
    """The sum over the last axis, adding the second half to the first until one is left."""
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        rest = terms[..., 2 * half :]
        terms = terms[..., :half] + terms[..., half : 2 * half]
        if rest.shape[-1]:
            terms = torch.cat((terms, rest), dim=-1)
    return terms[..., 0]


def _cost(problem: ConvProblem) -> Cost:
    inner = problem.filters if problem.role == "input_gradient" else problem.channels
    steps = inner // problem.groups * math.prod(problem.window.kernel)
    itemsize = 8 if problem.dtype in ("float64", "int64") else 4
    elements = math.prod(problem.output_shape)
    seconds = (
        steps * _SECONDS_PER_STEP + (problem.macs * _SECONDS_PER_MAC + elements * _SECONDS_PER_OUTPUT) * itemsize / 4
    )
    return Cost(seconds, itemsize * (math.prod(problem.output_shape) + math.prod(problem.input_shape)))


ALGORITHM = Algorithm(
    name="direct",
    summary="sliding windows, one channel and tap at a time, always in the same order",
    run=run,
    why_not=lambda _: None,
    cost=_cost,
    bound=direct_bound,
    roles=ROLES,
    reproducible=True,
)
