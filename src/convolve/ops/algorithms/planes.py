"""Direct convolution by our own kernel whose vectors run along positions: few channels, any window, one to three axes.

What the kernel does stands in convolve/kernels/planes.py; here a problem becomes its arguments. Output and input gradient are one
kernel, since the input gradient is a convolution whose weight is read from other places.
"""

from __future__ import annotations

import itertools
import math
import struct
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convolve.kernels import planes as kernel
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import engine
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.ops.windows import format_of
from convolve.problem import DTYPE_BYTES, ConvProblem, Role

ROLES: tuple[Role, ...] = ("output", "input_gradient")
_SCRATCH_BYTES = 192 * 1024  # of each thread: half of a usual L2 cache
_MOST_SCRATCH = 4 << 20
_MOST_TAPS = 1 << 16
_MOST_PARTS = 64


def why_not(problem: ConvProblem) -> str | None:
    if problem.device != "cpu":
        return f"its kernel runs on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernel is written for float32 and float64, not {problem.dtype}"
    convolution = problem.as_convolution()
    window = convolution.window
    if any(s > 1 and e > 1 for s, e in zip(window.stride, window.input_dilation, strict=True)):
        return "its kernel has a stride or an input dilation along an axis, not both"
    if math.prod(window.input_dilation) > _MOST_PARTS:
        return f"its phases are written out, up to {_MOST_PARTS}"
    if convolution.taps > _MOST_TAPS:
        return f"its taps are listed, up to {_MOST_TAPS}; here are {convolution.taps}"
    return engine.why_no_engine()


class _Axis(NamedTuple):
    """One axis of the scratch: how its positions map to inputs, and the taps of each output phase."""

    stride: int
    before: int
    phases: tuple[tuple[int, int, tuple[tuple[int, int, int], ...]], ...]
    """(first output, number of outputs, taps as (tap, phase of the scratch, offset within the phase))."""
    reach: int
    """Positions beyond the first that a tap may lie from its output."""


