"""The parts of a depthwise-separable convolution: one filter per channel, then a 1x1 mix of the channels; and the shuffle.

    depthwise     groups = in_channels: k·k weights per map, no exchange between channels
    pointwise     1x1: a matrix over the channels at every pixel
    separable     the one after the other: c·k·k + c·out weights instead of c·out·k·k
    shuffle       (n, g, c/g, h, w) transposed to (n, c/g, g, h, w): the exchange that grouped 1x1 convolutions lack
Sources: Howard et al. 2017 (MobileNet), Zhang et al. 2018 (ShuffleNet). The shuffle is a fixed permutation, not a random one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from convolve.nn.conv import Conv2d
from convolve.ops.shuffle import channel_shuffle


class DepthwiseConv2d(Conv2d):
    """A convolution in which each of the `channels` has `multiplier` filters of its own: (n, channels·multiplier, p, q).

    Takes the remaining arguments of Conv2d by keyword.

    >>> DepthwiseConv2d(32, 3, padding=1, bias=False).weight.numel()
    288
    """

    def __init__(self, channels: int, kernel_size: int | tuple[int, int], multiplier: int = 1, **options: Any) -> None:
        super().__init__(channels, channels * multiplier, kernel_size, groups=channels, **options)


class PointwiseConv2d(Conv2d):
    """A 1x1 convolution: the same matrix (out_channels, in_channels) at every pixel.

    >>> PointwiseConv2d(32, 64, bias=False).weight.numel()
    2048
    """

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, 1, **options)


class DepthwiseSeparableConv2d(nn.Sequential):
    """A depthwise convolution (with the kernel, stride, padding, dilation and `multiplier`), then a pointwise one.

    >>> layer = DepthwiseSeparableConv2d(3, 64, 7, stride=2, padding=3, multiplier=8, bias=False)
    >>> sum(parameter.numel() for parameter in layer.parameters())
    2712
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        multiplier: int = 1,
        bias: bool = True,
        **options: Any,
    ) -> None:
        depthwise = DepthwiseConv2d(in_channels, kernel_size, multiplier, bias=bias, **options)
        pointwise = PointwiseConv2d(in_channels * multiplier, out_channels, bias=bias)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))


class ChannelShuffle(nn.ChannelShuffle):
    """Deal the channels of (n, c, …) round-robin: channel i·(c/g)+j becomes channel j·g+i, for g `groups`.

    Its inverse is the shuffle with c/g groups. Raises ShapeError when the groups do not divide the channels.

    >>> import torch
    >>> ChannelShuffle(2)(torch.arange(6).view(1, 6, 1, 1)).flatten().tolist()
    [0, 3, 1, 4, 2, 5]
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        return channel_shuffle(input, self.groups)
