# ruff: noqa: A002 - torch names its argument `input`
"""Pooling under the names and arguments of torch.nn.functional, with more freedom in the window.

Beyond torch: padding per side as (before, after) per axis, "same", "same_lower" and "valid"; padding of more than half a window;
negative padding, which crops; dilation in the averages too; every integer dtype in the maxima; a divisor in one dimension. What a
window computes, and the rules for NaN, ties and empty windows: pooling.py.

Inputs are (n, c, *size) or (c, *size); so are the results. `stride` is the kernel's size unless given. An int serves all axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from convolve.errors import UsageError
from convolve.geometry import checked
from convolve.ops.arguments import Padding, Size, check_rank, window_for
from convolve.ops.pool_kernels import LEAST, _watched, pool, pool_with_indices, task_for, way
from convolve.ops.pooling import Plan, Pooling, torch_pooled, torch_serves


@overload
def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...


@overload
def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest of each window of a sequence; with `return_indices` also where in the sequence it lies.

    >>> import torch, convolve
    >>> convolve.max_pool1d(torch.tensor([[1.0, 3.0, 2.0, 5.0, 4.0]]), 2, stride=2, padding="same")
    tensor([[3., 5., 4.]])
    """
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices:
        return pool_with_indices(input, plan_for(input.shape, 1, "max", *settings))
    return _pooled(input, 1, "max", *settings)


@overload
def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...


@overload
def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest of each window of a map; with `return_indices` also where in the flattened map (row-major) it lies.

    Raises ShapeError where the window does not fit in the padded input, or reaches across 2^31 positions.

    >>> import torch, convolve
    >>> x = torch.arange(9.0).reshape(1, 3, 3)
    >>> convolve.max_pool2d(x, 2, stride=1)
    tensor([[[4., 5.],
             [7., 8.]]])
    >>> convolve.max_pool2d(x, 3, padding=((2, 0), (2, 0)), return_indices=True)[1]
    tensor([[[0]]])
    """
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices:
        return pool_with_indices(input, plan_for(input.shape, 2, "max", *settings))
    return _pooled(input, 2, "max", *settings)


@overload
def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...


@overload
def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest of each window of a volume; with `return_indices` also where in the flattened volume it lies.

    >>> import torch, convolve
    >>> convolve.max_pool3d(torch.arange(8.0).reshape(1, 2, 2, 2), 2).item()
    7.0
    """
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices:
        return pool_with_indices(input, plan_for(input.shape, 3, "max", *settings))
    return _pooled(input, 3, "max", *settings)


def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
) -> Tensor:
    """The mean of each window of a sequence.

    >>> import torch, convolve
    >>> convolve.avg_pool1d(torch.tensor([[1.0, 3.0, 2.0, 5.0, 4.0]]), 2, stride=1, dilation=2)
    tensor([[1.5000, 4.0000, 3.0000]])
    """
    settings = (kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override)
    return _pooled(input, 1, "average", *settings)


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
) -> Tensor:
    """The mean of each window of a map: its sum over the window's size, or over `divisor_override`.

    Padding counts in that size, or with `count_include_pad=False` does not; what ceil_mode reads beyond it never counts.
    Integers (int64 only) are rounded toward zero, as in torch.

    >>> import torch, convolve
    >>> convolve.avg_pool2d(torch.arange(9.0).reshape(1, 3, 3), 2, stride=1)
    tensor([[[2., 3.],
             [5., 6.]]])
    """
    settings = (kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override)
    return _pooled(input, 2, "average", *settings)


def avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
) -> Tensor:
    """The mean of each window of a volume.

    >>> import torch, convolve
    >>> convolve.avg_pool3d(torch.arange(8.0).reshape(1, 2, 2, 2), 2, padding="same_lower", stride=2).item()
    3.5
    """
    settings = (kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override)
    return _pooled(input, 3, "average", *settings)


def _pooled(x: Tensor, *settings: Any) -> Tensor:
    """The pooled values of x, by what served the same call before: one look-up; `settings` are those of `plan_for`."""
    if not _watched(x):
        recorded = x.requires_grad and torch.is_grad_enabled()
        try:
            call = _remembered_call(x.shape, x.stride(), x.dtype, recorded, torch.get_num_threads(), *settings)
        except TypeError:  # a list cannot be looked up
            pass
        else:
            return call(x)
    return pool(x, plan_for(x.shape, *settings))


@functools.lru_cache(maxsize=1024, typed=True)
def _remembered_call(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, recorded: bool, _threads: int, *settings: Any
) -> Callable[[Tensor], Tensor]:
    """What serves a call that nobody watches: a kernel, the composition, or nothing but a call of torch's kernel."""
    plan = plan_for(shape, *settings)
    task = task_for(plan, tuple(shape), strides, dtype, recorded and plan.problem.kind == "max")
    if task is None and not plan.lifted and math.prod(shape) < LEAST:
        like = torch.empty_strided(shape, strides, dtype=dtype).requires_grad_(recorded)
        if torch_serves(like, plan):
            return lambda x: torch_pooled(x, plan.problem, plan.told)
    return way(plan, task, recorded)


def plan_for(
    shape: Sequence[int],
    axes: int,
    kind: Literal["max", "average"],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    ceil: bool,
    include_pad: bool = True,
    divisor: int | None = None,
) -> Plan:
    """The checked plan of one pooling call, remembered for the next; only "same" padding depends on the size."""
    check_rank("pooling", shape, axes)
    size = shape[-axes:] if isinstance(padding, str) else None
    arguments = (axes, kind, kernel_size, stride, padding, dilation, ceil, include_pad, divisor, size)
    if not torch.compiler.is_compiling():
        try:
            return _remembered_plan(*arguments)
        except TypeError:  # a list, or a symbolic size, cannot be looked up
            pass
    return _plan(*arguments)


def _plan(
    axes: int,
    kind: Literal["max", "average"],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    ceil: bool,
    include_pad: bool,
    divisor: int | None,
    size: Sequence[int] | None,
) -> Plan:
    if stride is None or (isinstance(stride, Sequence) and len(stride) == 0):  # torch's scripts pass () for None
        stride = kernel_size
    if divisor is not None and checked(divisor, "divisor_override") == 0:
        raise UsageError("divisor_override must not be zero", "got 0", "use the number that each sum is divided by")
    window = window_for(axes, size, kernel_size, stride, padding, dilation)
    if ceil and any(side < 0 for pair in window.padding for side in pair):
        raise UsageError(
            "ceil_mode does not go with negative padding", f"got padding {window.padding}", "crop the input first"
        )
    return Plan.of(Pooling(kind, window, ceil, include_pad, divisor))


_remembered_plan = functools.lru_cache(maxsize=1024, typed=True)(_plan)  # typed: 2.0 must not find the plan of 2
