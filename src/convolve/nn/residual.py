"""Blocks with a shortcut: the sum of a path and of its input.

    BasicBlock          3x3 -> 3x3                                          He et al. 2016, figure 5 left
    Bottleneck          1x1 -> 3x3 -> 1x1, four times wider at the end       figure 5 right; the stride sits on the 3x3
    InvertedResidual    1x1 wider -> depthwise 3x3 -> 1x1 narrow, linear     Sandler et al. 2018 (MobileNetV2)
    ShuffleUnit         grouped 1x1 -> shuffle -> depthwise 3x3 -> grouped 1x1   Zhang et al. 2018, figure 2
Every convolution is followed by batch normalisation. Names of parameters are torchvision's, where it has the block.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from convolve.errors import UsageError
from convolve.nn.blocks import conv_unit
from convolve.nn.conv import Conv2d
from convolve.nn.pool import AvgPool2d
from convolve.nn.separable import ChannelShuffle

_linear_unit = partial(conv_unit, activation=None)


class _Residual(nn.Module):
    """What the two ResNet blocks share: the shortcut, projected by 1x1 where the size or the width changes."""

    downsample: nn.Module | None

    def shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        if stride == 1 and in_channels == out_channels:
            return None
        return nn.Sequential(Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class BasicBlock(_Residual):
    """Two 3x3 convolutions and a shortcut: (n, width, h / stride, w / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = self.shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        total: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return total


class Bottleneck(_Residual):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: (n, 4·width, h / stride, w / stride)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.downsample = self.shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        total: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return total


class InvertedResidual(nn.Module):
    """A narrow-wide-narrow block: (n, out_channels, h / stride, w / stride); the sum is taken where shapes agree.

    `expand` is how many times wider the middle is; with 1 the widening convolution is left out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expand: int = 6) -> None:
        super().__init__()
        wide = in_channels * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(_indexed(conv_unit(in_channels, wide, 1, activation=nn.ReLU6)))
        depthwise = conv_unit(wide, wide, 3, stride=stride, padding=1, groups=wide, activation=nn.ReLU6)
        self.conv = nn.Sequential(*layers, _indexed(depthwise), *_linear_unit(wide, out_channels, 1))
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.adds else out


class ShuffleUnit(nn.Module):
    """ShuffleNet's unit; with stride 2 the input, averaged 3x3, is concatenated instead of added.

    `first_groups` are the groups of the first 1x1 (1 where the input is narrow). The middle is a quarter of `out_channels`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, stride: int = 1, first_groups: int = 0
    ) -> None:
        super().__init__()
        if stride == 1 and in_channels != out_channels:
            raise UsageError(
                "a unit of stride 1 keeps its channels", f"got {in_channels} -> {out_channels}", "use stride 2"
            )
        middle = out_channels // 4
        added = out_channels - in_channels if stride == 2 else out_channels
        self.compress = conv_unit(in_channels, middle, 1, groups=first_groups or groups)
        self.shuffle = ChannelShuffle(groups) if groups > 1 else nn.Identity()
        self.depthwise = _linear_unit(middle, middle, 3, stride=stride, padding=1, groups=middle)
        self.expand = _linear_unit(middle, added, 1, groups=groups)
        self.pool = AvgPool2d(3, 2, 1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.expand(self.depthwise(self.shuffle(self.compress(x))))
        out = x + out if self.pool is None else torch.cat([self.pool(x), out], 1)
        result: Tensor = self.relu(out)
        return result


def _indexed(unit: nn.Sequential) -> nn.Sequential:
    """The same layers under the names 0, 1, 2, as in torchvision's MobileNetV2."""
    return nn.Sequential(*unit)
