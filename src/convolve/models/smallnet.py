"""A small modern network for images of 28 to 64 pixels: what to try first.

    stem      3x3 convolution to w maps, batch normalisation, ReLU, 2x2 maximum
    stage 1   a basic residual block, w maps
    stage 2   a basic residual block of stride 2, 2w maps
    stage 3   a basic residual block of stride 2, 4w maps
    head      global average, fully connected

With w = 32 it has 306,570 parameters and, on a 28x28 image, 14 million multiply-adds: a CPU's portion. It takes any size from 16
pixels on, since nothing in it depends on the size. No paper; the parts are those of He et al. 2016.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from convolve.errors import UsageError
from convolve.models.initial import initialise
from convolve.nn import AdaptiveAvgPool2d, BasicBlock, MaxPool2d, conv_unit


def smallnet(
    num_classes: int, in_channels: int, img_size: tuple[int, int], variant: str, init: str = "kaiming", width: int = 32
) -> nn.Module:
    del img_size, variant  # global pooling takes any size; there is one variant
    if width < 1:
        raise UsageError("width must be at least 1", f"got {width}", "use 16, 32 or 64")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = conv_unit(in_channels, width, 3, padding=1)
    layers["pool"] = MaxPool2d(2)
    layers["stage1"] = BasicBlock(width, width)
    layers["stage2"] = BasicBlock(width, 2 * width, 2)
    layers["stage3"] = BasicBlock(2 * width, 4 * width, 2)
    layers["average"] = AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(4 * width, num_classes)
    return initialise(nn.Sequential(layers), init)
