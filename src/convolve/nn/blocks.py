"""The small blocks that networks are stacked from, each a Sequential whose children keep their own names.

conv_unit        convolution, [batch normalisation], ReLU                                  the unit of GoogLeNet, MobileNet
VGGBlock         count x (3x3 convolution, [batch normalisation], ReLU), then 2x2 maximum   Simonyan & Zisserman 2015
NiNBlock         convolution, ReLU, 1x1, ReLU, 1x1, ReLU                                   Lin, Chen & Yan 2014
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from convolve.errors import UsageError
from convolve.nn.conv import Conv2d
from convolve.nn.pool import MaxPool2d


def conv_unit(
    in_channels: int, out_channels: int, kernel_size: int, norm: bool = True, activation: Any = nn.ReLU, **options: Any
) -> nn.Sequential:
    """A convolution (bias only without `norm`), batch normalisation if `norm`, and an activation unless None.

    `options` are those of Conv2d. Children: conv, bn, act.

    >>> list(dict(conv_unit(3, 8, 3).named_children()))
    ['conv', 'bn', 'act']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = Conv2d(in_channels, out_channels, kernel_size, bias=not norm, **options)
    if norm:
        layers["bn"] = nn.BatchNorm2d(out_channels)
    if activation is not None:
        layers["act"] = activation()
    return nn.Sequential(layers)


class VGGBlock(nn.Sequential):
    """`count` 3x3 convolutions that keep the size, then a 2x2 maximum that halves it: (n, out_channels, h // 2, w // 2).

    With `last_kernel` 1 the last convolution is 1x1 (the paper's configuration C).

    >>> import torch
    >>> VGGBlock(2, 3, 16)(torch.zeros(1, 3, 9, 6)).shape
    torch.Size([1, 16, 4, 3])
    """

    def __init__(
        self, count: int, in_channels: int, out_channels: int, norm: bool = False, last_kernel: int = 3
    ) -> None:
        if count < 1:
            raise UsageError("a VGG block needs at least one convolution", f"got {count}", "use 1 or more")
        layers: list[nn.Module] = []
        for index in range(count):
            kernel = last_kernel if index == count - 1 else 3
            layers.append(Conv2d(in_channels, out_channels, kernel, padding=kernel // 2))
            layers += [nn.BatchNorm2d(out_channels)] * norm + [nn.ReLU(inplace=True)]
            in_channels = out_channels
        super().__init__(*layers, MaxPool2d(2, 2))


class NiNBlock(nn.Sequential):
    """A convolution and two 1x1 convolutions, with `widths` outputs each and a ReLU after each ("mlpconv").

    `last_relu` False leaves the last ReLU out, for a block whose maps are scores. `options` are those of Conv2d.

    >>> import torch
    >>> NiNBlock(3, (192, 160, 96), 5, padding=2)(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 96, 8, 8])
    """

    def __init__(
        self, in_channels: int, widths: tuple[int, int, int], kernel_size: int, last_relu: bool = True, **options: Any
    ) -> None:
        first, second, third = widths
        layers = [
            *(Conv2d(in_channels, first, kernel_size, **options), nn.ReLU()),
            *(Conv2d(first, second, 1), nn.ReLU()),
            *(Conv2d(second, third, 1), nn.ReLU()),
        ]
        super().__init__(*layers[: None if last_relu else -1])
