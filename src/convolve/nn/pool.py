"""torch's pooling layers over our operators: the same arguments, and the freedom in padding that our operators have.

Beyond torch: `padding` also one (before, after) pair per axis, "same", "same_lower" or "valid", and of more than half a window.
A window that lies wholly in the padding gives the lowest number of the maximum and zero of the average.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from convolve.ops.pool import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from convolve.ops.pool_adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
)

_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")


def _arguments(layer: nn.Module, *names: str) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in names}


class MaxPool1d(nn.MaxPool1d):
    """The largest of each window of (n, c, length)."""

    def forward(self, input: Tensor) -> Any:  # noqa: A002  (torch's own name, here and below)
        return max_pool1d(input, **_arguments(self, *_MAX))


class MaxPool2d(nn.MaxPool2d):
    """The largest of each window of (n, c, h, w); with return_indices also where it lies in the flattened map.

    >>> import torch
    >>> MaxPool2d(2, padding="same")(torch.arange(9.0).view(1, 1, 3, 3)).flatten().tolist()
    [4.0, 5.0, 7.0, 8.0]
    """

    def forward(self, input: Tensor) -> Any:  # noqa: A002
        return max_pool2d(input, **_arguments(self, *_MAX))


class MaxPool3d(nn.MaxPool3d):
    """The largest of each window of (n, c, depth, h, w)."""

    def forward(self, input: Tensor) -> Any:  # noqa: A002
        return max_pool3d(input, **_arguments(self, *_MAX))


class AvgPool1d(nn.AvgPool1d):
    """The mean of each window of (n, c, length)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return avg_pool1d(input, **_arguments(self, *_AVERAGE))


class AvgPool2d(nn.AvgPool2d):
    """The mean of each window of (n, c, h, w).

    >>> import torch
    >>> AvgPool2d(2, padding=((1, 0), (1, 0)))(torch.ones(1, 1, 3, 3)).flatten().tolist()
    [0.25, 0.5, 0.5, 1.0]
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return avg_pool2d(input, **_arguments(self, *_AVERAGE, "divisor_override"))


class AvgPool3d(nn.AvgPool3d):
    """The mean of each window of (n, c, depth, h, w)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return avg_pool3d(input, **_arguments(self, *_AVERAGE, "divisor_override"))


class AdaptiveAvgPool1d(nn.AdaptiveAvgPool1d):
    """The mean of each of output_size windows that cover (n, c, length)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return adaptive_avg_pool1d(input, **_arguments(self, "output_size"))


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """The mean of each of output_size windows that cover (n, c, h, w); of size 1 it is global average pooling.

    >>> import torch
    >>> AdaptiveAvgPool2d((1, 2))(torch.arange(6.0).view(1, 1, 2, 3)).flatten().tolist()
    [2.0, 3.0]
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return adaptive_avg_pool2d(input, **_arguments(self, "output_size"))


class AdaptiveAvgPool3d(nn.AdaptiveAvgPool3d):
    """The mean of each of output_size windows that cover (n, c, depth, h, w)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return adaptive_avg_pool3d(input, **_arguments(self, "output_size"))


class AdaptiveMaxPool1d(nn.AdaptiveMaxPool1d):
    """The largest of each of output_size windows that cover (n, c, length)."""

    def forward(self, input: Tensor) -> Any:  # noqa: A002
        return adaptive_max_pool1d(input, **_arguments(self, "output_size", "return_indices"))


class AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """The largest of each of output_size windows that cover (n, c, h, w)."""

    def forward(self, input: Tensor) -> Any:  # noqa: A002
        return adaptive_max_pool2d(input, **_arguments(self, "output_size", "return_indices"))


class AdaptiveMaxPool3d(nn.AdaptiveMaxPool3d):
    """The largest of each of output_size windows that cover (n, c, depth, h, w)."""

    def forward(self, input: Tensor) -> Any:  # noqa: A002
        return adaptive_max_pool3d(input, **_arguments(self, "output_size", "return_indices"))
