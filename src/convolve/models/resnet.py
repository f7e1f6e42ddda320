"""ResNet-18, 34 and 50, here for comparison with the networks before shortcuts.

Source: He et al. 2016, table 1. Parameter names are torchvision's.
Deviations: the stride of a bottleneck sits on its 3x3 convolution (torchvision's "v1.5"; the paper's on the first 1x1).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from convolve.models.initial import initialise
from convolve.models.stem import is_small
from convolve.nn import AdaptiveAvgPool2d, BasicBlock, Bottleneck, Conv2d, MaxPool2d

COUNTS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


def resnet(
    name: str,
    num_classes: int,
    in_channels: int,
    img_size: tuple[int, int],
    variant: str,
    init: str = "kaiming",
    stem: str = "paper",
) -> nn.Module:
    del img_size, variant  # global pooling takes any size; there is one variant
    small = is_small(stem)
    block = Bottleneck if name == "resnet50" else BasicBlock
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = Conv2d(in_channels, WIDTHS[0], *((3, 1, 1) if small else (7, 2, 3)), bias=False)
    layers["bn1"] = nn.BatchNorm2d(WIDTHS[0])
    layers["relu"] = nn.ReLU()
    layers["maxpool"] = nn.Identity() if small else MaxPool2d(3, 2, 1)
    channels = WIDTHS[0]
    for number, (count, width) in enumerate(zip(COUNTS[name], WIDTHS, strict=True), 1):
        blocks: list[nn.Module] = []
        for index in range(count):
            blocks.append(block(channels, width, 2 if number > 1 and index == 0 else 1))
            channels = width * block.expansion
        layers[f"layer{number}"] = nn.Sequential(*blocks)
    layers["avgpool"] = AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels, num_classes)
    return initialise(nn.Sequential(layers), init)


resnet18, resnet34, resnet50 = (partial(resnet, name) for name in COUNTS)
