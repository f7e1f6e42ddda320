# ruff: noqa: A002 - torch names its argument `input`
"""Pooling to a given size, under torch.nn.functional's names, and over everything: adaptive and global.

Output j of m reads inputs floor(j n / m) up to, not including, ceil((j+1) n / m): windows that cover the axis and may overlap by
one. Inputs are (n, c, *size) or (c, *size). The kernels are torch's; the checks that they lack are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, overload

import torch.nn.functional as F
from torch import Tensor

from convolve.errors import ShapeError, UsageError
from convolve.geometry import LARGEST, checked
from convolve.ops.arguments import check_rank

OutputSize = int | Sequence[int | None]


@overload
def adaptive_max_pool1d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = False) -> Tensor: ...


@overload
def adaptive_max_pool1d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...


def adaptive_max_pool1d(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest of each of `output_size` windows of a sequence, as `adaptive_max_pool2d` places them.

    >>> import torch, convolve
    >>> convolve.adaptive_max_pool1d(torch.tensor([[1.0, 3.0, 2.0, 5.0, 4.0]]), 2)
    tensor([[3., 5.]])
    """
    outputs = _adaptive_size(input, 1, output_size)
    values, indices = F.adaptive_max_pool1d_with_indices(input, outputs)  # type: ignore[arg-type,unused-ignore]
    return (values, indices) if return_indices else values


def adaptive_avg_pool1d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of `output_size` windows of a sequence, placed as by `adaptive_max_pool2d`.

    >>> import torch, convolve
    >>> convolve.adaptive_avg_pool1d(torch.tensor([[1.0, 3.0, 2.0, 5.0, 4.0]]), 2)
    tensor([[2.0000, 3.6667]])
    """
    return F.adaptive_avg_pool1d(input, _adaptive_size(input, 1, output_size))  # type: ignore[arg-type,unused-ignore]


@overload
def adaptive_max_pool2d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = False) -> Tensor: ...


@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...


def adaptive_max_pool2d(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest of each of `output_size` windows, output j reading floor(j n / m) up to ceil((j+1) n / m); None keeps an axis.

    >>> import torch, convolve
    >>> convolve.adaptive_max_pool2d(torch.arange(15.0).reshape(1, 3, 5), (2, 3))
    tensor([[[ 6.,  8.,  9.],
             [11., 13., 14.]]])
    """
    outputs = _adaptive_size(input, 2, output_size)
    values, indices = F.adaptive_max_pool2d_with_indices(input, outputs)  # type: ignore[arg-type,unused-ignore]
    return (values, indices) if return_indices else values


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of `output_size` windows, placed as by `adaptive_max_pool2d`.

    >>> import torch, convolve
    >>> convolve.adaptive_avg_pool2d(torch.arange(15.0).reshape(1, 3, 5), (None, 2))
    tensor([[[ 1.,  3.],
             [ 6.,  8.],
             [11., 13.]]])
    """
    return F.adaptive_avg_pool2d(input, _adaptive_size(input, 2, output_size))  # type: ignore[arg-type,unused-ignore]


@overload
def adaptive_max_pool3d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = False) -> Tensor: ...


@overload
def adaptive_max_pool3d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...


def adaptive_max_pool3d(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest of each of `output_size` windows of a volume, as `adaptive_max_pool2d` places them.

    >>> import torch, convolve
    >>> convolve.adaptive_max_pool3d(torch.arange(12.0).reshape(1, 2, 2, 3), (1, 1, 2))
    tensor([[[[10., 11.]]]])
    """
    outputs = _adaptive_size(input, 3, output_size)
    values, indices = F.adaptive_max_pool3d_with_indices(input, outputs)  # type: ignore[arg-type,unused-ignore]
    return (values, indices) if return_indices else values


