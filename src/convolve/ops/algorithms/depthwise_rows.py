"""Depthwise convolution channels first by our own kernels that read small square windows in place; image filters too.

What the kernels do stands in convolve/kernels/depthwise_rows.py; here a problem becomes their arguments. At stride 1 the input gradient is
the same sum with the window turned around: its weight is read backwards.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from convolve.kernels import depthwise_rows as kernels
from convolve.kernels.cache import Kernel, loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.ops import engine, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.problem import DTYPE_BYTES, ROLES, ConvProblem

_SERIAL = 1 << 17  # multiply-adds below which a second thread costs more than it brings
_STREAMED_BYTES = 6 << 20  # results from here on are written past the caches
_WIDEST = 1 << 16
_SHARES = 8  # of the images and blocks, of a weight gradient with fewer filters than threads would like
_SHARE_ROWS = 32
_SUMS_BYTES = 32 * 1024  # of the sums of filters that pass together


def why_not(problem: ConvProblem) -> str | None:
    if problem.device != "cpu":
        return f"its kernels run on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernels are written for float32 and float64, not {problem.dtype}"
    if problem.groups != problem.channels:
        return f"every channel must be a group of its own; here are {problem.channels} channels in {problem.groups} groups"
    if problem.layout != "channels_first" or problem.axes != 2:
        return "its kernels read maps of two axes, channels first"
    convolution = _plain(problem)
    if convolution.groups != convolution.channels:
        return "an input gradient by several filters for each channel is a sum of theirs"
    window = convolution.window
    if {*window.dilation, *window.input_dilation} != {1}:
        return "its kernels have no dilation, nor the gaps of a transposed stride"
    size, stride = {*window.kernel}, {*window.stride}
    if len(size) != 1 or len(stride) != 1 or (window.kernel[0], window.stride[0]) not in kernels.SERVED:
        served = ", ".join(f"{size}x{size} at stride {stride}" for size, stride in kernels.SERVED)
        return f"its kernels are those of {served}"
    if problem.role == "weight_gradient" and window.kernel[0] != kernels.WEIGHT:
        return f"its weight gradients are those of {kernels.WEIGHT}x{kernels.WEIGHT} windows"
    rows = convolution.output_size[0] * window.stride[0] + window.kernel[0]
    if convolution.size[1] > _WIDEST or rows > _WIDEST:
        return f"its rows are listed, and one row of zeros is kept: up to {_WIDEST} of each"
    return why_no_kernels()


def _plain(problem: ConvProblem) -> ConvProblem:
    """The convolution whose input the kernel reads: of a weight gradient, the forward one."""
    return replace(problem, role="output") if problem.role == "weight_gradient" else problem.as_convolution()


@dataclass(frozen=True)
class _Plan:
    """Everything about a call but the addresses."""

    problem: ConvProblem
    kernel: int
    """Its address."""
    arguments: bytes
    result: tuple[int, ...]
    """The result's strides; of a weight gradient, the shape of the sums of all shares."""
    weight_at: int
    """Bytes from the weight to the tap that is read first."""
    scratch_bytes: int
    threads: int


_PLANS: dict[tuple[object, ...], _Plan] = {}
_POINTERS = {count: struct.Struct(f"{count}q") for count in (4, 5)}


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    threads = engine.thread_count() if problem.macs >= _SERIAL else 1
    if a.stride(-1) != 1:
        a = a.contiguous()
    sums = problem.role == "weight_gradient"
    if sums and b.stride(-1) != 1:
        b = b.contiguous()
    key = (id(problem), a.stride(), b.stride(), threads)
    plan = _PLANS.get(key)
    if plan is None or plan.problem is not problem:
        plan = (_weight_plan if sums else _plan)(problem, a.stride(), b.stride(), threads)
        if len(_PLANS) > 4096:
            _PLANS.clear()
        _PLANS[key] = plan
    scratch = engine.scratch(plan.scratch_bytes)
    if sums:
        shares = torch.empty(plan.result, dtype=a.dtype)
        pointers = _POINTERS[4].pack(a.data_ptr(), b.data_ptr(), shares.data_ptr(), scratch)
        engine.run(plan.kernel, pointers + plan.arguments, threads)
        return (shares[0] if len(shares) == 1 else shares.sum(0)).reshape(problem.weight_shape)
    y = torch.empty_strided(problem.result_shape, plan.result, dtype=a.dtype)
    if bias is not None:
        bias = bias.contiguous()
    bias_address = 0 if bias is None else bias.data_ptr()
    pointers = _POINTERS[5].pack(a.data_ptr(), b.data_ptr() + plan.weight_at, bias_address, y.data_ptr(), scratch)
    engine.run(plan.kernel, pointers + plan.arguments, threads)
    return y


@cache
def _address(kernel: Kernel) -> int:
    return loaded(kernel).address


