"""ShuffleNet (V1): grouped 1x1 convolutions, and a shuffle of the channels so that the groups talk to each other.

    g   widths of stages 2, 3, 4        parameters    multiply-adds at 224
    1   144   288    576                 1,531,936     143,078,976
    2   200   400    800                 1,733,848     140,836,512
    3   240   480    960                 1,865,728     137,460,672
    4   272   544   1088                 1,968,344     134,339,776
    8   384   768   1536                 2,434,768     138,365,952
Source: Zhang et al. 2018, table 1 (stages of 4, 8 and 4 units). As there, the first 1x1 of stage 2 is not grouped. The shortcut of
a unit with stride 2 is the averaged input, concatenated.

Deviations: weights start from Kaiming's (not given in the paper).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from convolve.models.initial import initialise
from convolve.models.stem import is_small
from convolve.nn import AdaptiveAvgPool2d, MaxPool2d, ShuffleUnit, conv_unit

WIDTHS = {1: (144, 288, 576), 2: (200, 400, 800), 3: (240, 480, 960), 4: (272, 544, 1088), 8: (384, 768, 1536)}
UNITS = (4, 8, 4)


def shufflenet_v1(
    num_classes: int,
    in_channels: int,
    img_size: tuple[int, int],
    variant: str,
    init: str = "kaiming",
    stem: str = "paper",
) -> nn.Module:
    del img_size  # global pooling takes any
    small = is_small(stem)
    groups = int(variant.removeprefix("g"))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = conv_unit(in_channels, 24, 3, stride=1 if small else 2, padding=1)
    layers["pool"] = nn.Identity() if small else MaxPool2d(3, 2, 1)
    channels = 24
    for stage, (count, width) in enumerate(zip(UNITS, WIDTHS[groups], strict=True), 2):
        for unit in range(count):
            first_groups = 1 if channels == 24 else groups
            layers[f"stage{stage}_{unit + 1}"] = ShuffleUnit(
                channels, width, groups, 2 if unit == 0 else 1, first_groups
            )
            channels = width
    layers["average"] = AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels, num_classes)
    return initialise(nn.Sequential(layers), init)
