"""What `convolve animate` shows: scenes of one or two stages, one row per operator in OPERATORS.

A Request holds checked, exact arguments; a row turns it into scenes. Weights that were not given are small random integers from
the request's seed, so that every sum can be followed by eye.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.explain.stages import Stage, convolution, pooling, transposed
from convolve.ops.arguments import Padding, Size
from convolve.ops.conv import GroupOrder
from convolve.ops.precision import precision
from convolve.ops.windows import PADDING_MODES


@dataclass(frozen=True, eq=False)
class Scene:
    """One operator on the page: a name, what it does in a sentence, and its stages in order."""

    name: str
    says: str
    stages: tuple[Stage, ...]

    @property
    def parameters(self) -> int:
        return sum(stage.parameters for stage in self.stages)

    @property
    def macs(self) -> int:
        """Multiply-adds, padding zeros included."""
        return sum(stage.macs for stage in self.stages)


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of an animation. `kernels` are (m, *kernel) numbers, or None for random ones of `kernel_size`."""

    x: Tensor
    kernel_size: tuple[int, ...]
    kernels: Tensor | None
    stride: Size | None
    padding: Padding
    padding_mode: str
    output_padding: Size
    dilation: Size
    groups: int | None
    group_order: str
    filters: int | None
    bias: bool
    flip: bool
    ceil_mode: bool
    count_include_pad: bool
    seed: int


@dataclass(frozen=True)
class Operator:
    """One row: its name, what it does, the defaults that make a good first picture, and how its scenes are made."""

    name: str
    says: str
    channels: int
    size: tuple[int, ...]
    kernel: int
    scenes: Callable[[Operator, Request], tuple[Scene, ...]]
    takes: frozenset[str] = frozenset()
    """Which of the optional arguments have a meaning here."""


