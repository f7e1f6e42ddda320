"""A strided convolution of few channels as one of stride 1 over its phases, side by side (kernels/dense_phases.py), and its weight's way there.

Tap (r, s) of the weight is tap (r // stride, s // stride) of the phase (r % stride, s % stride); taps beyond the kernel are zeros.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from convolve.geometry import Window
from convolve.kernels import dense_phases as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import engine, positions
from convolve.ops.algorithm import Cost
from convolve.ops.windows import format_of
from convolve.ops.winograd_call import CLOCK, inputs_met, taps_of
from convolve.problem import DTYPE_BYTES, ConvProblem

# Cycles to move one number; seconds of a call, mostly to rearrange the weight.
MOVED_CYCLES, CALL_SECONDS = 1.5, 3e-5


def wanted(problem: ConvProblem) -> bool:
    """Whether the phases must be put side by side: where Winograd's kernels know no such stride, or their vectors would not be full."""
    stride = problem.window.stride[0]
    if problem.role == "input_gradient" or stride == 1:
        return False
    return stride > 2 or problem.channels // problem.groups < machine().lanes(problem.dtype)


@lru_cache(maxsize=1024)
def inner(problem: ConvProblem) -> ConvProblem:
    """The problem over the phases; always the same object for equal ones."""
    stride, taps = problem.window.stride[0], taps_of(problem)
    return replace(
        problem,
        channels=problem.channels * stride**2,
        size=tuple(m + t - 1 for m, t in zip(problem.output_size, taps, strict=True)),
        window=Window.of(taps, [1, 1], [(0, 0), (0, 0)], [1, 1], axes=2),
    )


def maps(problem: ConvProblem, x: Tensor) -> Tensor:
    """The phases of x, in memory that the calling thread may use until its next call of this."""
    n, c, h, w = inner(problem).input_shape
    z = engine.maps(n * h * w * c, x.dtype).view(n, h, w, c)
    (before_h, _), (before_w, _) = problem.window.padding
    strides = x.stride()
    values = {
        "x": x.data_ptr(), "z": z.data_ptr(),
        "batch": n, "groups": problem.groups, "channels": problem.channels // problem.groups,
        "x_n": strides[0], "x_c": strides[1], "x_h": strides[2], "x_w": strides[3],
        "size_h": inputs_met(problem, 0), "size_w": inputs_met(problem, 1), "before_h": before_h, "before_w": before_w,
        "rows": h, "columns": w,
    }  # fmt: skip
    address = loaded(kernels.kernel(problem.window.stride[0], problem.dtype)).address
    engine.run(address, positions.as_bytes(kernels.ARGUMENTS, values), engine.thread_count())
    return z.permute(0, 3, 1, 2)


def weight(problem: ConvProblem, w: Tensor) -> Tensor:
    """The weight of `inner`."""
    stride, (taps_h, taps_w) = problem.window.stride[0], taps_of(problem)
    k, c, r, s = w.shape
    whole = F.pad(w, (0, taps_w * stride - s, 0, taps_h * stride - r))
    split = whole.reshape(k, c, taps_h, stride, taps_w, stride)
    return split.permute(0, 3, 1, 5, 2, 4).reshape(k, c * stride**2, taps_h, taps_w)


def weight_gradient(problem: ConvProblem, dw: Tensor) -> Tensor:
    """The gradient of the problem's weight, from that of `inner`."""
    stride, (taps_h, taps_w) = problem.window.stride[0], taps_of(problem)
    k, c, r, s = problem.weight_shape
    split = dw.reshape(k, stride, c, stride, taps_h, taps_w).permute(0, 2, 4, 1, 5, 3)
    whole = split.reshape(k, c, taps_h * stride, taps_w * stride)
    return whole[:, :, :r, :s].contiguous(memory_format=format_of(problem.layout, 2))


def cost(problem: ConvProblem, of_inner: Cost) -> Cost:
    """That of the problem over the phases, and of making these."""
    elements = math.prod(inner(problem).input_shape)
    seconds = CALL_SECONDS + MOVED_CYCLES * elements / CLOCK
    return Cost(of_inner.seconds + seconds, of_inner.workspace_bytes + elements * DTYPE_BYTES[problem.dtype])
