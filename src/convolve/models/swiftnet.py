"""A small network that a CPU trains in seconds: MNIST to 99 % in one epoch.

    stage 1    16 5x5 convolutions, ReLU, 2x2 maximum, batch normalisation
    stage 2    32 5x5 convolutions, ReLU, 2x2 maximum, batch normalisation
    head       fully connected to 128, ReLU, batch normalisation, fully connected

No paper. Normalisation comes after the maximum, where three quarters of the numbers are gone, so that each stage is one operation of
the engine (kernels/stages.py). Weights start by torch's own rule: Kaiming's by fan-out makes the scores of ten classes far too
large, which costs points in a single epoch.
"""

from __future__ import annotations

from torch import nn

from convolve.models import spec
from convolve.models.initial import initialise

SPEC = "conv 16 5, relu, max 2, bn, conv 32 5, relu, max 2, bn, fc 128, relu, bn, fc classes"


def swiftnet(
    num_classes: int, in_channels: int, img_size: tuple[int, int], variant: str, init: str = "torch"
) -> nn.Module:
    del variant  # there is one
    return initialise(spec.build(SPEC, num_classes=num_classes, in_channels=in_channels, img_size=img_size), init)
