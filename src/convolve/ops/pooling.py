"""Pooling as one rule: reduce each window of each channel to its largest value or its sum, then divide.

Torch's own kernel serves wherever it can express the problem. Elsewhere the padding is written out once and
* a sum or a maximum is taken axis by axis, over strided slices: k + k operations for a k x k window, not k·k, any dilation;
* a maximum that must know where it came from is torch's kernel again, its indices mapped back to the unpadded input, and the
  values gathered from there, so that every derivative of every order is torch's own.

Rules, all torch's (tests/ops/test_pool.py): the first of equal maxima counts, the last NaN beats everything, a window of nothing
but -inf has the index of its first real element. New here: of a window wholly in padding the maximum is -inf (or the smallest
integer) with index -1, and the average is 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from convolve.errors import ShapeError, UsageError
from convolve.geometry import Window

_INT32 = 2**31 - 1  # the largest window argument that torch's pooling kernels take
_HALF = (torch.float16, torch.bfloat16)
_AVERAGED = frozenset((torch.float32, torch.float64, torch.int64, *_HALF))  # what torch averages
_NUMBERS = _AVERAGED | {torch.uint8, torch.int8, torch.int16, torch.int32}
_WORTHWHILE = 4096  # elements, from which slices of a tensor cost less than a pass of torch's kernel
_AXES = ("depth", "height", "width")


@dataclass(frozen=True, slots=True)
class Pooling:
    """What pooling is told besides its input; the last three are torch's ceil_mode, count_include_pad, divisor_override."""

    kind: Literal["max", "average"]
    window: Window
    ceil: bool = False
    include_pad: bool = True
    divisor: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A pooling with everything that does not depend on the input, worked out once.

    A sequence is pooled as a map of one row (`lifted`). `expressible`: torch's kernel can have these arguments, for inputs of at
    least `least` along each axis. `sliceable`: slices beat torch's kernel where nothing is recorded.
    """

    problem: Pooling
    lifted: bool
    expressible: bool
    sliceable: bool
    least: tuple[int, ...]
    told: tuple[Any, ...]
    """The arguments of torch's kernel behind the input."""

    @classmethod
    def of(cls, problem: Pooling) -> Plan:
        window = problem.window
        lifted = window.axes == 1
        if lifted:
            window = Window(
                (1, *window.kernel), (1, *window.stride), ((0, 0), *window.padding), (1, *window.dilation), (1, 1)
            )
            problem = replace(problem, window=window)
        # Half of the kernel without its gaps: one of torch's two kernels for maxima counts so, whatever the dilation.
        halves = all(p == q and 0 <= p <= k // 2 for (p, q), k in zip(window.padding, window.kernel, strict=True))
        narrow = max(*window.kernel, *window.stride, *window.dilation) <= _INT32
        dilated = max(window.dilation) > 1
        expressible = halves and narrow and (problem.kind == "max" or not dilated)
        overlapping = all(k <= 3 or k > s for k, s in zip(window.kernel, window.stride, strict=True))
        least = tuple(max(1, e - p - q) for e, (p, q) in zip(window.extent, window.padding, strict=True))
        sliceable = overlapping and max(window.kernel) <= 16
        return cls(problem, lifted, expressible, sliceable, least, _told(problem))


def pool(x: Tensor, plan: Plan) -> Tensor:
    """The pooled values of x (…, spatial axes)."""
    if plan.lifted:
        x = x.unsqueeze(-2)
    problem = plan.problem
    axis_by_axis = _axis_by_axis(x, plan)
    if not axis_by_axis and _torch_can(x, plan):
        result = torch_pooled(x, problem, plan.told)
    else:
        size = _check(x, problem)
        outputs = problem.window.output_size(size, problem.ceil)
        problem = _with_32_bits(problem, outputs)
        function = _maximum if problem.kind == "max" else _average
        result = function(x, problem, size, outputs, axis_by_axis)
    return result.squeeze(-2) if plan.lifted else result


def pool_with_indices(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """The maxima and where they lie: int64 indices into the flattened spatial axes; -1 for a window of nothing but padding."""
    if plan.lifted:
        x = x.unsqueeze(-2)
    problem = plan.problem
    if _torch_can(x, plan):
        values, indices = _torch_maximum_with_indices(x, problem, plan.told)
    else:
        size = _check(x, problem)
        outputs = problem.window.output_size(size, problem.ceil)
        indices = _indices(x.detach(), _with_32_bits(problem, outputs), size, outputs)
        values = _gather(x, indices, len(size))
    return (values.squeeze(-2), indices.squeeze(-2)) if plan.lifted else (values, indices)


def lowest(dtype: torch.dtype) -> float | int:
    """What padding holds for a maximum: -inf, or the smallest integer."""
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


# -- torch's kernels


def _told(problem: Pooling) -> tuple[Any, ...]:
    """What torch's kernel is told of the problem."""
    window = problem.window
    before = tuple([pair[0] for pair in window.padding])
    kernel, stride, padding, dilation = [
        _one(sizes) for sizes in (window.kernel, window.stride, before, window.dilation)
    ]
    if problem.kind == "max":
        return kernel, stride, padding, dilation, problem.ceil
    return kernel, stride, padding, problem.ceil, problem.include_pad, problem.divisor


def _one(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    """The size of all axes, which torch reads faster, or those of each."""
    return sizes[0] if all(type(size) is int and size == sizes[0] for size in sizes) else sizes


def torch_serves(x: Tensor, plan: Plan) -> bool:
    """Whether `pool` is one call of torch's kernel for this input."""
    return not _axis_by_axis(x, plan) and _torch_can(x, plan)


def torch_pooled(x: Tensor, problem: Pooling, told: tuple[Any, ...]) -> Tensor:
    """A call of torch's kernel; `told` is its plan's."""
    function: Callable[..., Tensor]
    if problem.kind == "max":
        function = torch.max_pool2d if problem.window.axes == 2 else torch.max_pool3d
    else:
        function = F.avg_pool2d if problem.window.axes == 2 else F.avg_pool3d
    return function(x, *told)


# -- maximum


def _maximum(x: Tensor, problem: Pooling, size: Sequence[int], outputs: Sequence[int], axis_by_axis: bool) -> Tensor:
    if axis_by_axis or x.shape[-len(size) - 1] == 0:
        padded = _padded(x, problem, size, outputs, lowest(x.dtype))
        return _reduce(padded, problem.window, outputs, _larger)
    window = problem.window
    parts = zip(size, window.padding, window.kernel, window.extent, strict=True)
    if all(n > 0 and 0 <= p <= k // 2 and q < extent for n, (p, q), k, extent in parts):
        return _maximum_padded_behind(x, problem, size, outputs)
    return _gather(x, _indices(x.detach(), problem, size, outputs), len(size))


def _maximum_padded_behind(x: Tensor, problem: Pooling, size: Sequence[int], outputs: Sequence[int]) -> Tensor:
    """Torch's kernel with the padding before on both sides, on an input that is lengthened where more is read behind.

    Every window begins with a real element, so that none of the written padding can win, or get the gradient.
    """
    window = problem.window
    sides: list[int] = []
    for n, m, s, e, (p, _) in zip(size, outputs, window.stride, window.extent, window.padding, strict=True):
        sides = [0, max(0, (m - 1) * s + e - n - 2 * p), *sides]
    x = F.pad(x, sides, value=lowest(x.dtype)) if any(side > 0 for side in sides) else x
    problem = replace(problem, ceil=False)
    result = torch_pooled(x, problem, _told(problem))
    for axis, m in enumerate(outputs, start=-window.axes):
        if result.shape[axis] != m:
            result = result.narrow(axis, 0, m)
    return result


def _torch_maximum_with_indices(x: Tensor, problem: Pooling, told: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    function = F.max_pool2d if problem.window.axes == 2 else F.max_pool3d
    return function(x, *told, return_indices=True)


def _indices(x: Tensor, problem: Pooling, size: Sequence[int], outputs: Sequence[int]) -> Tensor:
    """Where each maximum lies, for any padding: found in the padded input, then mapped back axis by axis."""
    window = problem.window
    if x.shape[-len(size) - 1] == 0:
        return x.new_zeros((*x.shape[: -len(size)], *outputs), dtype=torch.int64)
    padded = _padded(x, problem, size, outputs, lowest(x.dtype))
    bare = replace(problem, window=replace(window, padding=((0, 0),) * window.axes), ceil=False)
    _, rest = _torch_maximum_with_indices(padded, bare, _told(bare))
    places = []
    for axis in reversed(range(window.axes)):
        places.append(rest % padded.shape[axis - window.axes] - window.padding[axis][0])
        rest = rest // padded.shape[axis - window.axes]
    places.reverse()
    # A place in the padding won only because the window holds nothing above the padding's value: its first real element is meant.
    # That is padding before the input: a window that begins on a real element has that one as its first of equals.
    astray = torch.zeros_like(rest, dtype=torch.bool)
    for place in places:
        astray = astray | (place < 0)
    flat, empty = torch.zeros_like(rest), torch.zeros_like(astray)
    for axis, (place, n) in enumerate(zip(places, size, strict=True)):
        first, count = _first_and_count(window, axis, n, outputs[axis], x.device)
        first, count = (_along(vector, axis, window.axes) for vector in (first, count))
        flat = flat * n + torch.where(astray, first, place)
        empty = empty | (count == 0)
    return torch.where(empty, -1, flat)


def _gather(x: Tensor, indices: Tensor, axes: int) -> Tensor:
    """x at flat indices of its last `axes` axes; the lowest value at index -1. Channels stay innermost if they are."""
    channel = -axes - 1
    innermost = x.stride(channel) == 1 and x.stride(-1) != 1
    if innermost:
        x, indices = x.movedim(channel, -1), indices.movedim(channel, -1)
    last = -2 if innermost else -1
    flat = x.flatten(last - axes + 1, last)
    if flat.shape[last] == 0:
        flat = F.pad(flat, (0, 0, 0, 1) if innermost else (0, 1))
    values = flat.gather(last, indices.flatten(last - axes + 1, last).clamp(min=0)).reshape(indices.shape)
    values = values.masked_fill(indices < 0, lowest(x.dtype))
    return values.movedim(-1, channel) if innermost else values


# -- average


def _average(x: Tensor, problem: Pooling, size: Sequence[int], outputs: Sequence[int], axis_by_axis: bool) -> Tensor:
    window = problem.window
    padded = _padded(x.float() if x.dtype in _HALF else x, problem, size, outputs, 0)
    dilated = any(d != 1 for d in window.dilation)
    if dilated or x.shape[-window.axes - 1] == 0 or axis_by_axis:
        total = _reduce(padded, window, outputs, Tensor.add_)
    else:
        total = _torch_sum(padded, window)
    return _divided(total, problem, size, outputs).to(x.dtype)


def _torch_sum(padded: Tensor, window: Window) -> Tensor:
    bare = Pooling("average", replace(window, padding=((0, 0),) * window.axes))
    if torch.compiler.is_exporting():  # ONNX's average has no divisor, and torch's exporter drops it without a word
        return torch_pooled(padded, bare, _told(bare)) * math.prod(window.kernel)
    bare = replace(bare, divisor=1)
    return torch_pooled(padded, bare, _told(bare))


def _divided(total: Tensor, problem: Pooling, size: Sequence[int], outputs: Sequence[int]) -> Tensor:
    """The sums over their number of elements, which varies at the border: a product of one vector per axis."""
    if problem.divisor is not None:
        return _quotient(total, problem.divisor)
    window = problem.window
    if problem.include_pad and not problem.ceil:
        return _quotient(total, math.prod(window.kernel))
    counts = total.new_ones((), dtype=torch.int64)
    for axis, (n, m) in enumerate(zip(size, outputs, strict=True)):
        if problem.include_pad:
            _, count = _first_and_count(window, axis, n, m, total.device, padded=True)
        else:
            _, count = _first_and_count(window, axis, n, m, total.device)
        counts = counts * _along(count, axis, window.axes)
    return _quotient(total, counts.clamp(min=1))  # the mean of nothing is 0, as in torch's kernels


def _quotient(total: Tensor, divisor: Tensor | int) -> Tensor:
    if total.dtype.is_floating_point:
        return total / divisor
    return torch.div(total, divisor, rounding_mode="trunc")  # torch's rule for integers


# -- what both share


def _check(x: Tensor, problem: Pooling) -> Sequence[int]:
    """The spatial size of x, after the checks."""
    window = problem.window
    size = x.shape[-window.axes :]
    if x.dtype.is_complex or x.dtype == torch.bool:
        raise UsageError("pooling needs real numbers", f"got {x.dtype}", "convert the input, for example with .float()")
    if problem.kind == "average" and not x.dtype.is_floating_point and x.dtype != torch.int64:
        raise UsageError(
            "the average of integers is defined for int64 (rounded toward zero, as torch does)",
            f"got {x.dtype}",
            "convert with .to(torch.int64), or with .float() for the exact mean",
        )
    names = _AXES[-window.axes :]
    for axis, (name, n, (p, q), extent) in enumerate(zip(names, size, window.padding, window.extent, strict=True)):
        if n + p + q < extent and window.output_size(size, problem.ceil)[axis] < 1:
            raise ShapeError(
                "the pooling window must fit in the padded input",
                f"along the {name} the window covers {extent} but the input has {n} + {p} + {q}",
                "use a smaller kernel_size or dilation, or more padding",
            )
    return size


def _with_32_bits(problem: Pooling, outputs: Sequence[int]) -> Pooling:
    """The same problem without numbers that do not matter: the stride of a single output, the dilation of a single tap."""
    window = problem.window
    if max(itertools.chain(window.stride, window.dilation)) > _INT32:
        stride = tuple(min(s, _INT32) if m == 1 else s for s, m in zip(window.stride, outputs, strict=True))
        dilation = tuple(1 if k == 1 else d for k, d in zip(window.kernel, window.dilation, strict=True))
        window = replace(window, stride=stride, dilation=dilation)
    pads = [abs(side) for pair in window.padding for side in pair]
    largest = max(*window.kernel, *window.stride, *window.dilation, *pads)
    if largest > _INT32:
        raise ShapeError(
            "a window that reaches across 2^31 or more padded positions is not supported",
            f"got {largest}",
            "a smaller window gives the same result: most of this one is padding",
        )
    return replace(problem, window=window)


def _torch_can(x: Tensor, plan: Plan) -> bool:
    """Whether torch's kernel serves: it expresses the problem, takes the dtype, and there is something to read."""
    axes = len(plan.least)
    shape = x.shape
    return (
        plan.expressible
        and not (plan.problem.divisor is not None and torch.compiler.is_exporting())
        and (x.dtype in _AVERAGED if plan.problem.kind == "average" else x.dtype in _NUMBERS)
        and not (axes == 3 and plan.problem.kind == "average" and x.dtype in _HALF)
        and shape[-1] >= plan.least[-1]
        and shape[-2] >= plan.least[-2]
        and (axes == 2 or shape[-3] >= plan.least[-3])
        and shape[-axes - 1] > 0
    )


def _axis_by_axis(x: Tensor, plan: Plan) -> bool:
    """Whether slices beat torch's kernel: eager inference on a CPU, channels first, enough to do (then 2 to 30 times).

    Where a transform, a tracer or a counter watches, it is shown the pooling that was asked for, not a dozen slices.

    Of averages, whose last bits depend on the way, each image decides alone, whatever its batch.
    """
    if not plan.sliceable or torch.compiler.is_compiling() or x.stride(-1) != 1:
        return False
    if x.numel() < _WORTHWHILE or (x.requires_grad and torch.is_grad_enabled()):
        return False
    if plan.problem.kind == "average" and (
        x.dtype in _HALF or math.prod(x.shape[-len(plan.least) - 1 :]) < _WORTHWHILE
    ):
        return False
    watched = (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
    )
    return not watched and x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter)


def _padded(x: Tensor, problem: Pooling, size: Sequence[int], outputs: Sequence[int], value: float) -> Tensor:
    """x with its padding written out as `value`, negative padding cut off, and for ceil_mode what its last window reaches past it."""
    window = problem.window
    sides: list[int] = []
    for n, m, s, extent, (p, q) in zip(size, outputs, window.stride, window.extent, window.padding, strict=True):
        behind = (m - 1) * s + extent - n - p if problem.ceil else q
        sides = [max(p, 0), max(behind, 0), *sides]
    if any(side > 0 for side in sides):
        x = F.pad(x, sides, value=value)
    for axis, (p, q) in enumerate(window.padding, start=-window.axes):
        if p < 0 or q < 0:
            x = x.narrow(axis, max(-p, 0), x.shape[axis] + min(p, 0) + min(q, 0))
    return x


def _reduce(x: Tensor, window: Window, outputs: Sequence[int], combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """All taps of all windows combined, one axis after the other; rows first, they are contiguous.

    `combine` may write into its first argument: fresh memory costs more than the arithmetic.
    """
    for axis in range(window.axes):
        if window.kernel[axis] == 1 and window.stride[axis] == 1:
            continue
        d, s = window.dilation[axis], window.stride[axis]
        reach = (outputs[axis] - 1) * s + 1
        taps = [_slice(x, axis - window.axes, t * d, reach, s) for t in range(window.kernel[axis])]
        x = combine(taps[0].clone(), taps[1]) if len(taps) > 1 else taps[0].clone()
        for tap in taps[2:]:
            x = combine(x, tap)
    return x.clone() if max(*window.kernel, *window.stride) == 1 else x  # never a view of the input


def _larger(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, b) if a.requires_grad else torch.maximum(a, b, out=a)


def _slice(x: Tensor, axis: int, start: int, length: int, step: int) -> Tensor:
    part = x.narrow(axis, start, length)
    return part if step == 1 else part.movedim(axis, 0)[::step].movedim(0, axis)


def _first_and_count(
    window: Window, axis: int, n: int, m: int, device: torch.device, padded: bool = False
) -> tuple[Tensor, Tensor]:
    """For each output along `axis`: its first tap on a real input, and how many there are (`padded`: of inputs and padding)."""
    k, s, d = window.kernel[axis], window.stride[axis], window.dilation[axis]
    low, high = (-window.padding[axis][0], n + window.padding[axis][1]) if padded else (0, n)
    start = torch.arange(m, device=device) * s - window.padding[axis][0]
    first = ((low - start).clamp(min=0) + (d - 1)) // d
    last = ((high - 1 - start) // d).clamp(max=k - 1)
    return start + first * d, (last - first + 1).clamp(min=0)


def _along(vector: Tensor, axis: int, axes: int) -> Tensor:
    return vector.reshape(-1, *(1,) * (axes - 1 - axis))
