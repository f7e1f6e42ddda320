"""Pooling with parameters: LeNet-5's trainable subsampling, w_c · (sum of the window) + b_c.

The paper *adds* the inputs of a window (LeCun et al. 1998, section II-B); `mode` "avg" takes their mean, "max" the largest, as some
texts describe it. The squashing function that follows is a layer of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convolve.errors import ShapeError
from convolve.ops.pool_trainable import TrainableMode, trainable_pool2d


class TrainableSubsampling(nn.Module):
    """Windows of (n, channels, h, w) pooled, times one coefficient per channel, plus one bias per channel.

    Raises ShapeError for an input with other channels, or smaller than the window.

    >>> layer = TrainableSubsampling(1)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([0.25]), "bias": torch.tensor([1.0])})
    >>> layer(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist()
    [3.5, 5.5, 11.5, 13.5]
    """

    def __init__(
        self, channels: int, kernel_size: int = 2, stride: int | None = None, mode: TrainableMode = "sum"
    ) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.stride, self.mode = channels, kernel_size, stride or kernel_size, mode
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """LeNet-5's rule, uniform within ± 2.4 / fan-in (the window), for the sum; the plain average or maximum otherwise."""
        if self.mode == "sum":
            bound = 2.4 / self.kernel_size**2
            nn.init.uniform_(self.weight, -bound, bound)
        else:
            nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-3] != self.channels:
            received, rule = f"got {x.shape[-3]}", f"this subsampling was made for {self.channels} channels"
            raise ShapeError(rule, received, "change one of the two")
        return trainable_pool2d(x, self.weight, self.bias, self.kernel_size, self.stride, mode=self.mode)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, mode={self.mode}"
