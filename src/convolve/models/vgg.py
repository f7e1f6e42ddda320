"""VGG: 3x3 convolutions in five blocks, each ending in a 2x2 maximum, then three fully connected layers.

    configuration   convolutions per block   name
    A               1 1 2 2 2                vgg11
    B               2 2 2 2 2                vgg13
    C               2 2 3 3 3                vgg16-c      the last of each of blocks 3 to 5 is 1x1
    D               2 2 3 3 3                vgg16
    E               2 2 4 4 4                vgg19
Source: Simonyan & Zisserman 2015, table 1. The "bn" variants (batch normalisation after each convolution) are torchvision's, and
so are all parameter names. "d2l" is d2l.ai 8.2: one channel, ten classes.

Deviations. Weights start from Xavier's (the paper's own later advice; at first it started deep nets from shallow ones). The first
fully connected layer follows img_size; torchvision pools to 7x7 instead, which is the same at 224. `width_divisor` narrows the
convolutions only, as d2l does; `hidden` is the width of the two fully connected layers.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from convolve.errors import UsageError
from convolve.models.initial import initialise
from convolve.nn import VGGBlock

WIDTHS = (64, 128, 256, 512, 512)
COUNTS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def vgg(
    name: str,
    num_classes: int,
    in_channels: int,
    img_size: tuple[int, int],
    variant: str,
    init: str = "xavier",
    width_divisor: int = 1,
    hidden: int = 4096,
) -> nn.Module:
    if not 1 <= width_divisor <= WIDTHS[0]:
        raise UsageError(f"width_divisor is 1 to {WIDTHS[0]}", f"got {width_divisor}", "use 1, 2, 4 or 8")
    layers: list[nn.Module] = []
    channels = in_channels
    for index, (count, full) in enumerate(zip(COUNTS[name], WIDTHS, strict=True)):
        last_kernel = 1 if variant == "c" and index >= 2 else 3
        layers += VGGBlock(count, channels, full // width_divisor, variant == "bn", last_kernel)
        channels = full // width_divisor
    h, w = (side // 2 ** len(WIDTHS) for side in img_size)
    classifier = nn.Sequential(
        *(nn.Linear(channels * h * w, hidden), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(hidden, num_classes),
    )
    net = nn.Sequential(OrderedDict(features=nn.Sequential(*layers), flatten=nn.Flatten(), classifier=classifier))
    return initialise(net, init)


vgg11, vgg13, vgg16, vgg19 = (partial(vgg, name) for name in COUNTS)
