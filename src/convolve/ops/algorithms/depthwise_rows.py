"""Depthwise convolution channels first by our own kernels that read small square windows in place; image filters too.

What the kernels do stands in convolve/kernels/depthwise_rows.py; here a problem becomes their arguments. At stride 1 the input gradient is
the same sum with the window turned around: its weight is read backwards.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from convolve.kernels import depthwise_rows as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.ops import direct_call, engine, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.problem import DTYPE_BYTES, ROLES, ConvProblem

_SERIAL = 1 << 17  # multiply-adds below which a second thread costs more than it brings
_LONGEST = 1 << 16
_APART = 128
_SHARES = 8  # of the images and blocks, of a weight gradient with fewer filters than threads would like
_SHARE_ROWS = 32
_SUMS_BYTES = 32 * 1024  # of the sums of filters that pass together


def why_not(problem: ConvProblem) -> str | None:
    if problem.device != "cpu":
        return f"its kernels run on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernels are written for float32 and float64, not {problem.dtype}"
    if problem.groups != problem.channels:
        return (
            f"every channel must be a group of its own; here are {problem.channels} channels in {problem.groups} groups"
        )
    if problem.layout != "channels_first" or problem.axes != 2:
        return "its kernels read maps of two axes, channels first"
    if problem.role == "input_gradient" and problem.filters != problem.channels:
        return "an input gradient by several filters for each channel is a sum of theirs"
    if max(*problem.size, *problem.output_size) > _LONGEST:
        return f"its rows are listed, and a row of zeros is kept: up to {_LONGEST} of them, and that long"
    return _why_not_window(problem) or why_no_kernels()


def _why_not_window(problem: ConvProblem) -> str | None:
    window = problem.window
    if {*window.dilation, *window.input_dilation} != {1}:
        return "its kernels have no dilation, and no stride but their own"
    (kernel, *other), (stride, *others) = window.kernel, window.stride
    served = [(size, 2) for size in kernels.SPREAD]
    if problem.role == "output":
        served = list(kernels.SERVED)
    elif problem.role == "weight_gradient":
        served = [pair for pair in kernels.SERVED if pair[0] == kernels.WEIGHT]
    else:
        served += [pair for pair in kernels.SERVED if pair[1] == 1]
    if other != [kernel] or others != [stride] or (kernel, stride) not in served:
        words = ", ".join(f"{size}x{size} at stride {step}" for size, step in sorted(served))
        return f"its kernels for this role are those of {words}"
    if _spreads(problem) and any(before % 2 != kernel // 2 % 2 for before, _ in window.padding):
        padding = "an odd" if kernel // 2 % 2 else "an even"
        return f"at stride 2 it computes input gradients of {kernel}x{kernel} windows with {padding} padding"
    return None


def _spreads(problem: ConvProblem) -> bool:
    """Whether it is an input gradient at stride 2, which has kernels of its own."""
    return problem.role == "input_gradient" and problem.window.stride[0] > 1


@dataclass(frozen=True)
class _Plan:
    """Everything about a call but the addresses."""

    problem: ConvProblem
    kernel: int
    """The address of its entry."""
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


def _plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> _Plan:
    element = DTYPE_BYTES[problem.dtype]
    maps = _maps(problem)
    rows, planes = maps.positions[0], problem.batch * maps.filters
    blocks = 1 if threads == 1 or planes >= 3 * threads else min(rows, -(-3 * threads // planes))
    streamed = direct_call.streams(problem, -1)
    (size, _), (stride, _) = problem.window.kernel, problem.window.stride
    values = _common(problem, maps, a, -(-rows // blocks))
    values |= {"w_k": b[0], "w_h": b[2], "w_w": b[3], "streamed": int(streamed)}
    first_tap = 0
    if problem.role == "input_gradient" and not _spreads(problem):  # the window turned around
        first_tap = (size - 1) * (b[2] + b[3]) * element
        values |= {"w_h": -b[2], "w_w": -b[3]}
    kernel = kernels.spread(size, problem.dtype) if _spreads(problem) else kernels.kernel(size, stride, problem.dtype)
    arguments, scratch = positions.as_bytes(kernels.ARGUMENTS[5:], values), values["scratch_bytes"] * threads
    strides = positions.result_strides(problem)
    return _Plan(problem, loaded(kernel).address, arguments, strides, first_tap, scratch, threads)


def _weight_plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> _Plan:
    maps, filters = _maps(problem), problem.filters
    # By the problem alone, so that the bits are the same for any number of threads.
    few = filters < _SHARES
    values = _common(problem, maps, a, _SHARE_ROWS if few else maps.positions[0])
    shares = min(_SHARES, problem.batch * values["blocks"]) if few else 1
    a_filter = problem.taps * machine().lanes(problem.dtype) * DTYPE_BYTES[problem.dtype]
    group = max(1, min(_SUMS_BYTES // a_filter, -(-filters // threads)))
    scratch = values["scratch_bytes"] + -(-group * a_filter // 64) * 64
    values |= {"scratch_bytes": scratch, "g_n": b[0], "g_k": b[1], "g_h": b[2], "shares": shares, "group": group}
    address = loaded(kernels.weight(problem.window.stride[0], problem.dtype)).address
    arguments = positions.as_bytes(kernels.WEIGHT_ARGUMENTS[4:], values)
    return _Plan(problem, address, arguments, (shares, filters, problem.taps), 0, scratch * threads, threads)


class _Maps(NamedTuple):
    """What is read and written, as the kernels see it; both axes in turn."""

    channels: int
    filters: int
    size: tuple[int, ...]
    outputs: tuple[int, ...]
    positions: tuple[int, ...]
    """Of the outputs; at stride 2 those of an input gradient go in pairs."""
    before: tuple[int, ...]
    """How far before a position's own place its first input lies."""
    window: int
    """Inputs that one position meets."""
    stride: int


