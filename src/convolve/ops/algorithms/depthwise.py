"""Depthwise convolution by our own kernels: channels last in all three roles, and the weight gradient also channels first.

What the kernels do stands in convolve/kernels/depthwise.py; here a problem becomes their arguments. Channels first, output and
input gradient are the rows `depthwise_rows` and `planes`; the weight gradient is there for windows that `depthwise_rows` does not serve: it
is reproducible, which that of `weight_sums` is not.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from convolve.kernels import depthwise as kernels
from convolve.kernels.cache import Kernel, loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.ops import engine, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.ops.windows import format_of
from convolve.problem import DTYPE_BYTES, ROLES, ConvProblem

_SCRATCH_BYTES = 256 * 1024  # of each thread: a quarter or a half of the L2 cache
_MOST_SCRATCH = 8 << 20
_MOST_TAPS = 1 << 14
_SHARES = 8  # of the images, of a weight gradient with fewer channels than threads would like
_KEPT_BYTES = 128 * 1024  # of packed weights, up to which all chunks' are kept
_SUMS_BYTES = 32 * 1024  # of sums that pass together channels first
_SERIAL = 1 << 17  # multiply-adds below which a second thread costs more than it brings


def why_not(problem: ConvProblem) -> str | None:
    if problem.device != "cpu":
        return f"its kernels run on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernels are written for float32 and float64, not {problem.dtype}"
    if problem.groups != problem.channels or problem.groups == 1:
        return f"every channel must be a group of its own; here are {problem.channels} channels in {problem.groups}"
    multiplier = problem.filters // problem.channels
    last = problem.layout == "channels_last"
    if problem.role != "weight_gradient" and not last:
        return "channels first, the rows depthwise_rows and planes have their vectors along positions"
    if problem.axes == 3 or (last and problem.axes != 2):
        return f"its kernels have one axis channels first and two in both layouts; here are {problem.axes}"
    if last and multiplier > (1 if problem.role == "input_gradient" else 2):
        return f"channels last, its kernels have one filter for each channel, forward two; here are {multiplier}"
    if problem.taps > _MOST_TAPS:
        return f"its taps are listed, up to {_MOST_TAPS}; here are {problem.taps}"
    window = problem.as_convolution().window if problem.role != "weight_gradient" else problem.window
    if problem.role == "weight_gradient" and max(window.input_dilation) > 1:
        return "its weight gradient has no input dilation"
    if any(s > 1 and e > 1 for s, e in zip(window.stride, window.input_dilation, strict=True)):
        return "its kernels have a stride or an input dilation along an axis, not both"
    if _geometry(problem).scratch_bytes > _MOST_SCRATCH:
        return "a row of the input, padded, is too long for its scratch"
    return why_no_kernels()


@dataclass(frozen=True)
class _Geometry:
    """How the work is cut."""

    tile: int
    rows: int
    blocks: int
    block_inputs: int
    pitch: int
    scratch_size: int
    """Elements of one thread's copy of the input."""
    scratch_bytes: int
    group: int
    """Filters whose weight gradients pass together, channels first."""


