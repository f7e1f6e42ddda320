"""Windows as columns and back: unfold (im2col) and its adjoint fold (col2im), in one to three dimensions.

With taps T = the product of the kernel sizes, and positions L = the product of the output sizes,

    columns   (n, c · T, L)    torch's orientation: one window per column, so that weight (k, c · T) @ columns is the convolution
    rows      (n, L, c · T)    the transpose: one window per row, so that rows @ weight column is the convolution

fold(unfold(x)) adds up every copy of each element: x times the number of windows that read it. Padding as in pooling: an int, one
int or (before, after) pair per axis, or "valid", "same", "same_lower"; a negative side crops.
"""
# ruff: noqa: A002 - torch names its argument `input`

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.geometry import LARGEST, Window, checked, per_axis
from convolve.ops.arguments import Padding, Size, check_rank, window_for
from convolve.ops.windows import zero_pad
from convolve.problem import check_fits

Orientation = Literal["columns", "rows"]


def unfold(
    input: Tensor,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
    *,
    axes: int = 2,
    orientation: Orientation = "columns",
) -> Tensor:
    """Every window of (n, c, *size) as a column (n, c · T, L), or with orientation="rows" as a row (n, L, c · T).

    `axes` is the number of spatial axes, 1 to 3; without a batch the result has none either.

    >>> import torch, convolve
    >>> x = torch.arange(9.0).reshape(1, 3, 3)
    >>> convolve.unfold(x, 2)
    tensor([[0., 1., 3., 4.],
            [1., 2., 4., 5.],
            [3., 4., 6., 7.],
            [4., 5., 7., 8.]])
    >>> convolve.unfold(torch.arange(4.0)[None], 3, padding=((1, 0),), axes=1, orientation="rows")
    tensor([[0., 0., 1.],
            [0., 1., 2.],
            [1., 2., 3.]])
    """
    _check_axes(axes, orientation)
    check_rank("unfold", input.shape, axes)
    size = input.shape[-axes:]
    window = window_for(axes, size, kernel_size, stride, padding, dilation)
    check_fits(window, size)
    outputs = window.output_size(size)
    _check_storable([n + p + q for n, (p, q) in zip(size, window.padding, strict=True)], "the padded input")
    _check_storable([*window.kernel, *outputs], "the columns")
    x = zero_pad(input if input.dim() == axes + 2 else input[None], window.padding)
    for extent, stride_, d in zip(window.extent, window.stride, window.dilation, strict=True):
        x = x.unfold(2, extent, stride_)  # the next axis is always at 2: what is done moves behind
        x = x.movedim(2, -2)[..., ::d]
    # Now (n, c, outputs of axis 1, taps of axis 1, outputs of axis 2, …).
    positions = [2 + 2 * axis for axis in range(axes)]
    taps = [3 + 2 * axis for axis in range(axes)]
    n, c = x.shape[:2]
    lengths = (c * math.prod(window.kernel), math.prod(outputs))
    if orientation == "columns":
        result = x.permute(0, 1, *taps, *positions).reshape(n, *lengths)
    else:
        result = x.permute(0, *positions, 1, *taps).reshape(n, *lengths[::-1])
    return result if input.dim() == axes + 2 else result[0]


def fold(
    input: Tensor,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
    *,
    axes: int = 2,
    orientation: Orientation = "columns",
) -> Tensor:
    """The adjoint of `unfold`: columns (n, c · T, L) added back to where they came from in (n, c, *output_size).

    >>> import torch, convolve
    >>> windows = convolve.unfold(torch.ones(1, 3, 3), 2)
    >>> convolve.fold(windows, 3, 2)
    tensor([[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]])
    """
    _check_axes(axes, orientation)
    if input.dim() not in (2, 3):
        raise ShapeError(
            "fold takes (n, c * taps, positions) or (c * taps, positions)",
            f"got shape {tuple(input.shape)}",
            "see unfold",
        )
    size = per_axis(output_size, axes, "output_size", at_least=0)
    window = window_for(axes, size, kernel_size, stride, padding, dilation)
    check_fits(window, size)
    padded = [n + p + q for n, (p, q) in zip(size, window.padding, strict=True)]
    _check_storable(padded, "the padded result")
    outputs = window.output_size(size)
    x = input if input.dim() == 3 else input[None]
    if orientation == "rows":
        x = x.transpose(1, 2)
    taps = math.prod(window.kernel)
    n, rows, columns = x.shape
    if rows % taps != 0 or columns != math.prod(outputs):
        words = " x ".join(map(str, outputs))
        raise ShapeError(
            f"fold needs a multiple of {taps} values (the taps) at {math.prod(outputs)} positions ({words})",
            f"got {rows} at {columns}",
            "check kernel_size, output_size, stride, padding and orientation",
        )
    half = x.dtype in (torch.float16, torch.bfloat16)
    x = (x.float() if half else x).reshape(n, rows // taps, *window.kernel, *outputs)
    for axis in range(axes):
        x = _added(x, window, axis, padded[axis])
    x = zero_pad(x, [(-p, -q) for p, q in window.padding]).to(input.dtype)
    return x if input.dim() == 3 else x[0]


def _added(x: Tensor, window: Window, axis: int, length: int) -> Tensor:
    """x (n, c, taps of this axis, taps of later axes, …, outputs of this axis, …) with the taps added into `length` places."""
    s, d = window.stride[axis], window.dilation[axis]
    place = window.axes + 1  # the axis' outputs, once its taps are gone
    m = x.shape[place + 1]
    result = x.new_zeros((*x.shape[:2], *x.shape[3 : place + 1], length, *x.shape[place + 2 :]))
    for tap, part in enumerate(x.unbind(2)):
        target = result.narrow(place, tap * d, (m - 1) * s + 1).movedim(place, 0)[::s].movedim(0, place)
        target.add_(part)
    return result


def _check_axes(axes: int, orientation: str) -> None:
    if checked(axes, "axes") not in (1, 2, 3):
        raise UsageError("axes must be 1, 2 or 3", f"got {axes}", "give the number of spatial axes")
    if orientation not in get_args(Orientation):
        raise UnknownNameError.of("orientation", str(orientation), get_args(Orientation))


def _check_storable(sizes: Sequence[int], what: str) -> None:
    if math.prod(sizes) > LARGEST // 16:
        raise ShapeError(
            f"{what} must fit in memory", f"got {' x '.join(map(str, sizes))}", "use less padding or a smaller kernel"
        )
