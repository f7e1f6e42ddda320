"""The scaled hyperbolic tangent of LeNet-5: f(a) = A tanh(S a).

A = 1.7159 and S = 2/3 make f(±1) = ±1 and put the greatest curvature there, so that targets of ±1 are reached without
saturation. Source: LeCun et al. 1998, appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaledTanh(nn.Module):
    """`amplitude` · tanh(`slope` · x), elementwise.

    >>> ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0])).round(decimals=4)
    tensor([-1.,  0.,  1.])
    """

    def __init__(self, amplitude: float = 1.7159, slope: float = 2 / 3) -> None:
        super().__init__()
        self.amplitude, self.slope = amplitude, slope

    def forward(self, x: Tensor) -> Tensor:
        return self.amplitude * torch.tanh(self.slope * x)

    def extra_repr(self) -> str:
        return f"amplitude={self.amplitude}, slope={self.slope:.6g}"