def _plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> _Plan:
    convolution, element = _plain(problem), DTYPE_BYTES[problem.dtype]
    (kernel, _), (stride, _) = convolution.window.kernel, convolution.window.stride
    outputs_h, outputs_w = convolution.output_size
    turned = problem.role == "input_gradient"
    w_h, w_w = (-b[2], -b[3]) if turned else (b[2], b[3])
    planes = problem.batch * convolution.filters
    wanted = 1 if threads == 1 or planes >= 3 * threads else min(outputs_h, -(-3 * threads // planes))
    streamed = (
        math.prod(problem.result_shape) * element >= _STREAMED_BYTES and outputs_w % machine().lanes(problem.dtype) == 0
    )
    values = _common(convolution, a, -(-outputs_h // wanted))
    values |= {"w_k": b[0], "w_h": w_h, "w_w": w_w, "streamed": int(streamed)}
    return _Plan(
        problem,
        _address(kernels.kernel(kernel, stride, problem.dtype)),
        positions.as_bytes(kernels.ARGUMENTS[5:], values),
        positions.result_strides(problem),
        (kernel - 1) * (b[2] + b[3]) * element if turned else 0,
        values["scratch_bytes"] * threads,
        threads,
    )


def _weight_plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> _Plan:
    convolution = _plain(problem)
    filters, lanes, element = problem.filters, machine().lanes(problem.dtype), DTYPE_BYTES[problem.dtype]
    # By the problem alone, so that the bits are the same for any number of threads.
    few = filters < _SHARES
    values = _common(convolution, a, _SHARE_ROWS if few else convolution.output_size[0])
    shares = min(_SHARES, problem.batch * values["blocks"]) if few else 1
    a_filter = problem.taps * lanes * element
    group = max(1, min(_SUMS_BYTES // a_filter, -(-filters // threads)))
    values |= {
        "scratch_bytes": _whole(values["scratch_bytes"] + group * a_filter),
        "g_n": b[0], "g_k": b[1], "g_h": b[2],
        "shares": shares, "group": group,
    }  # fmt: skip
    kernel = _address(kernels.weight(convolution.window.stride[0], problem.dtype))
    arguments = positions.as_bytes(kernels.WEIGHT_ARGUMENTS[4:], values)
    shape = (shares, filters, problem.taps)
    return _Plan(problem, kernel, arguments, shape, 0, values["scratch_bytes"] * threads, threads)


def _common(convolution: ConvProblem, x: tuple[int, ...], block_rows: int) -> dict[str, int]:
    """The arguments that both kernels have, for an input whose strides are `x`."""
    (size_h, size_w), (outputs_h, outputs_w) = convolution.size, convolution.output_size
    (before_h, _), (before_w, _) = convolution.window.padding
    rows = (outputs_h - 1) * convolution.window.stride[0] + convolution.window.kernel[0]
    edges, inner_first, inner_last = _edges(convolution)
    return {
        "scratch_bytes": _whole(8 * rows + size_w * DTYPE_BYTES[convolution.dtype]), "rows": rows,
        "batch": convolution.batch, "filters": convolution.filters,
        "multiplier": convolution.filters // convolution.channels,
        "x_n": x[0], "x_c": x[1], "x_h": x[2], "size_h": size_h, "size_w": size_w,
        "outputs_h": outputs_h, "outputs_w": outputs_w, "before_h": before_h, "before_w": before_w,
        "block_rows": block_rows, "blocks": -(-outputs_h // block_rows),
        "edges": edges, "inner_first": inner_first, "inner_last": inner_last,
    }  # fmt: skip


def _whole(size: int) -> int:
    return -(-size // 64) * 64


def _edges(convolution: ConvProblem) -> tuple[int, int, int]:
    """How many vectors of outputs meet inputs beyond a side of the map or are not whole, and the columns between them."""
    window, lanes = convolution.window, machine().lanes(convolution.dtype)
    size, outputs, before = convolution.size[1], convolution.output_size[1], window.padding[1][0]
    kernel, stride = window.kernel[1], window.stride[1]
    first = max(-(-before // (stride * lanes)), 0) * lanes
    reach = kernel - 1 + stride * lanes - 1  # from the first input that a vector meets to the last
    last = (min(outputs - lanes, (size - 1 - reach + before) // stride) // lanes + 1) * lanes
    if last <= first:
        first = last = 0
    return -(-outputs // lanes) - (last - first) // lanes, first, last


def _cost(problem: ConvProblem) -> Cost:
    if problem.macs == 0:
        return Cost(0.0, 0)
    convolution = _plain(problem)
    outputs_h, outputs_w = convolution.output_size
    window, lanes = convolution.window, machine().lanes(problem.dtype)
    edges = _edges(convolution)[0]
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
    roles=ROLES,
    reproducible=True,
)
