"""The convolution as the sparse matrix that it is: y (k positions) = W (k positions, c size) x (c size).

W holds, for every output position, the kernel's weights at the inputs under its window; its transpose is the transposed
convolution. It is built anew for each call, so this row is for understanding and for checking, not for speed. Padding has no
entry in it: an infinite weight there is not multiplied by zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound, summing_dtype
from convolve.ops.windows import meetings, with_bias
from convolve.problem import ROLES, ConvProblem

_MOST_ENTRIES = 2**26


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    wide = summing_dtype(a.dtype)
    g, n = problem.groups, problem.batch
    outputs, taps, inputs = meetings(problem.window, problem.size, a.device)
    cg, kg = problem.channels // g, problem.filters // g
    p, t, m = math.prod(problem.output_size), math.prod(problem.window.kernel), math.prod(problem.size)
    if problem.role == "weight_gradient":
        x = a.to(wide).reshape(n, g, cg, m)[..., inputs]
        y = b.to(wide).reshape(n, g, kg, p)[..., outputs]
        products = torch.einsum("ngce,ngke->gkce", x, y)
        result = products.new_zeros((g, kg, cg, t)).index_add(3, taps, products).reshape(problem.weight_shape)
        return result.to(a.dtype)
    weights = b.to(wide).reshape(g, kg, cg, t)[..., taps]
    if problem.role == "output":
        entries = torch.einsum("ngce,gkce->ngke", a.to(wide).reshape(n, g, cg, m)[..., inputs], weights)
        result = entries.new_zeros((n, g, kg, p)).index_add(3, outputs, entries).reshape(problem.output_shape)
    else:
        entries = torch.einsum("ngke,gkce->ngce", a.to(wide).reshape(n, g, kg, p)[..., outputs], weights)
        result = entries.new_zeros((n, g, cg, m)).index_add(3, inputs, entries).reshape(problem.input_shape)
    return with_bias(result, None if bias is None else bias.to(wide)).to(a.dtype)


def why_not(problem: ConvProblem) -> str | None:
    entries = _entries(problem)
    if entries > _MOST_ENTRIES:
        return f"its matrix would hold {entries:,} entries; the limit is {_MOST_ENTRIES:,}"
    return None


def _entries(problem: ConvProblem) -> int:
    return math.prod(problem.output_size) * problem.taps * problem.filters


def _cost(problem: ConvProblem) -> Cost:
    return Cost(1e-3 + 3e-7 * _entries(problem) + problem.macs * 1e-8, 32 * _entries(problem))


ALGORITHM = Algorithm(
    name="matrix",
    summary="the sparse kernel matrix, entry by entry",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=ROLES,
    local=False,
    not_automatic=lambda _: "it is for understanding, never the fastest",
)
