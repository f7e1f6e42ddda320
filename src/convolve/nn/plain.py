"""The layer of the introductions: one trainable kernel slid over one plain array, plus one bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convolve.ops.plain import corr2d


class Conv2D(nn.Module):
    """corr2d(x, weight) + bias for a plain array (h, w); weight (r, s) and bias (1,) start normally distributed.

    For images with channels in batches use torch.nn.Conv2d's twin, convolve.nn.Conv2d.

    >>> import torch, convolve
    >>> layer = convolve.Conv2D(kernel_size=(1, 2))
    >>> layer(torch.ones(6, 8)).shape
    torch.Size([6, 7])
    """

    def __init__(self, kernel_size: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(kernel_size))
        self.bias = nn.Parameter(torch.randn(1))

    def forward(self, x: Tensor) -> Tensor:
        return corr2d(x, self.weight) + self.bias

    def extra_repr(self) -> str:
        r, s = self.weight.shape
        return f"kernel_size=({r}, {s})"
