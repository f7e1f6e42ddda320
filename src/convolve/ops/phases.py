"""A strided convolution taken apart into phases: what each of them meets, and those of few channels put side by side.

Every s-th input along both axes, from each of the first s on, is a phase; the convolution is the sum of all phases, each with every s-th
tap, at stride 1. `dense` says where they become the channels of one map (kernels/dense_phases.py): tap (r, s) of the weight is then tap
(r // stride, s // stride) of the phase (r % stride, s % stride), and taps beyond the kernel are zeros.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor

from convolve.geometry import Window
from convolve.kernels import dense_phases as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import engine, positions
from convolve.ops.windows import format_of
from convolve.problem import DTYPE_BYTES, ConvProblem

MOVED_CYCLES = 2.0  # of one number of the maps
_POINTERS = struct.Struct("2q")


def taps_of(problem: ConvProblem) -> tuple[int, ...]:
    """Taps of one phase, per axis."""
    return tuple(-(-k // s) for k, s in zip(problem.window.kernel, problem.window.stride, strict=True))


def inputs_met(problem: ConvProblem, axis: int) -> int:
    """Inputs up to the last one that meets a tap: what lies behind may be cropped, and is not read."""
    window = problem.window
    last = window.stride[axis] * (problem.output_size[axis] - 1) + window.kernel[axis] - window.padding[axis][0]
    return min(problem.size[axis], last)


def dense(problem: ConvProblem) -> bool:
    """Whether phases are put side by side: where Winograd's kernels know no such stride, or their vectors would not be full."""
    stride = problem.window.stride[0]
    if problem.role == "input_gradient" or stride == 1:
        return False
    return stride > 2 or problem.channels // problem.groups < machine().lanes(problem.dtype)


@lru_cache(maxsize=1024)
def inner(problem: ConvProblem) -> ConvProblem:
    """The problem over dense phases, at stride 1; any other is itself. Equal problems give the same object."""
    if not dense(problem):
        return problem
    taps = taps_of(problem)
    return replace(
        problem,
        channels=problem.channels * problem.window.stride[0] ** 2,
        size=tuple(m + t - 1 for m, t in zip(problem.output_size, taps, strict=True)),
        window=Window.of(taps, [1, 1], [(0, 0), (0, 0)], [1, 1], axes=2),
    )


@dataclass(frozen=True)
class Maps:
    """How dense phases are made of an input with given strides."""

    arguments: bytes
    """The kernel's, behind the addresses."""
    address: int
    strides: tuple[int, ...]
    """Of the maps, as of (n, c, h, w)."""
    bytes: int
    """Of the maps, rounded up to a line."""

    def make(self, x: Tensor, to: int) -> None:
        """Write the phases of x to an address."""
        engine.run(self.address, _POINTERS.pack(x.data_ptr(), to) + self.arguments, engine.thread_count())


def maps(problem: ConvProblem, x: tuple[int, ...]) -> Maps:
    """For a problem that is `dense`, and the strides of its input."""
    n, c, h, w = inner(problem).input_shape
    (before_h, _), (before_w, _) = problem.window.padding
    values = {
        "batch": n, "groups": problem.groups, "channels": problem.channels // problem.groups,
        "x_n": x[0], "x_c": x[1], "x_h": x[2], "x_w": x[3],
        "size_h": inputs_met(problem, 0), "size_w": inputs_met(problem, 1), "before_h": before_h, "before_w": before_w,
        "rows": h, "columns": w,
    }  # fmt: skip
    return Maps(
        positions.as_bytes(kernels.ARGUMENTS[2:], values),
        loaded(kernels.kernel(problem.window.stride[0], problem.dtype)).address,
        (h * w * c, 1, w * c, c),
        positions.aligned(n * h * w * c) * DTYPE_BYTES[problem.dtype],
    )


def weight_gradient(problem: ConvProblem, dw: Tensor) -> Tensor:
    """The gradient of the problem's weight, from that of `inner`."""
    if not dense(problem):
        return dw
    stride, (taps_h, taps_w) = problem.window.stride[0], taps_of(problem)
    k, c, r, s = problem.weight_shape
    split = dw.reshape(k, stride, c, stride, taps_h, taps_w).permute(0, 2, 4, 1, 5, 3)
    whole = split.reshape(k, c, taps_h * stride, taps_w * stride)
    return whole[:, :, :r, :s].contiguous(memory_format=format_of(problem.layout, 2))


def cycles(problem: ConvProblem) -> float:
    """What `Maps.make` is predicted to cost, on one thread."""
    return MOVED_CYCLES * math.prod(inner(problem).input_shape) if dense(problem) else 0.0
