"""The Inception block: four paths with windows of different sizes over one input, their maps concatenated.

    1x1 | 1x1 -> 3x3 | 1x1 -> 5x5 | 3x3 maximum -> 1x1          the 1x1 in front cut the channels, and so the cost
Source: Szegedy et al. 2015 (GoogLeNet), figure 2(b); the columns of its table 1 are the arguments here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from convolve.nn.blocks import conv_unit
from convolve.nn.pool import MaxPool2d


class InceptionWidths(NamedTuple):
    """A block's channel counts, in the order of the paper's columns; r is the reduction in front of the window."""

    c1x1: int
    r3x3: int
    c3x3: int
    r5x5: int
    c5x5: int
    pool: int

    @property
    def outputs(self) -> int:
        return self.c1x1 + self.c3x3 + self.c5x5 + self.pool


class Inception(nn.Module):
    """(n, in_channels, h, w) to (n, sum of the four widths, h, w). Each convolution has a ReLU, and batch normalisation if `norm`.

    `third_kernel` is the window of the third path: 5 in the paper, 3 in torchvision.

    >>> block = Inception(192, InceptionWidths(64, 96, 128, 16, 32, 32))
    >>> block(torch.zeros(1, 192, 7, 5)).shape, sum(p.numel() for p in block.parameters() if p.dim() == 4)
    (torch.Size([1, 256, 7, 5]), 163328)
    """

    def __init__(self, in_channels: int, widths: InceptionWidths, norm: bool = False, third_kernel: int = 5) -> None:
        super().__init__()
        w = widths
        self.branch1 = conv_unit(in_channels, w.c1x1, 1, norm)
        self.branch2 = nn.Sequential(
            conv_unit(in_channels, w.r3x3, 1, norm), conv_unit(w.r3x3, w.c3x3, 3, norm, padding=1)
        )
        self.branch3 = nn.Sequential(
            conv_unit(in_channels, w.r5x5, 1, norm),
            conv_unit(w.r5x5, w.c5x5, third_kernel, norm, padding=third_kernel // 2),
        )
        self.branch4 = nn.Sequential(MaxPool2d(3, 1, 1), conv_unit(in_channels, w.pool, 1, norm))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)
