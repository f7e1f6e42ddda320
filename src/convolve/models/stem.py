"""The first layers of networks made for 224 pixels, for small pictures: a convolution and a pooling there leave 7 of 28 pixels.

    stem        resnet            googlenet          mobilenet_v1, v2   shufflenet_v1
    paper       7x7/2, max 3/2    7x7/2, max 3/2     3x3/2              3x3/2, max 3/2
    small       3x3               3x3                3x3                3x3

`small` is what people use on CIFAR-10's 32 pixels (He et al. 2016, section 4.2, begin so): stride 1, no first pooling. It is
taken only where it is asked for, since it is another network, and published weights do not fit its first layer where the
kernel's size differs.
"""

from __future__ import annotations

from convolve.errors import UnknownNameError

STEMS = ("paper", "small")


def is_small(stem: str) -> bool:
    """Whether `stem` is the one for small pictures; raises UnknownNameError for one that is neither."""
    if stem not in STEMS:
        raise UnknownNameError.of("stem", stem, STEMS)
    return stem == "small"
