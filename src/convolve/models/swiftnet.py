"""A small network that a CPU trains in seconds: MNIST to 99 % in one epoch.

    stage 1    8 5x5 convolutions, ReLU, 2x2 maximum
    stage 2    32 5x5 convolutions, ReLU, 2x2 maximum, batch normalisation
    head       fully connected to 128, ReLU, fully connected

No paper; the shape is LeNet's. Each stage is one operation of the engine (kernels/stages.py). The one normalisation stands where the
maps are smallest: others cost time and brought nothing. Weights start by torch's own rule: by Kaiming's fan-out the scores of ten
classes begin far too large, which costs points in a single epoch.
"""

from __future__ import annotations

from torch import nn

from convolve.models import spec
from convolve.models.initial import initialise

SPEC = "conv 8 5, relu, max 2, conv 32 5, relu, max 2, bn, fc 128, relu, fc classes"


def swiftnet(
    num_classes: int, in_channels: int, img_size: tuple[int, int], variant: str, init: str = "torch"
) -> nn.Module:
    del variant  # there is one
    return initialise(spec.build(SPEC, num_classes=num_classes, in_channels=in_channels, img_size=img_size), init)