def adaptive_avg_pool3d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of `output_size` windows of a volume, placed as by `adaptive_max_pool2d`.

    >>> import torch, convolve
    >>> convolve.adaptive_avg_pool3d(torch.arange(12.0).reshape(1, 2, 2, 3), (1, 1, 2))
    tensor([[[[5., 6.]]]])
    """
    return F.adaptive_avg_pool3d(input, _adaptive_size(input, 3, output_size))  # type: ignore[arg-type,unused-ignore]


def global_max_pool1d(input: Tensor) -> Tensor:
    """The largest of each whole sequence: (n, c, 1).

    >>> import torch, convolve
    >>> convolve.global_max_pool1d(torch.arange(6.0).reshape(1, 2, 3)).flatten()
    tensor([2., 5.])
    """
    return _whole(input, 1).max(-1).values[(..., *(None,) * 1)]


def global_avg_pool1d(input: Tensor) -> Tensor:
    """The mean of each whole sequence: (n, c, 1).

    >>> import torch, convolve
    >>> convolve.global_avg_pool1d(torch.arange(6.0).reshape(1, 2, 3)).flatten()
    tensor([1., 4.])
    """
    _needs_fractions(input)
    return _whole(input, 1).mean(-1)[(..., *(None,) * 1)]


def global_max_pool2d(input: Tensor) -> Tensor:
    """The largest of each whole map: (n, c, 1, 1).

    >>> import torch, convolve
    >>> convolve.global_max_pool2d(torch.arange(6.0).reshape(1, 2, 1, 3)).flatten()
    tensor([2., 5.])
    """
    return _whole(input, 2).max(-1).values[(..., *(None,) * 2)]


def global_avg_pool2d(input: Tensor) -> Tensor:
    """The mean of each whole map: (n, c, 1, 1).

    >>> import torch, convolve
    >>> convolve.global_avg_pool2d(torch.arange(6.0).reshape(1, 2, 1, 3)).flatten()
    tensor([1., 4.])
    """
    _needs_fractions(input)
    return _whole(input, 2).mean(-1)[(..., *(None,) * 2)]


def global_max_pool3d(input: Tensor) -> Tensor:
    """The largest of each whole volume: (n, c, 1, 1, 1).

    >>> import torch, convolve
    >>> convolve.global_max_pool3d(torch.arange(6.0).reshape(1, 2, 1, 1, 3)).flatten()
    tensor([2., 5.])
    """
    return _whole(input, 3).max(-1).values[(..., *(None,) * 3)]


def global_avg_pool3d(input: Tensor) -> Tensor:
    """The mean of each whole volume: (n, c, 1, 1, 1).

    >>> import torch, convolve
    >>> convolve.global_avg_pool3d(torch.arange(6.0).reshape(1, 2, 1, 1, 3)).flatten()
    tensor([1., 4.])
    """
    _needs_fractions(input)
    return _whole(input, 3).mean(-1)[(..., *(None,) * 3)]


def _adaptive_size(x: Tensor, axes: int, output_size: OutputSize) -> list[int]:
    """The checked output size; None, or a None in it, keeps the input's."""
    check_rank("pooling", x.shape, axes)
    _needs_fractions(x)
    wanted = list(output_size) if isinstance(output_size, Sequence) else [output_size] * axes
    size = x.shape[-axes:]
    if len(wanted) != axes:
        raise UsageError(
            f"output_size needs one value per axis ({axes})", f"got {output_size}", f"give an int or {axes} of them"
        )
    outputs = [n if m is None else checked(m, "output_size", at_least=1) for n, m in zip(size, wanted, strict=True)]
    if any(n == 0 for n in size):
        raise ShapeError(
            "adaptive pooling divides up what is there", f"got size {tuple(size)}", "give a non-empty input"
        )
    given = [m for m in wanted if m is not None]
    if math.prod(given) > LARGEST // 8:
        raise ShapeError("a result must fit in memory", f"got output_size {given}", "use a smaller output_size")
    return outputs


def _whole(x: Tensor, axes: int) -> Tensor:
    check_rank("pooling", x.shape, axes)
    if any(n == 0 for n in x.shape[-axes:]):
        raise ShapeError(
            "global pooling needs something to pool", f"got shape {tuple(x.shape)}", "give a non-empty input"
        )
    return x.flatten(-axes)


def _needs_fractions(x: Tensor) -> None:
    if not x.dtype.is_floating_point:
        raise UsageError(
            "global averages and adaptive pooling are defined for floating-point inputs",
            f"got {x.dtype}",
            "convert with .double(), which is exact up to 2^53",
        )
