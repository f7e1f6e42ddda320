"""The library's own convolution: oneDNN on a CPU, cuDNN on a GPU. Where it is at the machine's limit, it is chosen.

It claims all three roles natively: its backward is 1.4 to 3 times faster than a convolution in disguise. Unequal sides of
padding are padded or cropped around it; a stride, dilation or tail that nothing depends on never reaches it, because its
arithmetic on them overflows in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.ops.windows import format_of, stuff_zeros, unpad, with_bias, zero_pad
from convolve.problem import ROLES, ConvProblem, Layout

_LARGEST = 2**31 - 1  # oneDNN's sizes are 32-bit
_CONV = (torch.conv1d, torch.conv2d, torch.conv3d)
_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)


def why_not(problem: ConvProblem) -> str | None:
    if problem.device != "cpu" and not problem.dtype.startswith(("float", "bfloat")):
        return f"torch has no {problem.dtype} convolution on {problem.device}"
    if _overruns(problem):
        return "the library writes beyond its workspace there (oneDNN issue 6035)"
    window = problem.normalise().window
    if max(*window.stride, *window.dilation, *window.kernel, *problem.size) > _LARGEST:
        return "a size, stride or dilation above 2^31 overflows inside the library"
    return None


def _overruns(problem: ConvProblem) -> bool:
    """Whether oneDNN (3.12, in torch 2.13) corrupts the heap: it books fewer bytes than it writes for the weight gradient of a strided
    1x1 convolution whose channels, innermost, do not fill a vector. https://github.com/uxlfoundation/oneDNN/issues/6035"""
    window = problem.window
    return (
        (problem.role, problem.layout, problem.device, problem.dtype)
        == ("weight_gradient", "channels_last", "cpu", "float32")
        and math.prod(window.kernel) == 1
        and max(window.stride) > 1
        and problem.channels // problem.groups < 16
    )


Operator = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def native(problem: ConvProblem, memory_format: torch.memory_format | None = None) -> Operator | None:
    """The one forward operator of torch that computes `problem`, or None where it takes more than that.

    memory_format: that of the result, which torch takes from its kernel; None where it will not differ.
    """
    problem = problem.normalise()
    padding = _symmetric(problem)
    if padding is None or problem.role == "weight_gradient":
        return None
    window, groups = problem.window, problem.groups
    stride, dilation = window.stride, window.dilation
    # No wrapper around wrappers: after a kernel that has emptied the caches each costs microseconds.
    if problem.role == "output":
        conv = _CONV[problem.axes - 1]
        if memory_format is None:
            return lambda x, w, bias: conv(x, w, bias, stride, padding, dilation, groups)
        return lambda x, w, bias: conv(x, w, bias, stride, padding, dilation, groups).contiguous(
            memory_format=memory_format
        )
    extra = _output_padding(problem, padding)
    transposed = _TRANSPOSED[problem.axes - 1]
    if memory_format is None:
        return lambda y, w, bias: transposed(y, w, bias, stride, padding, extra, groups, dilation)
    return lambda y, w, bias: transposed(y, w, bias, stride, padding, extra, groups, dilation).contiguous(
        memory_format=memory_format
    )


_RUNNERS: dict[tuple[int, Layout], tuple[ConvProblem, Operator]] = {}
_MOST_RUNNERS = 4096


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return run_in_layout(problem, problem.layout, a, b, bias)