def random_integers(shape: Sequence[int], seed: int, low: int, high: int) -> Tensor:
    """Integers low..high as float64; the same for the same seed on every machine, whatever the caller's generator holds."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, tuple(shape), generator=generator).double()


def make_weight(request: Request, filters: int, depth: int, axes: int) -> Tensor:
    """The weight (filters, depth, *kernel): the kernels that were given, or random ones from -2 to 2."""
    kernels, size = request.kernels, request.kernel_size
    if kernels is None:
        weight = random_integers((filters, depth, *size), request.seed + 1, -2, 2)
        # A kernel without any weight shows nothing.
        empty = (weight.flatten(2) == 0).all(-1)
        weight[empty] = 1.0
        return weight
    if kernels.dim() == axes + 2:
        if kernels.shape[:2] != (filters, depth):
            raise ShapeError(
                f"the weight is ({filters} filters, {depth} channels each, *kernel)", f"got {tuple(kernels.shape)}", ""
            )
        return kernels.double()
    number = kernels.shape[0]
    if number not in (1, depth, filters * depth):
        raise ShapeError(
            f"give one kernel for all, or {depth} (one per channel of a filter), or {filters * depth} (all of them)",
            f"got {number} kernels",
            "separate kernels by |",
        )
    whole = kernels if number == filters * depth else kernels.repeat(filters * depth // number, *[1] * axes)
    return whole.reshape(filters, depth, *size).double()


def _bias(request: Request, filters: int) -> Tensor | None:
    return random_integers((filters,), request.seed + 2, 1, 3) if request.bias else None


def _convolution(request: Request, filters: int, groups: int) -> Stage:
    c, axes = request.x.shape[0], request.x.dim() - 1
    if groups < 1 or c % groups or filters % groups:
        both = [str(g) for g in range(1, min(c, filters) + 1) if c % g == filters % g == 0]
        raise ShapeError(
            "groups must divide the channels and the filters",
            f"got {c} channels, {filters} filters, groups={groups}",
            f"use {', '.join(both)}",
        )
    weight = make_weight(request, filters, c // groups, axes)
    mode: Any = request.padding_mode
    order: Any = request.group_order if groups > 1 else "contiguous"
    stride = 1 if request.stride is None else request.stride
    return convolution(
        request.x, weight, _bias(request, filters), stride, request.padding, request.dilation, groups, mode, request.flip, order
    )  # fmt: skip


def _conv(row: Operator, request: Request) -> tuple[Scene, ...]:
    return (Scene(row.name, row.says, (_convolution(request, request.filters or 1, request.groups or 1),)),)


def _grouped(row: Operator, request: Request) -> tuple[Scene, ...]:
    filters = request.filters or request.x.shape[0]
    return (Scene(row.name, row.says, (_convolution(request, filters, request.groups or 2),)),)


def _depthwise(row: Operator, request: Request) -> tuple[Scene, ...]:
    c = request.x.shape[0]
    return (Scene(row.name, row.says, (_convolution(request, request.filters or c, c),)),)


def _pointwise(row: Operator, request: Request) -> tuple[Scene, ...]:
    if any(k != 1 for k in request.kernel_size):
        raise UsageError(
            "a pointwise convolution has a kernel of 1",
            f"got {_by(request.kernel_size)}",
            "use conv, or leave --kernel away",
        )
    return (Scene(row.name, row.says, (_convolution(request, request.filters or 2, 1),)),)


def _separable(row: Operator, request: Request) -> tuple[Scene, ...]:
    c, axes = request.x.shape[0], request.x.dim() - 1
    first = _convolution(replace(request, bias=False), c, c)
    then = replace(
        request, x=first.output, kernel_size=(1,) * axes, kernels=None, stride=1, padding=0, padding_mode="zeros", dilation=1,
        flip=False, seed=request.seed + 7,
    )  # fmt: skip
    return (Scene(row.name, row.says, (first, _convolution(then, request.filters or 2, 1))),)


def _transposed(row: Operator, request: Request) -> tuple[Scene, ...]:
    c, axes = request.x.shape[0], request.x.dim() - 1
    groups, filters = request.groups or 1, request.filters or (request.groups or 1)
    if groups < 1 or c % groups or filters % groups:
        raise ShapeError(
            "groups must divide the channels and the filters",
            f"got {c} channels, {filters} filters, groups={groups}",
            "change one of them",
        )
    weight = make_weight(request, c, filters // groups, axes)
    stride = 1 if request.stride is None else request.stride
    stage = transposed(
        request.x, weight, _bias(request, filters), stride, request.padding, request.output_padding, request.dilation,
        groups, request.flip,
    )  # fmt: skip
    return (Scene(row.name, row.says, (stage,)),)


def _pooling(row: Operator, request: Request) -> tuple[Scene, ...]:
    if request.kernels is not None:
        raise UsageError("pooling has no kernel of numbers", "got some", "give its size, such as 2 or 3x2")
    c = request.x.shape[0]
    kind: Any = {"max-pool": "max", "avg-pool": "average"}.get(row.name, "sum")
    scale = random_integers((c,), request.seed + 1, 1, 3) / 4 if kind == "sum" else None
    bias = random_integers((c,), request.seed + 2, 1, 3) if kind == "sum" else None
    stage = pooling(
        request.x, kind, request.kernel_size, request.stride, request.padding,
        request.dilation, request.ceil_mode, request.count_include_pad, scale, bias,
    )  # fmt: skip
    return (Scene(row.name, row.says, (stage,)),)


def _compare(_: Operator, request: Request) -> tuple[Scene, ...]:
    if request.kernels is not None:
        raise UsageError("compare makes its own kernels", "got numbers for the kernel", "give its size, such as 3")
    c = request.x.shape[0]
    filters = request.filters or c
    if filters % c:
        raise ShapeError(
            "to compare, the filters must be a multiple of the channels (depthwise needs that)",
            f"got {c} channels, {filters} filters",
            f"use --filters {c} or {2 * c}",
        )
    plain = replace(request, filters=filters)
    one = replace(plain, kernel_size=(1,) * len(request.kernel_size), padding=0, dilation=1)
    scenes: list[Scene] = []
    for name, made in (
        ("conv", replace(plain, groups=1)),
        ("grouped", plain),
        ("depthwise", plain),
        ("pointwise", one),
        ("separable", plain),
    ):
        scenes += OPERATORS[name].scenes(OPERATORS[name], made)
    return tuple(scenes)


_CONVOLUTION = frozenset({"padding_mode", "dilation", "filters", "bias", "flip"})
_POOLING = frozenset({"dilation", "ceil_mode"})

OPERATORS: dict[str, Operator] = {
    row.name: row
    for row in (
        Operator(
            "conv", "Every filter reads every channel; the products of a window are summed into one number.",
            1, (5, 5), 3, _conv, _CONVOLUTION | {"groups", "group_order"},
        ),
        Operator(
            "conv-transpose", "Every input cell stamps its kernel onto the output, scaled by its value; stamps that overlap add up.",
            1, (3, 3), 3, _transposed, (_CONVOLUTION - {"padding_mode"}) | {"groups", "output_padding"},
        ),
        Operator("max-pool", "The largest value of each window, channel by channel.", 1, (6, 6), 2, _pooling, _POOLING),
        Operator(
            "avg-pool", "The mean of each window, channel by channel.", 1, (6, 6), 2, _pooling, _POOLING | {"count_include_pad"},
        ),
        Operator(
            "trainable-pool", "LeNet-5's pooling: the sum of each window, times one weight, plus one bias, channel by channel.",
            1, (6, 6), 2, _pooling, _POOLING,
        ),
        Operator(
            "grouped", "The channels are split into groups; a filter reads only the channels of its own group.",
            4, (5, 5), 3, _grouped, _CONVOLUTION | {"groups", "group_order"},
        ),
        Operator(
            "depthwise", "Each channel has a filter of its own; nothing is summed over channels.",
            3, (5, 5), 3, _depthwise, _CONVOLUTION,
        ),
        Operator(
            "pointwise", "A 1x1 kernel: each output cell is a weighted sum over the channels of one pixel.",
            3, (5, 5), 1, _pointwise, _CONVOLUTION,
        ),
        Operator(
            "separable", "Depthwise first (space), then pointwise (channels): far fewer weights than one convolution of the same reach.",
            3, (5, 5), 3, _separable, _CONVOLUTION,
        ),
        Operator(
            "compare", "Standard, grouped, depthwise, pointwise and separable on the same input.",
            4, (5, 5), 3, _compare, _CONVOLUTION | {"groups", "group_order"},
        ),
    )
}  # fmt: skip


def scenes(name: str, request: Request) -> tuple[Scene, ...]:
    """The scenes of the operator called `name`. Raises UnknownNameError with the nearest names."""
    row = operator(name)
    if request.padding_mode not in PADDING_MODES:
        raise UnknownNameError.of("padding mode", request.padding_mode, PADDING_MODES)
    if request.group_order not in get_args(GroupOrder):
        raise UnknownNameError.of("group order", request.group_order, get_args(GroupOrder))
    given = {
        "group_order": request.group_order != "contiguous",
        "padding_mode": request.padding_mode != "zeros",
        "output_padding": request.output_padding != 0,
        "dilation": request.dilation != 1,
        "groups": request.groups is not None,
        "filters": request.filters is not None,
        "bias": request.bias,
        "flip": request.flip,
        "ceil_mode": request.ceil_mode,
        "count_include_pad": not request.count_include_pad,
    }
    for argument, was_given in given.items():
        if was_given and argument not in row.takes:
            able = [other.name for other in OPERATORS.values() if argument in other.takes]
            raise UsageError(
                f"{row.name} has no {argument.replace('_', ' ')}",
                "it was given",
                f"leave it away, or use {', '.join(able)}",
            )
    if request.filters is not None and request.filters < 1:
        raise UsageError("filters must be at least 1", f"got {request.filters}", "use 1 or more")
    with precision("exact"):  # whole numbers stay whole
        return row.scenes(row, request)


def operator(name: str) -> Operator:
    """The row called `name`."""
    if name not in OPERATORS:
        raise UnknownNameError.of("operator to animate", name, OPERATORS)
    return OPERATORS[name]


def _by(values: Sequence[int]) -> str:
    return "x".join(map(str, values))
