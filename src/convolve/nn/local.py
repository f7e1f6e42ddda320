"""A locally connected layer: the windows of a convolution, but every output position has its own filters.

What weight sharing saves: (3, 6, 6) -> (64, 2, 2) takes 27,648 weights fully connected, 6,912 here, 1,728 as a convolution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convolve.errors import ShapeError
from convolve.geometry import Window


class LocallyConnected2d(nn.Module):
    """Filters of their own for each output position of images (n, in_channels, *input_size): (n, out_channels, p, q).

    `weight` is (p·q, out_channels, in_channels·r·s) and `bias` (out_channels, p, q). The input size is part of the layer.
    Raises ShapeError for an input of another size, or a kernel that does not fit.

    >>> LocallyConnected2d(3, 64, (6, 6), 3, stride=2, bias=False).weight.numel()
    6912
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: tuple[int, int],
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        window = Window.of(kernel_size, stride, padding, dilation, axes=2)
        p, q = window.output_size(input_size)
        if p * q == 0:
            raise ShapeError(
                "the kernel must fit its input", f"got {window.extent} on {tuple(input_size)}", "pad, or shrink it"
            )
        self.in_channels, self.out_channels, self.input_size = in_channels, out_channels, tuple(input_size)
        self.window, self.output_size = window, (p, q)
        r, s = window.kernel
        self.weight = nn.Parameter(torch.empty(p * q, out_channels, in_channels * r * s))
        self.bias = nn.Parameter(torch.empty(out_channels, p, q)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As torch.nn.Conv2d: uniform within ± 1 / sqrt(fan-in)."""
        bound = 1 / math.sqrt(self.weight.shape[2])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        n, *chw = x.shape
        if tuple(chw) != (self.in_channels, *self.input_size):
            wanted = (self.in_channels, *self.input_size)
            raise ShapeError(
                f"this layer takes (n, {', '.join(map(str, wanted))})", f"got {tuple(x.shape)}", "make it for that size"
            )
        kernel, stride, dilation = self.window.kernel, self.window.stride, self.window.dilation
        (top, bottom), (left, right) = self.window.padding
        columns = F.unfold(F.pad(x, (left, right, top, bottom)), kernel, dilation, 0, stride)  # (n, c·r·s, p·q)
        out = torch.einsum("ncl,lkc->nkl", columns, self.weight).view(n, self.out_channels, *self.output_size)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        kernel, stride = self.window.kernel, self.window.stride
        return f"{self.in_channels}, {self.out_channels}, {self.input_size}, kernel_size={kernel}, stride={stride}"
