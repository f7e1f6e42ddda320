# ruff: noqa: A002 - torch names its argument `input`
"""Pooling with parameters: each channel's pooled map times a weight, plus a bias.

LeNet-5's S2 and S4 are the "sum" form, followed by a sigmoid (LeCun, Bottou, Bengio, Haffner 1998, section II.B): (1 + 1) · c
parameters. Inputs are (n, c, *size) or (c, *size).
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from convolve.errors import ShapeError, UnknownNameError
from convolve.ops.arguments import Padding, Size
from convolve.ops.pool import plan_for
from convolve.ops.pool_kernels import pool

TrainableMode = Literal["sum", "avg", "max"]


def trainable_pool1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    mode: TrainableMode = "sum",
) -> Tensor:
    """weight · pooled + bias per channel of a sequence; see `trainable_pool2d`.

    >>> import torch, convolve
    >>> convolve.trainable_pool1d(torch.tensor([[1.0, 3.0, 2.0, 5.0]]), torch.tensor([2.0]), None, 2, mode="max")
    tensor([[ 6., 10.]])
    """
    return _trainable(input, 1, weight, bias, mode, (kernel_size, stride, padding, dilation, ceil_mode))


def trainable_pool2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    mode: TrainableMode = "sum",
) -> Tensor:
    """LeNet-5's pooling with parameters: weight · pooled + bias, one weight and one bias per channel, both (c,).

    `mode` says what is pooled: the "sum" of the window (LeCun, Bottou, Bengio, Haffner 1998, section II.B: four inputs are added,
    multiplied by a trainable coefficient, and a trainable bias is added), its mean "avg", or its largest "max".

    >>> import torch, convolve
    >>> x = torch.arange(16.0).reshape(1, 4, 4)
    >>> convolve.trainable_pool2d(x, torch.tensor([0.5]), torch.tensor([1.0]), 2)
    tensor([[[ 6., 10.],
             [22., 26.]]])
    """
    return _trainable(input, 2, weight, bias, mode, (kernel_size, stride, padding, dilation, ceil_mode))


def trainable_pool3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    mode: TrainableMode = "sum",
) -> Tensor:
    """weight · pooled + bias per channel of a volume; see `trainable_pool2d`.

    >>> import torch, convolve
    >>> convolve.trainable_pool3d(torch.ones(1, 2, 2, 2), torch.tensor([0.5]), torch.tensor([1.0]), 2).item()
    5.0
    """
    return _trainable(input, 3, weight, bias, mode, (kernel_size, stride, padding, dilation, ceil_mode))


def _trainable(
    x: Tensor,
    axes: int,
    weight: Tensor,
    bias: Tensor | None,
    mode: str,
    settings: tuple[Size, Size | None, Padding, Size, bool],
) -> Tensor:
    if mode not in get_args(TrainableMode):
        raise UnknownNameError.of("mode of trainable pooling", str(mode), get_args(TrainableMode))
    plan = plan_for(
        x.shape, axes, "max" if mode == "max" else "average", *settings, divisor=1 if mode == "sum" else None
    )
    channels = x.shape[-axes - 1]
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and tuple(vector.shape) != (channels,):
            raise ShapeError(
                f"the {name} of trainable pooling holds one number per channel",
                f"got shape {tuple(vector.shape)} for {channels} channels",
                f"give a tensor of shape ({channels},)",
            )
    ones = (1,) * axes
    pooled = pool(x, plan) * weight.reshape(-1, *ones)
    return pooled if bias is None else pooled + bias.reshape(-1, *ones)
