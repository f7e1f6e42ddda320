"""Network in network: blocks of a convolution and two 1x1 convolutions, and global average pooling instead of a head.

Source: Lin, Chen & Yan 2014; "cifar" and "imagenet" as released for Caffe, "d2l" as d2l.ai 8.3.
BLOCKS are the rows: widths, window, stride, padding; then the pooling behind the block and whether dropout follows.

Deviations. "cifar" rounds pooled sizes up, as Caffe does; "imagenet" rounds down (up as in Caffe it takes 1,100,188,800 multiply-adds
instead of 969,460,864). The last block has no ReLU in front of the average ("cifar", "imagenet"): scores that cannot be negative can
rest at chance; the Caffe release has one, MatConvNet's leaves it out. "d2l" keeps it, as its text does. Weights start from
Kaiming's (Caffe: N(0, 0.05²)), those of the last block from Xavier's. `width_divisor` narrows every layer but the last.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from convolve.models.initial import initialise
from convolve.nn import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d, NiNBlock


@dataclass(frozen=True)
class Row:
    """One block: None among the widths stands for the number of classes; pool is "max", "avg" or "" (3x3, stride 2)."""

    widths: tuple[int | None, int | None, int | None]
    kernel: int
    stride: int
    padding: int
    pool: str
    dropout: bool = False


BLOCKS: dict[str, tuple[Row, ...]] = {
    "cifar": (
        Row((192, 160, 96), 5, 1, 2, "max", dropout=True),
        Row((192, 192, 192), 5, 1, 2, "avg", dropout=True),
        Row((192, 192, None), 3, 1, 1, ""),
    ),
    "imagenet": (
        Row((96, 96, 96), 11, 4, 0, "max"),
        Row((256, 256, 256), 5, 1, 2, "max"),
        Row((384, 384, 384), 3, 1, 1, "max", dropout=True),
        Row((1024, 1024, None), 3, 1, 1, ""),
    ),
    "d2l": (
        Row((96, 96, 96), 11, 4, 0, "max"),
        Row((256, 256, 256), 5, 1, 2, "max"),
        Row((384, 384, 384), 3, 1, 1, "max", dropout=True),
        Row((None, None, None), 3, 1, 1, ""),
    ),
}


def nin(
    num_classes: int,
    in_channels: int,
    img_size: tuple[int, int],
    variant: str,
    init: str = "kaiming",
    width_divisor: int = 1,
) -> nn.Module:
    del img_size  # global pooling takes any
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    rows, channels, ceil = BLOCKS[variant], in_channels, variant == "cifar"
    for number, row in enumerate(rows, 1):
        first, second, third = (num_classes if width is None else width // width_divisor for width in row.widths)
        relu = variant == "d2l" or row is not rows[-1]
        options = {"stride": row.stride, "padding": row.padding}
        layers[f"block{number}"] = NiNBlock(channels, (first, second, third), row.kernel, relu, **options)
        if row.pool:
            pool = MaxPool2d if row.pool == "max" else AvgPool2d
            layers[f"pool{number}"] = pool(3, 2, ceil_mode=ceil)
        if row.dropout:
            layers[f"dropout{number}"] = nn.Dropout(0.5)
        channels = third
    layers["average"] = AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    net = initialise(nn.Sequential(layers), init)
    initialise(layers[f"block{len(rows)}"], "xavier")
    return net