def run_in_layout(problem: ConvProblem, layout: Layout, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """`run` on operands that lie in this layout."""
    # A record that is alive is its own key: to look at its geometry again costs as much as a small convolution.
    found = _RUNNERS.get((id(problem), layout))
    if found is None or found[0] is not problem:
        if len(_RUNNERS) >= _MOST_RUNNERS:
            _RUNNERS.clear()
        runner = native(problem) or _composed(problem.normalise(), layout)
        found = _RUNNERS[id(problem), layout] = problem, runner
    return found[1](a, b, bias)


def _composed(problem: ConvProblem, layout: Layout) -> Operator:
    """What takes more than one forward operator, for a record in its plainest form."""
    window, unpadded = problem.window, (0,) * problem.axes
    if problem.role == "input_gradient":

        def input_gradient(y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
            return with_bias(unpad(_full_transposed(problem, y, w), window.padding, window.input_dilation), bias)

        return input_gradient
    symmetric = _symmetric(problem)
    padding = unpadded if symmetric is None else symmetric

    def padded(x: Tensor) -> Tensor:
        """Without symmetric padding, by way of the padded input, on which the window has no padding and no stuffing."""
        return x if symmetric is not None else zero_pad(stuff_zeros(x, window.input_dilation), window.padding)

    if problem.role == "output":
        conv = _CONV[problem.axes - 1]
        return lambda x, w, bias: conv(padded(x), w, bias, window.stride, padding, window.dilation, problem.groups)
    shape, memory_format = problem.weight_shape, format_of(layout, problem.axes)
    told = (None, window.stride, padding, window.dilation, False, unpadded, problem.groups, (False, True, False))
    backward = torch.ops.aten.convolution_backward.default

    def weight_gradient(x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        # Only the shape is read, but the library makes it contiguous first: a copy of the weight, unless it is so already.
        like = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=memory_format)
        return with_bias(backward(y, padded(x), like, *told)[1], bias)

    return weight_gradient


def _full_transposed(problem: ConvProblem, y: Tensor, w: Tensor) -> Tensor:
    """The input gradient by the whole padded, zero-stuffed input."""
    window, zero = problem.window, [0] * problem.axes
    return torch.convolution(y, w, None, window.stride, zero, window.dilation, True, zero, problem.groups)


def _symmetric(problem: ConvProblem) -> tuple[int, ...] | None:
    """One padding for both sides of each axis that gives the same outputs; None where the library cannot take it."""
    window = problem.window
    sides = tuple(p for p, _ in window.padding)
    if min(sides) < 0 or 0 in problem.size or set(window.input_dilation) != {1}:
        return None
    wider = replace(window, padding=tuple(zip(sides, sides, strict=True)))
    return sides if wider.output_size(problem.size) == problem.output_size else None


def _output_padding(problem: ConvProblem, padding: Sequence[int]) -> tuple[int, ...]:
    """torch's output_padding of the transposed convolution: less than the stride, for the convolution has no more outputs."""
    window = problem.window
    sizes = zip(problem.size, problem.output_size, padding, window.extent, window.stride, strict=True)
    return tuple(n + 2 * p - extent - s * (m - 1) for n, m, p, extent, s in sizes)


def cost(problem: ConvProblem) -> Cost:
    return cost_in_layout(problem, problem.layout)


def cost_in_layout(problem: ConvProblem, layout: Layout) -> Cost:
    """From rates measured on one core with AVX-512: fast where channels are many, slow off the library's paved road."""
    if problem.device != "cpu":
        return Cost(1e-5 + problem.macs / 1e13, 0)
    return Cost(5e-6 + problem.macs / _rate(problem, layout), 0)


def _rate(problem: ConvProblem, layout: Layout) -> float:
    """Multiply-adds per second."""
    if problem.dtype not in ("float32", "bfloat16"):
        return 1.5e10 if problem.dtype == "float64" else 1e9
    taps, groups = math.prod(problem.window.kernel), problem.groups
    if problem.channels == problem.filters == 1:
        return 1e9 if taps <= 100 else 2.8e9 if taps <= 300 else 2.5e8
    if groups > 1 and min(problem.channels, problem.filters) == groups:
        lanes = min(1.0, groups / 16)
        if taps <= 100:
            return max(2.2e9, 1e10 * lanes)
        return max(2.5e9, 5e10 * lanes) if layout == "channels_last" else 1.7e9
    dense = 8.8e10 * min(1.0, max(problem.channels // groups, problem.filters // groups) / 16)
    return dense if taps <= 300 else dense / 4


ALGORITHM = Algorithm(
    name="torch",
    summary="the library's own (oneDNN, cuDNN)",
    run=run,
    why_not=why_not,
    cost=cost,
    bound=direct_bound,
    roles=ROLES,
)
