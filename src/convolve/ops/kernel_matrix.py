"""A convolution written out as one sparse matrix.

A convolution is linear: there is a matrix M (k·p·q rows, c·h·w columns) with y.flatten() = M @ x.flatten(). The row of filter k at
output j holds weight[k, c, tap t] in the column of channel c at input j s - p + t d: its structure is geometry.Window.taps, axis by
axis. The transpose of M is the transposed convolution; applied to the output's gradient it gives the input's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from convolve.errors import ShapeError
from convolve.geometry import LARGEST, checked, per_axis
from convolve.ops.arguments import Padding, Size, window_for
from convolve.ops.windows import meetings
from convolve.problem import check_fits, check_groups


def kernel_matrix(
    weight: Tensor,
    input_size: Size,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    flip_kernel: bool = False,
) -> Tensor:
    """The sparse (COO, coalesced) matrix of the convolution of (groups · c/g, *input_size) with weight (k, c/g, *kernel).

    A plain kernel (r, s) stands for one channel and one filter. The matrix is differentiable by the weight.

    >>> import torch, convolve
    >>> matrix = convolve.kernel_matrix(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (3, 3))
    >>> matrix.to_dense().int().tolist()[0]
    [1, 2, 0, 3, 4, 0, 0, 0, 0]
    >>> (matrix @ torch.arange(9.0)).tolist()
    [27.0, 37.0, 57.0, 67.0]
    """
    if weight.dim() == 2 and not (isinstance(input_size, Sequence) and len(input_size) == 1):
        weight = weight[None, None]
    axes = weight.dim() - 2
    if axes not in (1, 2, 3):
        raise ShapeError(
            "a weight is (filters, channels / groups, *kernel), or one plain kernel (r, s)",
            f"got shape {tuple(weight.shape)}",
            "give one to three kernel axes",
        )
    size = per_axis(input_size, axes, "input_size", at_least=0)
    filters, depth, *kernel = weight.shape
    checked(groups, "groups", at_least=1)
    check_groups(depth * groups, filters, groups)
    window = window_for(axes, size, tuple(kernel), stride, padding, dilation)
    check_fits(window, size)
    outputs = window.output_size(size)
    rows, columns = filters * math.prod(outputs), depth * groups * math.prod(size)
    if rows * columns > LARGEST:
        raise ShapeError(
            "a matrix's elements must be countable in 64 bits", f"got {rows} x {columns}", "use a smaller input"
        )
    if flip_kernel:
        weight = weight.flip(tuple(range(2, weight.dim())))

    device = weight.device
    output, tap, source = meetings(window, size, device)
    # Every filter with every channel of its group.
    f = torch.arange(filters, device=device)[:, None, None]
    c = torch.arange(depth, device=device)[None, :, None]
    channel = f // (filters // groups) * depth + c
    row = (f * math.prod(outputs) + output).expand(filters, depth, -1)
    column = channel * math.prod(size) + source
    value = weight.flatten()[((f * depth + c) * math.prod(kernel) + tap).flatten()]
    places = torch.stack([row.flatten(), column.flatten()])
    return torch.sparse_coo_tensor(places, value, (rows, columns), check_invariants=False).coalesce()
