"""Networks of the tests: a U-Net with transposed convolutions and skip connections, one of branches, and ones that cannot be explained."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pair(c: int, k: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c, k, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(k, k, 3, padding=1), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    """Two levels down by pooling, two up by transposed convolutions of kernels 2 and 4: phases, holes and branches in one network."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = pair(3, 6), pair(6, 8), pair(8, 10)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(10, 8, 2, stride=2)
        self.up1 = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.join2, self.join1 = pair(16, 8), pair(12, 6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(self.pool(one))
        low = self.bottom(self.pool(two))
        high = self.join2(torch.cat([two, self.up2(low)], 1))
        return self.head(self.join1(torch.cat([one, self.up1(high)], 1)))


class Dilated(nn.Module):
    """A field with holes, and a cross: a 1x5 beside a 5x1."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 3, padding=3, dilation=3)
        self.across, self.down = nn.Conv2d(4, 3, (1, 5), padding=(0, 2)), nn.Conv2d(4, 3, (5, 1), padding=(2, 0))
        self.both = nn.Conv2d(6, 5, 1)
        self.act = nn.ReLU()
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.wide(x))
        x = self.act(self.both(torch.cat([self.across(x), self.down(x)], 1)))
        return self.head(x.mean((2, 3)))


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