def _axis(n: int, m: int, k: int, s: int, before: int, d: int, e: int) -> _Axis:
    if e == 1:
        taps = tuple((t, t * d % s, t * d // s) for t in range(k))
        return _Axis(s, before, ((0, m, taps),), (k - 1) * d // s)
    # Output e j + phase meets tap t where e divides phase + t d - before, at input j + (phase + t d - before) / e.
    least, reach, found = -before // e, 0, []
    for phase in range(min(e, m)):
        taps = tuple(
            (t, 0, (phase + t * d - before) // e - least) for t in range(k) if (phase + t * d - before) % e == 0
        )
        reach = max([reach, *(offset for _, _, offset in taps)])
        found.append((phase, (m - phase + e - 1) // e, taps))
    return _Axis(1, -least, tuple(found), reach)


@dataclass(frozen=True)
class _Plan:
    """Everything about a call but the addresses."""

    problem: ConvProblem
    tile: int
    width: int
    table: np.ndarray  # type: ignore[type-arg]
    arguments: bytes
    """The kernel's arguments after the six addresses."""
    result_strides: tuple[int, ...]
    scratch_bytes: int
    threads: int


_PLANS: dict[tuple[object, ...], _Plan] = {}
_POINTERS = struct.Struct("6q")


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    threads = engine.thread_count()
    key = (id(problem), a.stride(), b.stride(), threads)
    plan = _PLANS.get(key)
    if plan is None or plan.problem is not problem:
        plan = _plan(problem, a.stride(), b.stride(), threads)
        if len(_PLANS) > 4096:
            _PLANS.clear()
        _PLANS[key] = plan
    y = torch.empty_strided(problem.result_shape, plan.result_strides, dtype=a.dtype)
    if bias is not None and bias.stride(0) != 1:
        bias = bias.contiguous()
    pointers = _POINTERS.pack(
        a.data_ptr(),
        b.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        engine.scratch(plan.scratch_bytes),
        plan.table.ctypes.data,
    )
    engine.run(_kernel(plan.tile, plan.width, problem.dtype), pointers + plan.arguments, threads)
    return y


@cache
def _kernel(tile: int, width: int, dtype: str) -> int:
    """The address of the kernel of this register tile, compiled where this machine has not met it."""
    return loaded(kernel.kernel(tile, width, dtype)).address


def _lifted(values: tuple[int, ...], filler: int) -> tuple[int, int, int]:
    """Three axes from one to three: depth and height of a sequence are 1."""
    one, two, three = (filler,) * (3 - len(values)) + values
    return one, two, three


def _axes(problem: ConvProblem) -> tuple[_Axis, _Axis, _Axis]:
    convolution = problem.as_convolution()
    window = convolution.window
    befores = tuple(before for before, _ in window.padding)
    fields = (convolution.size, convolution.output_size, window.kernel, window.stride)
    columns = [_lifted(field, 1) for field in fields]
    columns += [_lifted(befores, 0), _lifted(window.dilation, 1), _lifted(window.input_dilation, 1)]
    depth, height, width = (_axis(*numbers) for numbers in zip(*columns, strict=True))
    return depth, height, width


class _Blocks(NamedTuple):
    """How the work is cut, and what it is predicted to cost."""

    tile: int
    width: int
    rows: int
    columns: int
    direct: bool
    chunks: int
    cycles: float
    """Of all threads together."""


def _plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> _Plan:
    """The plan for operands of these strides."""
    convolution = problem.as_convolution()
    depth, height, width = axes = _axes(problem)
    blocks = _blocks(problem, threads)
    channels, filters = convolution.channels // convolution.groups, convolution.filters // convolution.groups
    parts = [combination for combination in itertools.product(*(axis.phases for axis in axes))]
    size = _lifted(convolution.size, 1)
    outputs = _lifted(convolution.output_size, 1)
    positions = [max(count for _, count, _ in axis.phases) for axis in axes]
    rows, columns = blocks.rows, blocks.columns
    phase_rows, pitch = rows + height.reach, columns + width.reach
    # The depth has no phases in the scratch: every slice that an output slice reads lies there, in the order of the taps.
    forward = _lifted(convolution.window.input_dilation, 1)[0] == 1
    dilation = _lifted(convolution.window.dilation, 1)[0]
    slices, slice_step = (_lifted(convolution.window.kernel, 1)[0], dilation) if forward else (depth.reach + 1, 1)
    phase_size = phase_rows * pitch
    slice_size = height.stride * width.stride * phase_size

    last = format_of(problem.layout, problem.axes)
    y = torch.empty(problem.result_shape, device="meta").to(memory_format=last).stride()
    x_strides, y_strides = _lifted(a[2:], 0), _lifted(y[2:], 0)
    # The weight as the convolution reads it: (filter, channel, taps); a gradient reads it flipped, with the two swapped.
    turned = problem.role == "input_gradient"
    w_filter, w_channel = (b[1], b[0]) if turned else (b[0], b[1])
    w_group = b[0] * (problem.filters // problem.groups)
    w_taps, kernel_size = _lifted(b[2:], 0), _lifted(problem.window.kernel, 1)

    header: list[int] = []
    lists: list[np.ndarray] = []  # type: ignore[type-arg]
    at, packed = len(parts) * len(kernel.PART), 0
    tiles = -(-filters // blocks.tile)
    for combination in parts:
        (first_d, count_d, taps_d), (first_h, count_h, taps_h), (first_w, count_w, taps_w) = combination
        offsets, sources = [], []
        for (t_d, phase_d, o_d), (t_h, phase_h, o_h), (t_w, phase_w, o_w) in itertools.product(taps_d, taps_h, taps_w):
            slice_ = t_d if forward else o_d
            del phase_d
            offsets.append(slice_ * slice_size + (phase_h * width.stride + phase_w) * phase_size + o_h * pitch + o_w)
            taps = [k - 1 - t if turned else t for k, t in zip(kernel_size, (t_d, t_h, t_w), strict=True)]
            sources.append(sum(t * stride for t, stride in zip(taps, w_taps, strict=True)))
        c = np.arange(channels, dtype=np.int64)[:, None]
        flat_offsets = (c * slices * slice_size + np.array(offsets, np.int64)[None]).ravel()
        flat_sources = (c * w_channel + np.array(sources, np.int64)[None]).ravel()
        count = len(flat_offsets)
        steps = [len(axis.phases) for axis in axes]
        origin = first_d * y_strides[0] + first_h * y_strides[1] + first_w * y_strides[2]
        header += [count, at, at + count, count_d, count_h, count_w]
        header += [step * stride for step, stride in zip(steps, y_strides, strict=True)]
        header += [origin, packed]
        lists += [flat_offsets, flat_sources]
        at += 2 * count
        packed += tiles * blocks.tile * count
    table = np.concatenate([np.array(header, np.int64), *lists])

    reach = blocks.width * machine().lanes(problem.dtype)
    flat = -(-((rows - 1) * pitch + columns) // reach) * reach
    per_thread = {
        "scratch_size": _aligned(channels * slices * slice_size + 2 * reach),
        "flat_size": _aligned(flat) * blocks.tile,
        "packed_size": _aligned(packed + tiles * blocks.tile),
    }
    values = {
        **per_thread,
        "batch": problem.batch, "groups": problem.groups, "channels": channels, "filters": filters,
        "x_n": a[0], "x_c": a[1], "x_d": x_strides[0], "x_h": x_strides[1], "x_w": x_strides[2],
        "size_d": size[0], "size_h": size[1], "size_w": size[2],
        "y_n": y[0], "y_k": y[1], "w_g": w_group, "w_k": w_filter,
        "stride_d": depth.stride, "stride_h": height.stride, "stride_w": width.stride,
        "before_d": depth.before, "before_h": height.before, "before_w": width.before,
        "slices": slices, "slice_step": slice_step, "positions_d": positions[0],
        "rows": rows, "columns": columns, "phase_rows": phase_rows, "pitch": pitch,
        "blocks_h": -(-positions[1] // rows), "blocks_w": -(-positions[2] // columns), "chunks": blocks.chunks,
        "direct": int(blocks.direct), "parts": len(parts),
    }  # fmt: skip
    del outputs
    arguments = struct.pack(f"{len(kernel.ARGUMENTS) - 6}q", *(values[name] for name in kernel.ARGUMENTS[6:]))
    scratch_bytes = sum(per_thread.values()) * DTYPE_BYTES[problem.dtype] * threads
    return _Plan(problem, blocks.tile, blocks.width, table, arguments, y, scratch_bytes, threads)


def _aligned(elements: int) -> int:
    return -(-elements // 16) * 16


def _blocks(problem: ConvProblem, threads: int) -> _Blocks:
    """The cheapest way to cut the work, by a count of vector instructions."""
    convolution = problem.as_convolution()
    depth, height, width = axes = _axes(problem)
    lanes, element = machine().lanes(problem.dtype), DTYPE_BYTES[problem.dtype]
    channels, filters = convolution.channels // convolution.groups, convolution.filters // convolution.groups
    positions = [max(count for _, count, _ in axis.phases) for axis in axes]
    parts = math.prod(len(axis.phases) for axis in axes)
    taps = convolution.taps / parts
    slices = depth.reach + 1 if depth.stride == 1 else len(depth.phases[0][2])
    planes = channels * slices * height.stride * width.stride
    innermost = problem.layout == "channels_first" or problem.axes == 1
    outer = problem.batch * problem.groups * positions[0]
    best: _Blocks | None = None
    for tile, vectors in kernel.tiles():
        reach = vectors * lanes
        # Columns: whole rows, unless even one does not fit into the scratch.
        room = _SCRATCH_BYTES // element
        columns = min(positions[2], max(reach, room // (planes * (1 + height.reach)) - width.reach))
        columns = positions[2] if columns >= positions[2] else max(reach, columns // reach * reach)
        pitch = columns + width.reach
        rows = min(positions[1], max(1, room // (planes * pitch) - height.reach), max(1, room // (tile * pitch)))
        tiles = -(-filters // tile)
        wanted = 3 * threads if threads > 1 else 1
        blocks_w = -(-positions[2] // columns)
        if outer * blocks_w * -(-positions[1] // rows) < wanted:
            rows = min(rows, max(1, -(-positions[1] * outer * blocks_w // wanted)))
        blocks_h = -(-positions[1] // rows)
        rows = -(-positions[1] // blocks_h)  # as equal as can be
        tasks = outer * blocks_w * blocks_h
        chunks = min(tiles, -(-threads // tasks)) if tasks < threads else 1
        if blocks_w == 1 and tasks * chunks < threads and positions[2] > reach:
            columns = -(-positions[2] // (wanted * reach)) * reach
            blocks_w = -(-positions[2] // columns)
            pitch, tasks = columns + width.reach, outer * blocks_w * blocks_h
        direct = innermost and parts == 1 and columns >= 2 * reach
        passes = rows * -(-columns // reach) if direct else -(-((rows - 1) * pitch + columns) // reach)
        per_tap = max(tile * vectors, vectors + tile + 1) + 0.5
        out = tile * vectors * (1.5 if direct else 4 if innermost else 3 + 1.5 * lanes)
        fill = planes * (rows + height.reach) * pitch * (2.0 / lanes if width.stride == 1 and innermost else 1.5)
        work = parts * tiles * passes * (taps * per_tap + out + 10) + chunks * fill
        packing = 2.0 * convolution.taps * tiles * tile * min(problem.groups * chunks, tasks)
        cycles = tasks * work + packing
        if best is None or cycles < best.cycles:
            best = _Blocks(tile, vectors, rows, columns, direct, chunks, cycles)
    assert best is not None
    return best


def _cost(problem: ConvProblem) -> Cost:
    blocks = _blocks(problem, 1)
    return Cost(8e-6 + blocks.cycles / 3.2e9 + problem.bytes * 1e-10, 0)


ALGORITHM = Algorithm(
    name="planes",
    summary="our kernel, vectors along positions: few channels, any window",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=ROLES,
    reproducible=True,
)
