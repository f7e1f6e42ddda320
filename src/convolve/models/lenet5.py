"""LeNet-5 as published: connection table, trainable subsampling, scaled tanh, and distances to bitmaps as output.

    layer  what                                     out      trainable  connections
    C1     5x5 convolution                          6@28           156      122,304
    S2     2x2 sum · coefficient + bias             6@14            12        5,880
    C3     5x5 convolution by table I               16@10        1,516      151,600
    S4     2x2 sum · coefficient + bias             16@5            32        2,000
    C5     5x5 convolution                          120@1       48,120       48,120
    F6     fully connected                          84          10,164       10,164
    out    squared distance to 10 fixed bitmaps     10               0          840
Every layer up to F6 ends in f(a) = 1.7159 tanh(2a/3). Totals 60,000 and 340,908, as in the paper. Weights start uniform within
± 2.4 / fan-in. Source: LeCun, Bottou, Bengio, Haffner 1998, section II-B, appendix A.

Deviations. The network returns *scores*, the negated distances, so that the largest wins as everywhere else; `loss` is the paper's.
The paper does not give the loss's constant j: 0.1 here. Other than ten classes: the first bitmaps for fewer; for more, ±1
codes drawn once from a fixed seed (the paper sets its ASCII characters instead). For images larger than 32x32 the kernel of C5
grows with the maps, so that the output stays one vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convolve.errors import UsageError
from convolve.models.initial import initialise
from convolve.nn import (
    LENET5_TABLE,
    Conv2d,
    EuclideanRBF,
    MAPLoss,
    ScaledTanh,
    TableConv2d,
    TrainableSubsampling,
    digit_bitmaps,
)


class LeNet5(nn.Module):
    """Images (n, in_channels, h, w) of 32x32 or more to scores (n, num_classes), all ≤ 0: negated squared distances."""

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, img_size: tuple[int, int] = (32, 32), j: float = 0.1
    ) -> None:
        super().__init__()
        h, w = (((side - 4) // 2 - 4) // 2 for side in img_size)
        self.c1 = Conv2d(in_channels, 6, 5)
        self.f1 = ScaledTanh()
        self.s2 = TrainableSubsampling(6)
        self.f2 = ScaledTanh()
        self.c3 = TableConv2d(6, LENET5_TABLE, 5)
        self.f3 = ScaledTanh()
        self.s4 = TrainableSubsampling(16)
        self.f4 = ScaledTanh()
        self.c5 = Conv2d(16, 120, (h, w))
        self.f5 = ScaledTanh()
        self.flatten = nn.Flatten()
        self.f6 = nn.Linear(120, 84)
        self.f7 = ScaledTanh()
        self.out = EuclideanRBF(_prototypes(num_classes))
        self.criterion = MAPLoss(j)

    def forward(self, x: Tensor) -> Tensor:
        x = self.f2(self.s2(self.f1(self.c1(x))))
        x = self.f4(self.s4(self.f3(self.c3(x))))
        x = self.flatten(self.f5(self.c5(x)))
        distances: Tensor = self.out(self.f7(self.f6(x)))
        return -distances

    def loss(self, scores: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The paper's criterion (equation 9) of this network's scores; it knows no label smoothing."""
        if label_smoothing:
            raise UsageError("LeNet-5's loss has no label smoothing", f"got {label_smoothing}", "use 0")
        loss: Tensor = self.criterion(-scores, targets)
        return loss


def _prototypes(num_classes: int) -> Tensor:
    bitmaps = digit_bitmaps().to(torch.get_default_device())
    if num_classes <= len(bitmaps):
        return bitmaps[:num_classes]
    generator = torch.Generator().manual_seed(1998)
    codes = torch.randint(0, 2, (num_classes, bitmaps.shape[1]), generator=generator, device="cpu") * 2.0 - 1
    return codes.to(bitmaps.device)


def lenet5(
    num_classes: int, in_channels: int, img_size: tuple[int, int], variant: str, init: str = "lecun", j: float = 0.1
) -> nn.Module:
    del variant  # there is one
    return initialise(LeNet5(num_classes, in_channels, img_size, j), init)
