"""How the tensors of a gradient are moved so that a plain convolution computes it; the records: ConvProblem.as_convolution.

input_gradient    x = conv(y, w flipped, its channels swapped within each group)
weight_gradient   w = conv(x with batch and channels swapped, y as the kernel), batch and channels swapped back
"""

from __future__ import annotations

from torch import Tensor

from convolve.problem import ConvProblem


def operands(problem: ConvProblem, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The input and weight of `problem.as_convolution()` from the operands of `problem.role`. Views where possible."""
    g = problem.groups
    if problem.role == "input_gradient":
        k, cg, *kernel = b.shape
        flipped = b.flip(tuple(range(2, b.dim())))
        swapped = flipped.reshape(g, k // g, cg, *kernel).transpose(1, 2)
        return a, swapped.reshape(g * cg, k // g, *kernel)
    if problem.role == "weight_gradient":
        return _swap(a, g), b.transpose(0, 1)
    return a, b


def result(problem: ConvProblem, y: Tensor) -> Tensor:
    """The result of `problem.role` from the output of `problem.as_convolution()`."""
    return y.transpose(0, 1) if problem.role == "weight_gradient" else y


def _swap(x: Tensor, groups: int) -> Tensor:
    """x (n, g c, *size) as (c, g n, *size): each group's channels become the batch, and the batch its channels."""
    n, channels, *size = x.shape
    swapped = x.reshape(n, groups, channels // groups, *size).permute(2, 1, 0, *range(3, 3 + len(size)))
    return swapped.reshape(channels // groups, groups * n, *size)