@cache
def _geometry(problem: ConvProblem) -> _Geometry:
    _, height, width = positions.axes_of(_forward(problem))
    lanes, element = machine().lanes(problem.dtype), DTYPE_BYTES[problem.dtype]
    outputs_h = max(count for _, count, _ in height.phases)
    outputs_w = max(count for _, count, _ in width.phases)
    reach_h, reach_w = (axis.reach * axis.stride + axis.stride - 1 for axis in (height, width))
    channels_last = problem.layout == "channels_last"
    if problem.role == "weight_gradient":
        tiles = kernels.lanes_taps() if channels_last else kernels.rows_taps()
        tile = min(tiles, key=lambda tile: (-(-problem.taps // tile) * tile, -tile))
    else:
        tile = min(kernels.positions(), key=lambda tile: (-(-outputs_w // tile) * tile, -tile))
    if channels_last:
        columns = -(-outputs_w // tile) * tile if problem.role != "weight_gradient" else outputs_w
        pitch = (columns - 1) * width.stride + reach_w + 1
        row_size = (
            pitch * 2 * lanes * problem.channels // problem.filters
            if problem.role != "input_gradient"
            else pitch * 2 * lanes
        )
    else:
        pitch = outputs_w + width.reach
        row_size = pitch * width.stride
    rows = max(1, (_SCRATCH_BYTES // element // row_size - reach_h - 1) // height.stride + 1)
    rows = max(rows, (reach_h + 1) // 2)  # else a tall kernel's rows would be copied again and again
    blocks = -(-outputs_h // min(rows, outputs_h))
    rows = -(-outputs_h // blocks)
    block_inputs = (rows - 1) * height.stride + reach_h + 1
    size = block_inputs * row_size
    group = 1
    if not channels_last:  # whole phases; then the sums of every tap, a vector each
        room = (problem.taps + tile) * lanes
        group = max(1, min(_SUMS_BYTES // (room * element), problem.filters))
        size = -(-block_inputs // height.stride) * height.stride * row_size + group * room + 2 * lanes
    size = -(-size // 16) * 16
    return _Geometry(tile, rows, blocks, block_inputs, pitch, size, size * element, group)


def _forward(problem: ConvProblem) -> ConvProblem:
    """The plain convolution whose inputs the scratch holds: of a weight gradient, the forward one."""
    if problem.role != "weight_gradient":
        return problem.as_convolution()
    return replace(problem, role="output")


def _padded_taps(problem: ConvProblem, tile: int) -> int:
    return -(-problem.taps // tile) * tile


@dataclass(frozen=True)
class _Plan:
    """Everything about a call but the addresses."""

    problem: ConvProblem
    kernel: Kernel
    table: np.ndarray
    arguments: bytes
    result_strides: tuple[int, ...]
    sums_shape: tuple[int, ...]
    scratch_bytes: int
    threads: int


_PLANS: dict[tuple[object, ...], _Plan] = {}


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    threads = engine.thread_count() if problem.macs >= _SERIAL else 1
    if problem.layout == "channels_last":
        a = _innermost(a)
        b = _innermost(b) if problem.role == "weight_gradient" else b
    elif b.stride(-1) != 1:
        b = b.contiguous()
    key = (id(problem), a.stride(), b.stride(), threads)
    plan = _PLANS.get(key)
    if plan is None or plan.problem is not problem:
        make = _weight_plan if problem.role == "weight_gradient" else _lanes_plan
        plan = make(problem, a.stride(), b.stride(), threads)
        if len(_PLANS) > 4096:
            _PLANS.clear()
        _PLANS[key] = plan
    scratch, table = engine.scratch(plan.scratch_bytes), plan.table.ctypes.data
    if problem.role == "weight_gradient":
        sums = torch.empty(plan.sums_shape, dtype=a.dtype)
        pointers = struct.pack("5q", a.data_ptr(), b.data_ptr(), sums.data_ptr(), scratch, table)
        engine.run(_address(plan.kernel), pointers + plan.arguments, threads)
        return _weight(problem, sums)
    y = torch.empty_strided(problem.result_shape, plan.result_strides, dtype=a.dtype)
    if bias is not None and bias.stride(0) != 1:
        bias = bias.contiguous()
    bias_address = 0 if bias is None else bias.data_ptr()
    pointers = struct.pack("6q", a.data_ptr(), b.data_ptr(), bias_address, y.data_ptr(), scratch, table)
    engine.run(_address(plan.kernel), pointers + plan.arguments, threads)
    return y


@cache
def _address(kernel: Kernel) -> int:
    return loaded(kernel).address


def _innermost(x: Tensor) -> Tensor:
    """x with neighbouring channels next to each other."""
    return x if x.stride(1) == 1 else x.contiguous(memory_format=format_of("channels_last", x.dim() - 2))


def _weight(problem: ConvProblem, sums: Tensor) -> Tensor:
    """The gradient from the sums of each share."""
    whole = sums[0] if len(sums) == 1 else sums.sum(0)
    if problem.layout == "channels_last":  # [tap][filter]
        whole = whole[: problem.taps, : problem.filters].t()
    return whole.reshape(problem.weight_shape)


def _lanes_plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> _Plan:
    convolution = problem.as_convolution()
    _, height, width = positions.axes_of(convolution)
    cut = _geometry(problem)
    lanes = machine().lanes(problem.dtype)
    multiplier = convolution.filters // convolution.channels
    chunk = 2 * lanes // multiplier
    y = torch.empty(problem.result_shape, device="meta").to(memory_format=format_of("channels_last", 2)).stride()
    turned = problem.role == "input_gradient"
    parts = list(itertools.product(height.phases, width.phases))
    header: list[int] = []
    lists: list[list[int]] = []
    at, packed = len(parts) * len(kernels.PART), 0
    for (first_h, count_h, taps_h), (first_w, count_w, taps_w) in parts:
        offsets, sources = [], []
        for (t_h, phase_h, o_h), (t_w, phase_w, o_w) in itertools.product(taps_h, taps_w):
            place = (o_h * height.stride + phase_h) * cut.pitch + o_w * width.stride + phase_w
            offsets.append(place * chunk)
            taps = [k - 1 - t if turned else t for k, t in zip(problem.window.kernel, (t_h, t_w), strict=True)]
            sources.append(sum(t * stride for t, stride in zip(taps, b[2:], strict=True)))
        steps = len(height.phases) * y[2], len(width.phases) * y[3]
        origin = first_h * y[2] + first_w * y[3]
        header += [len(offsets), at, at + len(offsets), count_h, count_w, *steps, origin, packed]
        lists += [offsets, sources]
        at += 2 * len(offsets)
        packed += len(offsets) * 2 * lanes
    table = np.array([*header, *itertools.chain.from_iterable(lists)], np.int64)
    packed_size = packed + 3 * lanes
    chunks = -(-convolution.filters // (2 * lanes))
    kept = chunks if chunks * packed_size * DTYPE_BYTES[problem.dtype] <= _KEPT_BYTES else 1
    values = {
        "scratch_size": cut.scratch_size, "packed_size": packed_size,
        "batch": problem.batch, "channels": convolution.channels, "filters": convolution.filters,
        "x_n": a[0], "x_h": a[2], "x_w": a[3], "size_h": convolution.size[0], "size_w": convolution.size[1],
        "y_n": y[0], "w_k": b[0],
        "stride_h": height.stride, "stride_w": width.stride, "before_h": height.before, "before_w": width.before,
        "rows": cut.rows, "blocks": cut.blocks, "block_inputs": cut.block_inputs, "pitch": cut.pitch, "parts": len(parts),
        "kept": kept,
    }  # fmt: skip
    names = kernels.LANES_ARGUMENTS[6:]
    arguments = struct.pack(f"{len(names)}q", *(values[name] for name in names))
    scratch = (cut.scratch_size + kept * packed_size) * DTYPE_BYTES[problem.dtype] * threads
    return _Plan(
        problem,
        kernels.lanes(cut.tile, multiplier, width.stride == 1, problem.dtype),
        table,
        arguments,
        y,
        (),
        scratch,
        threads,
    )


def _weight_plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> _Plan:
    _, height, width = positions.axes_of(_forward(problem))
    cut = _geometry(problem)
    lanes, last = machine().lanes(problem.dtype), problem.layout == "channels_last"
    multiplier = problem.filters // problem.channels
    phase_rows = -(-cut.block_inputs // height.stride)
    offsets = []
    for (_, phase_h, o_h), (_, phase_w, o_w) in itertools.product(height.phases[0][2], width.phases[0][2]):
        if last:
            place = (o_h * height.stride + phase_h) * cut.pitch + o_w * width.stride + phase_w
            offsets.append(place * 2 * lanes // multiplier)
        else:
            offsets.append((phase_h * width.stride + phase_w) * phase_rows * cut.pitch + o_h * cut.pitch + o_w)
    taps = _padded_taps(problem, cut.tile)
    offsets += offsets[-1:] * (taps - len(offsets))  # the tile's last sums are computed again, and dropped
    chunks = -(-problem.filters // (2 * lanes)) if last else problem.filters
    # By the problem alone, so that the bits are the same for any number of threads.
    shares = min(_SHARES, problem.batch * cut.blocks) if chunks < _SHARES else 1
    room = chunks * 2 * lanes
    group = -(-chunks // (threads if shares == 1 else 1)) if last else min(cut.group, -(-problem.filters // threads))
    shape = (shares, taps, room) if last else (shares, problem.filters, problem.taps)
    (x_h, x_w), (g_h, g_w) = _two(a), _two(b)
    size, outputs = ((1, *numbers)[-2:] for numbers in (problem.size, problem.output_size))
    values = {
        "scratch_size": cut.scratch_size, "batch": problem.batch, "channels": problem.channels, "filters": problem.filters,
        "x_n": a[0], "x_c": a[1], "x_h": x_h, "x_w": x_w, "size_h": size[0], "size_w": size[1],
        "g_n": b[0], "g_k": b[1], "g_h": g_h, "g_w": g_w, "outputs_h": outputs[0], "outputs_w": outputs[1],
        "stride_h": height.stride, "stride_w": width.stride, "before_h": height.before, "before_w": width.before,
        "rows": cut.rows, "blocks": cut.blocks, "block_inputs": cut.block_inputs, "pitch": cut.pitch,
        "taps": taps if last else problem.taps, "shares": shares, "room": room, "group": group,
    }  # fmt: skip
    names = kernels.WEIGHT_ARGUMENTS[5:]
    arguments = struct.pack(f"{len(names)}q", *(values[name] for name in names))
    kernel = (
        kernels.lanes_weight(cut.tile, multiplier, problem.dtype)
        if last
        else kernels.rows_weight(cut.tile, problem.dtype)
    )
    table = np.array(offsets, np.int64)
    return _Plan(problem, kernel, table, arguments, (), shape, cut.scratch_bytes * threads, threads)


def _two(strides: tuple[int, ...]) -> tuple[int, int]:
    """The strides of a map's rows and columns; a sequence is one row."""
    height, width = (0, *strides[2:])[-2:]
    return height, width


def _cost(problem: ConvProblem) -> Cost:
    lanes = machine().lanes(problem.dtype)
    if problem.layout == "channels_last":
        used = problem.filters / (-(-problem.filters // (2 * lanes)) * 2 * lanes)
    else:
        width = problem.output_size[-1]
        used = width / (-(-width // lanes) * lanes)
    macs = problem.macs / used / lanes
    return Cost(1.2e-5 + macs * 1.4 / 3.2e9 + problem.bytes * 1.5e-10, 0)


ALGORITHM = Algorithm(
    name="depthwise",
    summary="our kernels, a channel in each lane; weight gradients in both layouts",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=ROLES,
    reproducible=True,
)
