"""GoogLeNet (Inception v1): nine Inception blocks, global average pooling, two auxiliary heads while training.

    variant       third path   normalisation   pooling                heads   parameters (with heads)
    paper         5x5          LRN in the stem  3x3/2, rounded up      2       6,998,552 (13,378,280)
    bn            5x5          batch            3x3/2, rounded up      2       7,005,832 (13,385,816)
    torchvision   3x3          batch            the last one 2x2/2     2       6,624,904 (13,004,888)
    d2l           5x5          none             3x3/2, padded by 1     none    5,977,530 (1 channel, 10 classes, 96x96)

TABLE holds the channel counts of the paper's table 1 by block; `create("googlenet", table={"3a": (64, 96, 128, 16, 32, 32), …})`
changes them: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj. Parameter names are torchvision's.
Source: Szegedy et al. 2015; torchvision 0.2x; d2l.ai 8.4.

Deviations. In the paper's table the parameters of the stem (2.7K) are those of a separable convolution, and some other rows
cannot be met by its own channel counts; the full 7x7 convolution of the text is taken. torchvision's third path is 3x3 by an error
kept for its weights. The heads of "torchvision" pool adaptively to 4x4; the others average 5x5 windows,
or the whole maps where images below 80x80 leave less. Weights start from Xavier's (Caffe, d2l), not given in the
paper. `width_divisor` narrows everything but the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convolve.errors import UnknownNameError, UsageError
from convolve.models.initial import initialise
from convolve.models.stem import is_small
from convolve.nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Inception,
    InceptionWidths,
    LocalResponseNorm,
    MaxPool2d,
    conv_unit,
)

TABLE: Mapping[str, InceptionWidths] = {
    #                     1x1  3x3r  3x3  5x5r  5x5  pool
    "3a": InceptionWidths(64, 96, 128, 16, 32, 32),
    "3b": InceptionWidths(128, 128, 192, 32, 96, 64),
    "4a": InceptionWidths(192, 96, 208, 16, 48, 64),
    "4b": InceptionWidths(160, 112, 224, 24, 64, 64),
    "4c": InceptionWidths(128, 128, 256, 24, 64, 64),
    "4d": InceptionWidths(112, 144, 288, 32, 64, 64),
    "4e": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5a": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5b": InceptionWidths(384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class Style:
    """What the variants differ in."""

    norm: bool = False
    lrn: bool = False
    third_kernel: int = 5
    padded_pools: bool = False
    last_pool: int = 3
    heads: bool = True
    adaptive_heads: bool = False
    dropout: float = 0.4


STYLES = {
    "paper": Style(lrn=True),
    "bn": Style(norm=True),
    "torchvision": Style(norm=True, third_kernel=3, last_pool=2, adaptive_heads=True, dropout=0.2),
    "d2l": Style(padded_pools=True, heads=False, dropout=0.0),
}


class GoogLeNetOutput(NamedTuple):
    """What GoogLeNet returns while training: its scores, and those of the heads behind 4a and 4d."""

    scores: Tensor
    aux1: Tensor
    aux2: Tensor


class AuxiliaryHead(nn.Module):
    """Average pooling, 1x1 convolution to 128 maps, two fully connected layers: scores from the middle of the network."""

    def __init__(self, in_channels: int, num_classes: int, size: tuple[int, int], style: Style, divisor: int) -> None:
        super().__init__()
        maps, hidden = 128 // divisor, 1024 // divisor
        window = (min(5, size[0]), min(5, size[1]))
        h, w = (4, 4) if style.adaptive_heads else ((side - k) // 3 + 1 for side, k in zip(size, window, strict=True))
        self.pool = AdaptiveAvgPool2d(4) if style.adaptive_heads else AvgPool2d(window, 3)
        self.conv = conv_unit(in_channels, maps, 1, style.norm)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(maps * h * w, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(self.conv(self.pool(x)))
        scores: Tensor = self.fc2(self.dropout(self.relu(self.fc1(x))))
        return scores


class GoogLeNet(nn.Module):
    """Images to scores (n, num_classes); in training mode, with heads, to a GoogLeNetOutput of three scores."""

    inception3a: Inception
    inception3b: Inception
    inception4a: Inception
    inception4b: Inception
    inception4c: Inception
    inception4d: Inception
    inception4e: Inception
    inception5a: Inception
    inception5b: Inception

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        img_size: tuple[int, int],
        style: Style,
        table: Mapping[str, InceptionWidths] = TABLE,
        aux: bool | None = None,
        width_divisor: int = 1,
        small: bool = False,
    ) -> None:
        super().__init__()
        stem = 64 // width_divisor
        pool = {"padding": 1} if style.padded_pools else {"ceil_mode": True}

        def lrn() -> nn.Module:
            return LocalResponseNorm() if style.lrn else nn.Identity()

        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = conv_unit(in_channels, stem, kernel, style.norm, stride=stride, padding=kernel // 2)
        self.maxpool1 = nn.Identity() if small else MaxPool2d(3, 2, **pool)
        self.norm1 = lrn()
        self.conv2 = conv_unit(stem, stem, 1, style.norm)
        self.conv3 = conv_unit(stem, 3 * stem, 3, style.norm, padding=1)
        self.norm2 = lrn()
        self.maxpool2 = MaxPool2d(3, 2, **pool)
        channels = 3 * stem
        widths = {}
        for block, row in table.items():
            self.add_module(f"inception{block}", Inception(channels, row, style.norm, style.third_kernel))
            channels = widths[block] = row.outputs
        self.maxpool3 = MaxPool2d(3, 2, **pool)
        self.maxpool4 = MaxPool2d(2, 2, ceil_mode=True) if style.last_pool == 2 else MaxPool2d(3, 2, **pool)
        self.aux1: AuxiliaryHead | None = None
        self.aux2: AuxiliaryHead | None = None
        if style.heads if aux is None else aux:
            size = _size_at_stage_4(img_size, style.padded_pools, small)
            self.aux1 = AuxiliaryHead(widths["4a"], num_classes, size, style, width_divisor)
            self.aux2 = AuxiliaryHead(widths["4d"], num_classes, size, style, width_divisor)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(style.dropout)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutput:
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = middle1 = self.inception4a(x)
        x = middle2 = self.inception4d(self.inception4c(self.inception4b(x)))
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        scores: Tensor = self.fc(self.dropout(self.flatten(self.avgpool(x))))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutput(scores, self.aux1(middle1), self.aux2(middle2))
        return scores

    def loss(self, output: Tensor | GoogLeNetOutput, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The cross-entropy of the scores, plus 0.3 times that of each head (section 5 of the paper)."""
        every = (output,) if isinstance(output, Tensor) else output
        losses = [F.cross_entropy(scores, targets, label_smoothing=label_smoothing) for scores in every]
        return torch.stack([losses[0], *(0.3 * loss for loss in losses[1:])]).sum()


