"""Pooling with parameters: LeNet-5's trainable subsampling, and the weighted maximum.

    TrainableSubsampling   w_c · (sum of the window) + b_c      LeCun et al. 1998, section II-B: the four inputs are *added*
    WeightedMaxPool2d      w_c · (maximum of the window) + b_c   what tutorials make of it

The squashing function that follows is a layer of its own. Windows do not overlap unless stride says so.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convolve.errors import ShapeError


class _ScaledPool(nn.Module):
    """One coefficient and one bias per channel, after a pooling."""

    def __init__(self, channels: int, kernel_size: int = 2, stride: int | None = None) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.stride = channels, kernel_size, stride or kernel_size
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """LeNet-5's rule: uniform within ± 2.4 / fan-in, the fan-in being the window."""
        bound = 2.4 / self.kernel_size**2
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    def pool(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        if c != self.channels:
            raise ShapeError(
                f"{type(self).__name__} was made for {self.channels} channels", f"got {c}", "change one of the two"
            )
        if min(h, w) < self.kernel_size:
            size = self.kernel_size
            raise ShapeError("the window must fit its input", f"got {size}x{size} on {h}x{w}", "use larger maps")
        return self.pool(x) * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}"


class TrainableSubsampling(_ScaledPool):
    """Sum over windows of (n, channels, h, w), times one trainable coefficient per channel, plus one bias.

    >>> layer = TrainableSubsampling(1)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([0.25]), "bias": torch.tensor([1.0])})
    >>> layer(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist()
    [3.5, 5.5, 11.5, 13.5]
    """

    def pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride) * self.kernel_size**2


class WeightedMaxPool2d(_ScaledPool):
    """Maximum over windows of (n, channels, h, w), times one trainable coefficient per channel, plus one bias.

    Starts as the plain maximum.
    """

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride)
