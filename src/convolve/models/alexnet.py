"""AlexNet, four times: the name means different networks to different people.

    variant          widths             differs by                                        parameters
    2012             96 256 384 384 256  groups of 2 in conv2, 4, 5; LRN; 227x227          60,965,224
    2012-ungrouped   the same            no groups (what "AlexNet" often means)            62,378,344
    torchvision      64 192 384 256 256  "one weird trick"; no LRN; adaptive pool to 6x6   61,100,840
    d2l              96 256 384 384 256  no groups, no LRN, 224x224, one channel           46,764,746
    shusentang       the same            first convolution not padded                      46,764,746

Sources: Krizhevsky, Sutskever, Hinton 2012; Krizhevsky 2014 (arXiv 1404.5997) as torchvision has it; d2l.ai 8.1.
Deviations. 2012: one device instead of two; the paper says 224x224 images, but its sizes (55) need 227. Its weights start from
N(0, 0.01²) with biases of 1 in conv2, 4, 5 and the hidden fully connected layers ("paper"); the other variants start from
torch's defaults unless `init` says otherwise, d2l's from Xavier's. Other image sizes change the first fully connected layer
(torchvision: adaptive pooling). `width_divisor` narrows every layer but the last.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from torch import nn

from convolve.models import spec
from convolve.models.initial import initialise

_HEAD = "flatten, fc 4096, relu, dropout 0.5, fc 4096, relu, dropout 0.5, fc classes"
_2012 = (
    "conv 96 11 s4, relu, lrn, max 3 s2, conv 256 5 p2 {g}, relu, lrn, max 3 s2,"
    "conv 384 3 p1, relu, conv 384 3 p1 {g}, relu, conv 256 3 p1 {g}, relu, max 3 s2," + _HEAD
)
_D2L = (
    "conv 96 11 s4 {p}, relu, max 3 s2, conv 256 5 p2, relu, max 3 s2,"
    "conv 384 3 p1, relu, conv 384 3 p1, relu, conv 256 3 p1, relu, max 3 s2," + _HEAD
)
SPECS = {
    "2012": _2012.format(g="g2"),
    "2012-ungrouped": _2012.format(g=""),
    "d2l": _D2L.format(p="p1"),
    "shusentang": _D2L.format(p=""),
}
TORCHVISION = {
    "features": "conv 64 11 s4 p2, relu, max 3 s2, conv 192 5 p2, relu, max 3 s2,"
    "conv 384 3 p1, relu, conv 256 3 p1, relu, conv 256 3 p1, relu, max 3 s2",
    "avgpool": "adaptive 6",
    "classifier": "dropout 0.5, fc 4096, relu, dropout 0.5, fc 4096, relu, fc classes",
}
INITS = {
    "2012": "alexnet",
    "2012-ungrouped": "alexnet",
    "torchvision": "torch",
    "d2l": "xavier",
    "shusentang": "xavier",
}


def alexnet(
    num_classes: int,
    in_channels: int,
    img_size: tuple[int, int],
    variant: str,
    init: str | None = None,
    width_divisor: int = 1,
) -> nn.Module:
    if variant == "torchvision":
        net = _torchvision(num_classes, (in_channels, *img_size), width_divisor)
    else:
        text = _narrow(SPECS[variant], width_divisor)
        net = spec.build(text, num_classes=num_classes, in_channels=in_channels, img_size=img_size)
    rule = init or INITS[variant]
    if rule != "alexnet":
        return initialise(net, rule)
    initialise(net, "normal")
    for name in ("conv2", "conv4", "conv5", "fc1", "fc2"):
        nn.init.ones_(net.get_submodule(name).bias)  # type: ignore[arg-type]
    return net


def _torchvision(num_classes: int, image: spec.Shape, divisor: int) -> nn.Sequential:
    features, shape = spec.part(_narrow(TORCHVISION["features"], divisor), image)
    avgpool, (c, h, w) = spec.part(TORCHVISION["avgpool"], shape)
    classifier, _ = spec.part(_narrow(TORCHVISION["classifier"], divisor), (c * h * w,), num_classes)
    return nn.Sequential(
        OrderedDict(features=features, avgpool=avgpool[0], flatten=nn.Flatten(), classifier=classifier)
    )


def _narrow(text: str, divisor: int) -> str:
    """The spec with the width of every convolution and fully connected layer divided."""
    return re.sub(r"\b(conv|fc) (\d+)", lambda match: f"{match[1]} {max(2, int(match[2]) // divisor)}", text)
