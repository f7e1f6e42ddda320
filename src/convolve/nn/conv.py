"""torch's convolution layers over our operators: the same arguments, parameters and state dicts, and four keywords more.

    padding       also one (before, after) pair per axis, "same" with any stride, and "same_lower"
    flip_kernel   the convolution of mathematics instead of the cross-correlation that deep learning calls so
    group_order   "interleaved": group i takes every groups-th channel from i, instead of a block of neighbours
    algorithm     a name of `convolve.why`'s table, or an Algorithm; "auto" chooses
A transposed layer is the adjoint of the layer with the same arguments, padding modes included. As subclasses of torch's own these
are found by tools that look for torch's layers; hooks, pruning and parametrisations work on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from convolve.errors import UnknownNameError
from convolve.ops.algorithm import Algorithm
from convolve.ops.arguments import NAMED_PADDING
from convolve.ops.conv import (
    GROUP_ORDERS,
    GroupOrder,
    Padding,
    conv1d,
    conv2d,
    conv3d,
    conv_frozen,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from convolve.ops.execute import FrozenWeight
from convolve.ops.windows import PADDING_MODES, PaddingMode

Size = int | tuple[int, ...]


class _Extended(nn.modules.conv._ConvNd):
    """What our layers add to torch's: the keywords, kept as attributes, and how they are shown."""

    # Defaults for torch's own layers, which become ours by `accelerate` without having been built here.
    algorithm: str | Algorithm = "auto"
    flip_kernel: bool = False
    group_order: GroupOrder = "contiguous"
    frozen: FrozenWeight | None = None
    """What was prepared of the weight, if it was declared not to change (`accelerate(model, freeze=True)`)."""

    def _extend(
        self,
        padding: Padding,
        mode: PaddingMode,
        flip_kernel: bool,
        group_order: GroupOrder,
        algorithm: str | Algorithm,
    ) -> None:
        """Set what torch's constructor would refuse; it was given plain zeros instead."""
        if isinstance(padding, str) and padding not in NAMED_PADDING:
            raise UnknownNameError.of("padding", padding, NAMED_PADDING)
        if mode not in PADDING_MODES:
            raise UnknownNameError.of("padding_mode", str(mode), PADDING_MODES)
        if group_order not in GROUP_ORDERS:
            raise UnknownNameError.of("group_order", str(group_order), GROUP_ORDERS)
        axes = len(self.kernel_size)
        # Tools read .padding as torch writes it: a name, or a tuple with one entry per axis.
        self.padding = padding if isinstance(padding, str) else _per_axis(padding, axes)
        self.padding_mode = mode
        self.flip_kernel, self.group_order, self.algorithm = flip_kernel, group_order, algorithm

    @property
    def _extras(self) -> dict[str, Any]:
        return {
            "padding_mode": self.padding_mode,
            "flip_kernel": self.flip_kernel,
            "group_order": self.group_order,
            "algorithm": self.algorithm,
        }

    def extra_repr(self) -> str:
        parts: list[str] = [super().extra_repr()]  # type: ignore[no-untyped-call]
        parts += ["flip_kernel=True"] * self.flip_kernel
        parts += [f"group_order={self.group_order}"] * (self.group_order != "contiguous")
        parts += [f"algorithm={getattr(self.algorithm, 'name', self.algorithm)}"] * (self.algorithm != "auto")
        return ", ".join(parts)