def googlenet(
    num_classes: int,
    in_channels: int,
    img_size: tuple[int, int],
    variant: str,
    init: str = "xavier",
    table: Mapping[str, Sequence[int]] | None = None,
    aux: bool | None = None,
    width_divisor: int = 1,
    stem: str = "paper",
) -> nn.Module:
    rows = {block: _row(block, (table or {}).get(block, row), width_divisor) for block, row in TABLE.items()}
    for block in table or {}:
        if block not in TABLE:
            raise UnknownNameError.of("Inception block", block, TABLE)
    net = GoogLeNet(num_classes, in_channels, img_size, STYLES[variant], rows, aux, width_divisor, is_small(stem))
    return initialise(net, init)


def _row(block: str, numbers: Sequence[int], divisor: int) -> InceptionWidths:
    if len(numbers) != len(InceptionWidths._fields) or min(numbers) < 1:
        raise UsageError(
            f"an Inception block has {len(InceptionWidths._fields)} widths of at least 1: {', '.join(InceptionWidths._fields)}",
            f"got {tuple(numbers)} for {block}",
            f"for example {tuple(TABLE[block])}",
        )
    return InceptionWidths(*(max(1, number // divisor) for number in numbers))


def _size_at_stage_4(img_size: tuple[int, int], padded_pools: bool, small: bool) -> tuple[int, int]:
    """The maps' size behind the first convolution and three poolings (two with the small stem, whose convolution keeps
    the size): halves, rounded up by the convolution and padded pools."""
    h, w = img_size if small else (-(-side // 2) for side in img_size)
    for _ in range(2 if small else 3):
        h, w = (-(-h // 2), -(-w // 2)) if padded_pools else (h // 2, w // 2)
    return h, w
