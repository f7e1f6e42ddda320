"""MobileNetV1 and V2: depthwise-separable convolutions, and a width multiplier that scales every layer.

V1 (Howard et al. 2017, table 1): 3x3/2 convolution to 32, thirteen blocks of depthwise 3x3 and pointwise 1x1, each followed by
batch normalisation and ReLU, global average pooling, one fully connected layer.
V2 (Sandler et al. 2018, table 2): inverted residuals with linear ends, ReLU6; parameter names are torchvision's.

Deviations. V1's paper strides its last depthwise layer by 2 without need; released code uses 1, and so does this. V1 has no dropout
(the released code: 0.001). V2 multiplies widths by alpha and rounds to multiples of 8 as its authors' code does. Weights start
from Kaiming's; the classifier from N(0, 0.01²).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import nn

from convolve.errors import UsageError
from convolve.models.initial import initialise
from convolve.models.stem import is_small
from convolve.nn import AdaptiveAvgPool2d, InvertedResidual, conv_unit


class V1Row(NamedTuple):
    """A separable block: the stride of its depthwise half, the channels out of its pointwise half, how many of them."""

    stride: int
    out: int
    repeat: int = 1


V1_ROWS = (
    V1Row(1, 64),
    V1Row(2, 128),
    V1Row(1, 128),
    V1Row(2, 256),
    V1Row(1, 256),
    V1Row(2, 512),
    V1Row(1, 512, 5),
    V1Row(2, 1024),
    V1Row(1, 1024),
)


class V2Row(NamedTuple):
    """Inverted residuals: how much wider the middle is, channels out, how many, the stride of the first."""

    expand: int
    out: int
    repeat: int
    stride: int


V2_ROWS = (
    V2Row(1, 16, 1, 1),
    V2Row(6, 24, 2, 2),
    V2Row(6, 32, 3, 2),
    V2Row(6, 64, 4, 2),
    V2Row(6, 96, 3, 1),
    V2Row(6, 160, 3, 2),
    V2Row(6, 320, 1, 1),
)


def mobilenet_v1(
    num_classes: int,
    in_channels: int,
    img_size: tuple[int, int],
    variant: str,
    init: str = "kaiming",
    alpha: float | None = None,
    stem: str = "paper",
) -> nn.Module:
    del img_size  # global pooling takes any
    scale = _alpha(float(variant) if alpha is None else alpha)
    channels = int(32 * scale)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = conv_unit(in_channels, channels, 3, stride=1 if is_small(stem) else 2, padding=1)
    number = 0
    for row in V1_ROWS:
        for _ in range(row.repeat):
            number += 1
            out = int(row.out * scale)
            layers[f"depthwise{number}"] = conv_unit(
                channels, channels, 3, stride=row.stride, padding=1, groups=channels
            )
            layers[f"pointwise{number}"] = conv_unit(channels, out, 1)
            channels = out
    layers["average"] = AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels, num_classes)
    return _initialised(nn.Sequential(layers), init)


def mobilenet_v2(
    num_classes: int,
    in_channels: int,
    img_size: tuple[int, int],
    variant: str,
    init: str = "kaiming",
    alpha: float | None = None,
    stem: str = "paper",
) -> nn.Module:
    del img_size
    scale = _alpha(float(variant) if alpha is None else alpha)
    channels = _multiple_of_8(32 * scale)
    layers: list[nn.Module] = [_unit(in_channels, channels, 3, 1 if is_small(stem) else 2)]
    for row in V2_ROWS:
        out = _multiple_of_8(row.out * scale)
        for index in range(row.repeat):
            layers.append(InvertedResidual(channels, out, row.stride if index == 0 else 1, row.expand))
            channels = out
    last = _multiple_of_8(1280 * max(1.0, scale))
    layers.append(_unit(channels, last, 1, 1))
    classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
    parts = OrderedDict(
        features=nn.Sequential(*layers), average=AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=classifier
    )
    return _initialised(nn.Sequential(parts), init)


def _unit(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU6 under torchvision's names 0, 1, 2."""
    unit = conv_unit(
        in_channels, out_channels, kernel_size, activation=nn.ReLU6, stride=stride, padding=kernel_size // 2
    )
    return nn.Sequential(*unit)


def _initialised(net: nn.Module, init: str) -> nn.Module:
    initialise(net, init)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
    return net


def _alpha(value: float) -> float:
    if not 0.1 <= value <= 4:
        raise UsageError("alpha scales the width, 0.1 to 4", f"got {value}", "use 0.25, 0.5, 0.75 or 1")
    return value


def _multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, at least 8 and not more than a tenth below the width."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest
