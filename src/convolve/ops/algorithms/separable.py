"""Kernels of rank one, w = u v^T: one pass along each axis instead of one over the whole kernel.

A blur, a Sobel or a Gabor filter of r x s taps then costs r + s products. The factors come from the row and the column of
the largest entry (the pivot w[i, j]: u = w[:, j] / w[i, j], v = w[i, :]), which keeps small integers exact where a singular
value decomposition gives square roots. Kernels whose product differs from w by more than rounding are refused.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convolve.geometry import Window
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.algorithms import direct
from convolve.ops.bounds import EPSILON, direct_bound, summing_dtype
from convolve.ops.windows import stuff_zeros, with_bias, zero_pad
from convolve.problem import ConvProblem

_ROUNDINGS = 4  # how many roundings of the kernel's largest entry the factors may be off


def why_not(problem: ConvProblem) -> str | None:
    if problem.axes != 2:
        return "it is written for two axes"
    if min(problem.window.kernel) < 2:
        return "the kernel lies along one axis already"
    if problem.dtype not in EPSILON:
        return f"dividing by the pivot is not exact, and {problem.dtype} must be"
    return None


def not_these(problem: ConvProblem, x: Tensor, w: Tensor) -> str | None:  # noqa: ARG001 - every row's signature
    u, v = factors(w)
    off = (u * v - w.to(u.dtype)).abs().amax(dim=(2, 3))
    largest = w.abs().amax(dim=(2, 3)).to(u.dtype)
    # Written so that NaN is refused too.
    if not bool((off <= _ROUNDINGS * EPSILON[problem.dtype] * largest).all()):
        return "not every kernel is of rank one"
    return None


def factors(w: Tensor) -> tuple[Tensor, Tensor]:
    """u (k, c, r, 1) and v (k, c, 1, s) with u v = w for kernels of rank one."""
    w = w.to(summing_dtype(w.dtype))
    k, c, r, s = w.shape
    pivot = w.reshape(k, c, r * s).abs().argmax(dim=2)
    row, column = pivot // s, pivot % s
    v = w.gather(2, row[..., None, None].expand(k, c, 1, s))
    u = w.gather(3, column[..., None, None].expand(k, c, r, 1))
    value = v.gather(3, column[..., None, None])
    return u / torch.where(value == 0, 1.0, value), v


def run(problem: ConvProblem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    window, groups = problem.window, problem.groups
    wide = summing_dtype(x.dtype)
    u, v = factors(w)
    k, cg, r, s = w.shape
    # Along the rows: each channel by the v of every filter that reads it; then along the columns, summing the channels.
    rows = v.reshape(groups, k // groups, cg, 1, s).transpose(1, 2).reshape(groups * cg * (k // groups), 1, 1, s)
    columns = u.reshape(k, cg, r, 1)
    x = zero_pad(stuff_zeros(x, window.input_dilation), window.padding).to(wide)
    inner = _pass(x, rows, groups * cg, (1, window.stride[1]), (1, window.dilation[1]))
    n, _, h, q = inner.shape
    inner = inner.reshape(n, groups, cg, k // groups, h, q).transpose(2, 3).reshape(n, k * cg, h, q)
    y = _pass(inner, columns, k, (window.stride[0], 1), (window.dilation[0], 1))
    return with_bias(y, None if bias is None else bias.to(wide)).to(getattr(torch, problem.dtype))


def _pass(x: Tensor, w: Tensor, groups: int, stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """One axis, by whole maps: the library's own convolution is slow on kernels of one channel."""
    n, c, *size = x.shape
    window = Window.of(tuple(w.shape[2:]), stride, 0, dilation, axes=2)
    dtype = str(x.dtype).removeprefix("torch.")
    return direct.run(ConvProblem(n, c, w.shape[0], tuple(size), window, groups, dtype), x, w, None)


def _cost(problem: ConvProblem) -> Cost:
    r, s = problem.window.kernel
    maps = problem.batch * problem.filters * (problem.channels // problem.groups)
    rows, q = problem.size[0] + sum(problem.window.padding[0]), problem.output_size[1]
    products = maps * q * (rows * s + problem.output_size[0] * r)
    slower = 2 if problem.dtype == "float64" else 1
    return Cost(4e-4 + slower * (products * 3.5e-10 + maps * q * rows * 6e-9), 8 * slower * maps * q * rows)


def bound(problem: ConvProblem) -> float:
    """Of the sums, and of the factors: each tap may be off by a few roundings of the largest."""
    once = EPSILON[problem.dtype]
    return direct_bound(problem) + (_ROUNDINGS + 2) * once * math.sqrt(problem.taps)


ALGORITHM = Algorithm(
    name="separable",
    summary="kernels of rank one, one axis after the other",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=bound,
    local=False,
    exact=False,
    not_these=not_these,
)
