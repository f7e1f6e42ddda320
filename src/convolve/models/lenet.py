"""LeNet as it is taught today: two convolutions, two poolings, three fully connected layers.

The sigmoid net of "Dive into Deep Learning" (d2l.ai, 7.6) is `lenet`: 28x28 images padded by 2, average pooling. The variant
of the Chinese tutorial (ShusenTang, Dive-into-DL-PyTorch, 5.5) does not pad and takes the maximum. `lenet_relu` is `lenet`
with ReLU and maximum pooling. LeNet-5 (1998) is another network: see lenet5.py.

Deviations: none in structure; the first fully connected layer follows img_size. Sigmoid nets start from Xavier's weights
times 4 (d2l: without the factor; initial.py says why), ReLU nets from Kaiming's; biases start at zero.
"""

from __future__ import annotations

from torch import nn

from convolve.models import spec
from convolve.models.initial import initialise

SPECS = {
    "d2l": "conv 6 5 p2, sigmoid, avg 2, conv 16 5, sigmoid, avg 2, flatten, fc 120, sigmoid, fc 84, sigmoid, fc classes",
    "shusentang": "conv 6 5, sigmoid, max 2, conv 16 5, sigmoid, max 2, flatten, fc 120, sigmoid, fc 84, sigmoid, fc classes",
    "relu": "conv 6 5 p2, relu, max 2, conv 16 5, relu, max 2, flatten, fc 120, relu, fc 84, relu, fc classes",
}


def lenet(
    num_classes: int, in_channels: int, img_size: tuple[int, int], variant: str, init: str = "xavier_sigmoid"
) -> nn.Module:
    net = spec.build(SPECS[variant], num_classes=num_classes, in_channels=in_channels, img_size=img_size)
    return initialise(net, init)


def lenet_relu(
    num_classes: int, in_channels: int, img_size: tuple[int, int], variant: str, init: str = "kaiming"
) -> nn.Module:
    return lenet(num_classes, in_channels, img_size, variant, init)
