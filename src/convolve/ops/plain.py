"""The plain two-dimensional cross-correlation that every introduction begins with.

Y[i, j] = sum over a, b of  X[i + a, j + b] K[a, b]
"""

from __future__ import annotations

import torch
from torch import Tensor

from convolve.errors import ShapeError, UsageError
from convolve.ops.conv import conv2d


def corr2d(X: Tensor, K: Tensor) -> Tensor:  # noqa: N803 - the names of the texts
    """Slide the kernel K (r, s) over the plain array X (h, w): (h - r + 1, w - s + 1).

    The result stays on X's device and has the promoted dtype of X and K, as X * K would have (the operators refuse mixed
    dtypes); integers are summed exactly, in int64.

    >>> import torch, convolve
    >>> convolve.corr2d(torch.arange(9).reshape(3, 3), torch.tensor([[0, 1], [2, 3]]))
    tensor([[19, 25],
            [37, 43]])
    """
    for name, array in (("X", X), ("K", K)):
        if not isinstance(array, Tensor):
            raise UsageError(f"{name} must be a tensor", f"got {type(array).__name__}", "convert with torch.as_tensor")
        if array.dim() != 2:
            raise ShapeError(
                f"corr2d takes plain arrays with two axes; {name} has {array.dim()}",
                f"got shape {tuple(array.shape)}",
                "use convolve.conv2d for channels and batches",
            )
    dtype = torch.result_type(X, K)
    return conv2d(X.to(dtype), K.to(dtype))