@lru_cache(maxsize=4096)
def _maps(problem: ConvProblem) -> _Maps:
    if _spreads(problem):
        (size, _), befores = problem.window.kernel, problem.window.padding
        first, _ = kernels.met(size)
        pairs = tuple(-(-n // 2) for n in problem.size)
        before = tuple(-(p // 2 + first) for p, _ in befores)
        sizes = problem.output_size, problem.size, pairs
        return _Maps(problem.filters, problem.channels, *sizes, before, kernels.reach(size), 1)
    # Of a weight gradient, the forward convolution.
    plain = replace(problem, role="output") if problem.role == "weight_gradient" else problem.as_convolution()
    before = tuple(p for p, _ in plain.window.padding)
    outputs, (size, _), (stride, _) = plain.output_size, plain.window.kernel, plain.window.stride
    return _Maps(plain.channels, plain.filters, plain.size, outputs, outputs, before, size, stride)


def _common(problem: ConvProblem, maps: _Maps, x: tuple[int, ...], block_rows: int) -> dict[str, int]:
    """The arguments that all kernels have, for an input whose strides are `x`."""
    rows = (maps.positions[0] - 1) * maps.stride + maps.window
    edges, inner_first, inner_last = _edges(problem.dtype, maps)
    return {
        "scratch_bytes": _apart(8 * rows + maps.size[1] * DTYPE_BYTES[problem.dtype]), "rows": rows,
        "batch": problem.batch, "filters": maps.filters, "multiplier": maps.filters // maps.channels,
        "x_n": x[0], "x_c": x[1], "x_h": x[2], "size_h": maps.size[0], "size_w": maps.size[1],
        "outputs_h": maps.outputs[0], "outputs_w": maps.outputs[1], "before_h": maps.before[0], "before_w": maps.before[1],
        "block_rows": block_rows, "blocks": -(-maps.positions[0] // block_rows),
        "edges": edges, "inner_first": inner_first, "inner_last": inner_last,
    }  # fmt: skip


def _apart(size: int) -> int:
    """Bytes of one thread's memory: what a vector of zeros reads behind it must not be written by the next thread."""
    return -(-size // 64) * 64 + _APART


def _edges(dtype: str, maps: _Maps) -> tuple[int, int, int]:
    """How many vectors of positions meet inputs beyond a side of the map or are not whole, and the positions between them."""
    lanes, before, count = machine().lanes(dtype), maps.before[1], maps.positions[1]
    first = max(-(-before // (maps.stride * lanes)), 0) * lanes
    reach = maps.window - 1 + maps.stride * lanes - 1  # from the first input that a vector meets to the last
    whole = maps.outputs[1] // (2 if maps.outputs[1] > count else 1)  # positions all of whose outputs there are
    last = (min(whole - lanes, (maps.size[1] - 1 - reach + before) // maps.stride) // lanes + 1) * lanes
    if last <= first:
        first = last = 0
    return -(-count // lanes) - (last - first) // lanes, first, last


def _cost(problem: ConvProblem) -> Cost:
    if problem.macs == 0 or 0 in problem.result_shape:
        return Cost(0.0, 0)
    maps, lanes = _maps(problem), machine().lanes(problem.dtype)
    rows, columns = maps.positions
    taps = math.prod(problem.window.kernel)
    a_vector = taps * (1.1 if problem.window.stride[0] == 1 else 2.2) + 4
    cycles = rows * (-(-columns // lanes) * a_vector + 4 * _edges(problem.dtype, maps)[0]) + 4 * taps
    return Cost(8e-6 + problem.batch * maps.filters * cycles / 3.2e9 + problem.bytes * 1e-11, 0)


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
