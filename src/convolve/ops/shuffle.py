"""Moves of channels: between groups (channel shuffle), into pixels (pixel shuffle) and back. No arithmetic, so every dtype.

channel shuffle   channel i·(c/g) + j goes to j·g + i       Zhang et al. 2017, ShuffleNet, figure 1: a fixed permutation
pixel shuffle     r·r channels become an r x r block        Shi et al. 2016, sub-pixel convolution, eq. 4
"""
# ruff: noqa: A002 - torch names its argument `input`

from __future__ import annotations

import math

from torch import Tensor

from convolve.errors import ShapeError
from convolve.geometry import checked, per_axis
from convolve.ops.arguments import Size


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of (n, c, *size) or, of three axes, (c, h, w), dealt out so that each group gets some of every group.

    Seen as a matrix of `groups` rows, the channels are read by columns. The inverse shuffles with c / groups.

    >>> import torch, convolve
    >>> convolve.channel_shuffle(torch.arange(6).reshape(1, 6, 1, 1), 2).flatten()
    tensor([0, 3, 1, 4, 2, 5])
    """
    checked(groups, "groups", at_least=1)
    if input.dim() < 3:
        raise ShapeError(
            "channel shuffle takes (n, c, *size) or (c, h, w)", f"got shape {tuple(input.shape)}", "add axes"
        )
    axis = 0 if input.dim() == 3 else 1
    c = input.shape[axis]
    if c % groups != 0:
        raise ShapeError("groups must divide the channels", f"got {c} channels, groups={groups}", _divisors(c))
    dealt = input.reshape(*input.shape[:axis], groups, c // groups, *input.shape[axis + 1 :])
    return dealt.transpose(axis, axis + 1).flatten(axis, axis + 1)


def pixel_shuffle(input: Tensor, upscale_factor: Size, *, axes: int = 2) -> Tensor:
    """(…, c · r · r, h, w) to (…, c, h · r, w · r): each group of r · r channels becomes a block of pixels.

    `upscale_factor` may differ per axis, and `axes` may be 1 to 3.

    >>> import torch, convolve
    >>> convolve.pixel_shuffle(torch.arange(4).reshape(4, 1, 1), 2)
    tensor([[[0, 1],
             [2, 3]]])
    """
    factors, size = _blocks(input, upscale_factor, axes, "upscale_factor")
    c = input.shape[-axes - 1]
    block = math.prod(factors)
    if c % block != 0:
        raise ShapeError(f"the channels must be a multiple of {block}", f"got {c}", "use another upscale_factor")
    lead = input.shape[: -axes - 1]
    x = input.reshape(*lead, c // block, *factors, *size)
    first = len(lead) + 1
    order = [place for axis in range(axes) for place in (first + axes + axis, first + axis)]
    x = x.permute(*range(first), *order)
    return x.reshape(*lead, c // block, *(n * r for n, r in zip(size, factors, strict=True)))


def pixel_unshuffle(input: Tensor, downscale_factor: Size, *, axes: int = 2) -> Tensor:
    """(…, c, h · r, w · r) to (…, c · r · r, h, w): the inverse of `pixel_shuffle`.

    >>> import torch, convolve
    >>> convolve.pixel_unshuffle(torch.arange(4).reshape(1, 2, 2), 2).flatten()
    tensor([0, 1, 2, 3])
    """
    factors, size = _blocks(input, downscale_factor, axes, "downscale_factor")
    if any(n % r for n, r in zip(size, factors, strict=True)):
        raise ShapeError(
            "the size must be a multiple of downscale_factor", f"got {tuple(size)} and {factors}", "crop or pad"
        )
    lead, c = input.shape[: -axes - 1], input.shape[-axes - 1]
    small = [n // r for n, r in zip(size, factors, strict=True)]
    x = input.reshape(*lead, c, *(part for pair in zip(small, factors, strict=True) for part in pair))
    first = len(lead) + 1
    order = [first + 2 * axis + 1 for axis in range(axes)] + [first + 2 * axis for axis in range(axes)]
    return x.permute(*range(first), *order).reshape(*lead, c * math.prod(factors), *small)


def _blocks(x: Tensor, factor: Size, axes: int, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if checked(axes, "axes") not in (1, 2, 3) or x.dim() < axes + 1:
        raise ShapeError(f"(…, c, *size) needs at least {axes + 1} axes", f"got shape {tuple(x.shape)}", "add axes")
    return per_axis(factor, axes, name, at_least=1), tuple(x.shape[-axes:])


def _divisors(c: int) -> str:
    return "use " + ", ".join(str(d) for d in range(1, min(c, 64) + 1) if c % d == 0)
