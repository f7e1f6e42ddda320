"""Depthwise convolution channels first by our own kernels that read small square windows in place; image filters too.

What the kernels do stands in convolve/kernels/depthwise_rows.py; here a problem becomes their arguments. At stride 1 the input gradient is
the same sum with the window turned around: its weight is read backwards.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from convolve.kernels import depthwise_rows as kernels
from convolve.kernels.cache import Kernel, loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.ops import engine, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.problem import DTYPE_BYTES, ConvProblem

_SERIAL = 1 << 17  # multiply-adds below which a second thread costs more than it brings
_STREAMED_BYTES = 6 << 20  # results from here on are written past the caches
_WIDEST = 1 << 16


def why_not(problem: ConvProblem) -> str | None:
    if problem.device != "cpu":
        return f"its kernels run on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernels are written for float32 and float64, not {problem.dtype}"
    if problem.role == "weight_gradient":
        return "it computes outputs and input gradients"
    if problem.groups != problem.channels:
        return f"every channel must be a group of its own; here are {problem.channels} channels in {problem.groups} groups"
    if problem.layout != "channels_first" or problem.axes != 2:
        return "its kernels read maps of two axes, channels first"
    convolution = problem.as_convolution()
    if convolution.groups != convolution.channels:
        return "an input gradient by several filters for each channel is a sum of theirs"
    window = convolution.window
    if {*window.dilation, *window.input_dilation} != {1}:
        return "its kernels have no dilation, nor the gaps of a transposed stride"
    size, stride = {*window.kernel}, {*window.stride}
    if len(size) != 1 or len(stride) != 1 or (window.kernel[0], window.stride[0]) not in kernels.SERVED:
        served = ", ".join(f"{size}x{size} at stride {stride}" for size, stride in kernels.SERVED)
        return f"its kernels are those of {served}"
    rows = convolution.output_size[0] * window.stride[0] + window.kernel[0]
    if convolution.size[1] > _WIDEST or rows > _WIDEST:
        return f"its rows are listed, and one row of zeros is kept: up to {_WIDEST} of each"
    return why_no_kernels()


@dataclass(frozen=True)
class _Plan:
    """Everything about a call but the addresses."""

    problem: ConvProblem
    kernel: Kernel
    arguments: bytes
    result_strides: tuple[int, ...]
    weight_at: int
    """Bytes from the weight to its first tap."""
    scratch_bytes: int
    threads: int


_PLANS: dict[tuple[object, ...], _Plan] = {}


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    threads = engine.thread_count() if problem.macs >= _SERIAL else 1
    if a.stride(-1) != 1:
        a = a.contiguous()
    key = (id(problem), a.stride(), b.stride(), threads)
    plan = _PLANS.get(key)
    if plan is None or plan.problem is not problem:
        plan = _plan(problem, a.stride(), b.stride(), threads)
        if len(_PLANS) > 4096:
            _PLANS.clear()
        _PLANS[key] = plan
    y = torch.empty_strided(problem.result_shape, plan.result_strides, dtype=a.dtype)
    if bias is not None:
        bias = bias.contiguous()
    weight, bias_address = b.data_ptr() + plan.weight_at, 0 if bias is None else bias.data_ptr()
    pointers = struct.pack("5q", a.data_ptr(), weight, bias_address, y.data_ptr(), engine.scratch(plan.scratch_bytes))
    engine.run(_address(plan.kernel), pointers + plan.arguments, threads)
    return y


@cache
def _address(kernel: Kernel) -> int:
    return loaded(kernel).address


def _plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> _Plan:
    convolution = problem.as_convolution()
    window, element = convolution.window, DTYPE_BYTES[problem.dtype]
    (size_h, size_w), (outputs_h, outputs_w) = convolution.size, convolution.output_size
    kernel, stride = window.kernel[0], window.stride[0]
    (before_h, _), (before_w, _) = window.padding
    turned = problem.role == "input_gradient"
    w_h, w_w = (-b[2], -b[3]) if turned else (b[2], b[3])
    edges, inner_first, inner_last = _edges(problem)
    planes = problem.batch * convolution.filters
    blocks = 1 if threads == 1 or planes >= 3 * threads else min(outputs_h, -(-3 * threads // planes))
    block_rows = -(-outputs_h // blocks)
    rows = (outputs_h - 1) * stride + kernel
    scratch = -(-(8 * rows + size_w * element) // 64) * 64
    strides = positions.result_strides(problem)
    vector = machine().lanes(problem.dtype)
    streamed = math.prod(problem.result_shape) * element >= _STREAMED_BYTES and outputs_w % vector == 0
    values = {
        "scratch_bytes": scratch, "rows": rows,
        "batch": problem.batch, "filters": convolution.filters, "multiplier": convolution.filters // convolution.channels,
        "x_n": a[0], "x_c": a[1], "x_h": a[2], "size_h": size_h, "size_w": size_w,
        "outputs_h": outputs_h, "outputs_w": outputs_w,
        "w_k": b[0], "w_h": w_h, "w_w": w_w, "before_h": before_h, "before_w": before_w,
        "block_rows": block_rows, "blocks": -(-outputs_h // block_rows),
        "edges": edges, "inner_first": inner_first, "inner_last": inner_last, "streamed": int(streamed),
    }  # fmt: skip
    arguments = positions.as_bytes(kernels.ARGUMENTS[5:], values)
    first_tap = (kernel - 1) * (b[2] + b[3]) * element if turned else 0
    row = kernels.kernel(kernel, stride, problem.dtype)
    return _Plan(problem, row, arguments, strides, first_tap, scratch * threads, threads)


def _edges(problem: ConvProblem) -> tuple[int, int, int]:
    """How many vectors of results read beyond a side of the map or are not whole, and the columns between them."""
    convolution = problem.as_convolution()
    window, lanes = convolution.window, machine().lanes(problem.dtype)
    size, outputs, before = convolution.size[1], convolution.output_size[1], window.padding[1][0]
    kernel, stride = window.kernel[1], window.stride[1]
    first = max(-(-before // (stride * lanes)), 0) * lanes
    reach = kernel - 1 + stride * lanes - 1  # from the first input that a vector reads to the last
    last = (min(outputs - lanes, (size - 1 - reach + before) // stride) // lanes + 1) * lanes
    if last <= first:
        first = last = 0
    return -(-outputs // lanes) - (last - first) // lanes, first, last


def _cost(problem: ConvProblem) -> Cost:
    convolution = problem.as_convolution()
    outputs_h, outputs_w = convolution.output_size
    window, lanes = convolution.window, machine().lanes(problem.dtype)
    edges = _edges(problem)[0]
    vectors = outputs_h * (-(-outputs_w // lanes) + 0.5 * edges)
    cycles = vectors * (window.kernel[0] ** 2 + 8) * window.stride[0] + 60
    return Cost(8e-6 + problem.batch * convolution.filters * cycles / 3.2e9 + problem.bytes * 1e-10, 0)


ALGORITHM = Algorithm(
    name="depthwise_rows",
    summary="our kernels, small windows read in place, channels first: depthwise layers, image filters",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=("output", "input_gradient"),
    reproducible=True,
)