class _Conv(_Extended):
    _function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        flip_kernel: bool = False,
        group_order: GroupOrder = "contiguous",
        algorithm: str | Algorithm = "auto",
    ) -> None:
        arguments: Any = (in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)
        super().__init__(*arguments, **_factory(device, dtype))
        self._extend(padding, padding_mode, flip_kernel, group_order, algorithm)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002  (torch's own name)
        if self.frozen is not None:
            extras = (self.padding_mode, self.flip_kernel, self.group_order, None, self.algorithm)
            arguments = (self.stride, self.padding, self.dilation, self.groups, False, *extras)
            result = conv_frozen(self.frozen, len(self.kernel_size), input, weight, bias, arguments)
            if result is not None:
                return result
        function = type(self)._function
        return function(input, weight, bias, self.stride, self.padding, self.dilation, self.groups, **self._extras)


class Conv1d(_Conv, nn.Conv1d):
    """1-D convolution of (n, in_channels, length); the weight is (out_channels, in_channels / groups, kernel).

    >>> Conv1d(1, 2, 4, stride=3, padding="same")(torch.zeros(1, 1, 10)).shape
    torch.Size([1, 2, 4])
    """

    _function = staticmethod(conv1d)


class Conv2d(_Conv, nn.Conv2d):
    """2-D convolution of (n, in_channels, h, w); the weight is (out_channels, in_channels / groups, r, s).

    Raises ShapeError, on the first call, for channels or sizes that do not fit.

    >>> Conv2d(3, 8, 3, padding=((0, 1), (2, 3)))(torch.zeros(1, 3, 5, 5)).shape
    torch.Size([1, 8, 4, 8])
    """

    _function = staticmethod(conv2d)


class Conv3d(_Conv, nn.Conv3d):
    """3-D convolution of (n, in_channels, depth, h, w); the weight is (out_channels, in_channels / groups, t, r, s).

    >>> Conv3d(1, 2, 3, padding=1)(torch.zeros(1, 1, 4, 5, 6)).shape
    torch.Size([1, 2, 4, 5, 6])
    """

    _function = staticmethod(conv3d)


class _ConvTranspose(_Extended):
    _function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        flip_kernel: bool = False,
        group_order: GroupOrder = "contiguous",
        algorithm: str | Algorithm = "auto",
    ) -> None:
        sizes = (kernel_size, stride, 0, output_padding)
        arguments: Any = (in_channels, out_channels, *sizes, groups, bias, dilation)
        super().__init__(*arguments, **_factory(device, dtype))
        self._extend(padding, padding_mode, flip_kernel, group_order, algorithm)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:  # noqa: A002
        """`output_size` names the size (h, w) among those that the stride leaves open; it may also carry n and c, as torch's."""
        extra: Any = self.output_padding
        if output_size is not None:
            output_size, extra = list(output_size)[-len(self.kernel_size) :], 0
        function = type(self)._function
        return function(
            *(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation),
            output_size=output_size,
            **self._extras,
        )


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """The adjoint of Conv1d: (n, in_channels, length) to a longer one; the weight is (in_channels, out_channels / groups, kernel).

    >>> ConvTranspose1d(1, 1, 3, stride=2)(torch.zeros(1, 1, 4), output_size=[10]).shape
    torch.Size([1, 1, 10])
    """

    _function = staticmethod(conv_transpose1d)


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """The adjoint of Conv2d: (n, in_channels, p, q) to larger maps; the weight is (in_channels, out_channels / groups, r, s).

    >>> ConvTranspose2d(4, 2, 3, stride=2, padding="same")(torch.zeros(1, 4, 5, 7)).shape
    torch.Size([1, 2, 10, 14])
    """

    _function = staticmethod(conv_transpose2d)


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """The adjoint of Conv3d; the weight is (in_channels, out_channels / groups, t, r, s).

    >>> ConvTranspose3d(1, 1, 2, stride=2)(torch.zeros(1, 1, 2, 3, 4)).shape
    torch.Size([1, 1, 4, 6, 8])
    """

    _function = staticmethod(conv_transpose3d)


def _per_axis(padding: int | Sequence[Any], axes: int) -> tuple[Any, ...]:
    """One entry per axis: an int, or a (before, after) pair."""
    sides = tuple(padding) if isinstance(padding, Sequence) else (padding,)
    return sides * axes if len(sides) == 1 else sides


def _factory(device: torch.device | str | None, dtype: torch.dtype | None) -> dict[str, Any]:
    return {"device": device, "dtype": dtype}
