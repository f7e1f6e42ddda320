"""What a convolution must give, from torch alone: padded by hand, in float64, its adjoint by torch's own derivative."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Pairs = list[tuple[int, int]]

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def padded(x: Tensor, pairs: Pairs, mode: str) -> Tensor:
    """One axis at a time, because torch pads by elements only some axes at once."""
    for axis, (before, after) in enumerate(pairs, start=2):
        y = x.movedim(axis, -1)
        shape = y.shape
        flat = F.pad(y.reshape(1, -1, shape[-1]), (before, after), mode=MODES[mode])
        x = flat.reshape(*shape[:-1], -1).movedim(-1, axis)
    return x


def convolution(
    x: Tensor, w: Tensor, stride: list[int], pairs: Pairs, dilation: list[int], groups: int, mode: str
) -> Tensor:
    """(n, c, *size) with (k, c / groups, *kernel), without bias."""
    conv = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
    return conv(padded(x, pairs, mode), w, None, stride, 0, dilation, groups)


def adjoint(
    y: Tensor,
    w: Tensor,
    size: list[int],
    stride: list[int],
    pairs: Pairs,
    dilation: list[int],
    groups: int,
    mode: str,
) -> Tensor:
    """The transposed convolution: the derivative of the convolution above, applied to y."""
    x = torch.zeros(y.shape[0], w.shape[1] * groups, *size, dtype=y.dtype, requires_grad=True)
    forward = convolution(x, w, stride, pairs, dilation, groups, mode)
    extra = [
        side for a, b in zip(reversed(forward.shape[2:]), reversed(y.shape[2:]), strict=True) for side in (0, a - b)
    ]
    return torch.autograd.grad(forward, x, F.pad(y, extra), create_graph=True)[0]


def local_rms(x: Tensor, w: Tensor, *window: object) -> Tensor:
    """Of each output element: the rms of what operands of these magnitudes and random signs would give."""
    return convolution(x.square(), w.square(), *window).sqrt()  # type: ignore[arg-type]
