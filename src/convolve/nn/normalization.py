"""Local response normalisation across channels, as published:  b_i = a_i / (k + alpha · sum_j a_j²)^beta.

The sum runs over the `size` channels around i. torch.nn.LocalResponseNorm (and Caffe) divide alpha by `size`; the paper does
not, so that the same numbers mean a normalisation five times weaker there. Source: Krizhevsky et al. 2012, section 3.3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from convolve.errors import UsageError


class LocalResponseNorm(nn.LocalResponseNorm):
    """The paper's normalisation of (n, c, …), with its constants as defaults; `size` is odd, since it is centred on i.

    >>> import torch
    >>> LocalResponseNorm(size=1, alpha=3.0, beta=1.0, k=1.0)(torch.ones(1, 1, 1, 1)).item()
    0.25
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        if size < 1 or size % 2 == 0:
            raise UsageError("size must be odd and at least 1", f"got {size}", f"use {max(1, size - 1)} or {size + 1}")
        super().__init__(size, alpha, beta, k)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        return F.local_response_norm(input, self.size, self.alpha * self.size, self.beta, self.k)
