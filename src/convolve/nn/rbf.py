"""The Euclidean radial basis output of LeNet-5 and the loss it is trained with.

    y_i = sum_j (x_j - w_ij)^2                                     the squared distance to class i's prototype; the least wins
    E   = mean over samples [ y_D + log(e^-j + sum_i e^-y_i) ]       D the right class, j > 0 ("MAP" criterion, equation 9)

Source: LeCun et al. 1998, section II-B and C. The prototypes are fixed there, +1 or -1. The constant j is not given in the
paper; it keeps the penalty of classes that are already far from growing further.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convolve.errors import ShapeError


class EuclideanRBF(nn.Module):
    """Squared distances of (n, features) to each of the rows of `prototypes` (classes, features): (n, classes).

    The distances are what MAPLoss takes. `scores` negates them, so that argmax, cross-entropy and ranking work as for any
    other classifier. The prototypes are a buffer, saved with the weights; `trainable` makes them a parameter.

    >>> rbf = EuclideanRBF(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
    >>> rbf(torch.tensor([[1.0, 0.0]]))
    tensor([[1., 5.]])
    """

    prototypes: Tensor

    def __init__(self, prototypes: Tensor, trainable: bool = False) -> None:
        super().__init__()
        if prototypes.ndim != 2:
            raise ShapeError(
                "prototypes are (classes, features)", f"got {tuple(prototypes.shape)}", "flatten each of them"
            )
        if trainable:
            self.prototypes = nn.Parameter(prototypes.clone())
        else:
            self.register_buffer("prototypes", prototypes.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Written as differences, not as |x|² - 2xw + |w|²: close to a prototype that would cancel."""
        if x.ndim != 2 or x.shape[1] != self.prototypes.shape[1]:
            raise ShapeError(
                f"EuclideanRBF takes (n, {self.prototypes.shape[1]})", f"got {tuple(x.shape)}", "flatten the maps"
            )
        return (x[:, None, :] - self.prototypes).square().sum(2)

    def extra_repr(self) -> str:
        classes, features = self.prototypes.shape
        return f"{features}, {classes}, trainable={isinstance(self.prototypes, nn.Parameter)}"


class MAPLoss(nn.Module):
    """LeNet-5's loss of (n, classes) distances and n targets; `j` is its constant of competition.

    The right class is pulled closer, and the others pushed away while they compete; e^-j bounds what pushing can gain.

    >>> float(MAPLoss(j=1.0)(torch.tensor([[0.0, 20.0]]), torch.tensor([0])))  # log(e^-1 + 1 + e^-20)
    0.3132616...
    """

    def __init__(self, j: float = 0.1) -> None:
        super().__init__()
        self.j = j

    def forward(self, distances: Tensor, targets: Tensor) -> Tensor:
        n, _ = distances.shape
        right = distances.gather(1, targets.view(n, 1)).squeeze(1)
        background = distances.new_full((n, 1), -self.j)
        return (right + torch.cat([background, -distances], 1).logsumexp(1)).mean()

    def extra_repr(self) -> str:
        return f"j={self.j}"
