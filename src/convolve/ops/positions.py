"""What the direct kernels are told about a problem: how its inputs lie in the padded scratch, and where each tap reads.

The order of the scratch stands in convolve/kernels/scratch.py. Everything here is computed once per problem and layout.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from convolve.kernels.machine import machine, why_no_kernels
from convolve.kernels.scratch import PART
from convolve.ops.algorithm import Cost
from convolve.ops.windows import format_of
from convolve.problem import DTYPE_BYTES, ConvProblem

_MOST_TAPS = 1 << 16
_MOST_PARTS = 64
_SCRATCH_BYTES = 192 * 1024
A_ROW, A_TASK = 15, 200  # cycles to begin a row of a copy, and a task
Three = tuple[int, int, int]


class Tap(NamedTuple):
    tap: int
    phase: int
    """The phase of the scratch that it reads (always 0 along the depth)."""
    offset: int
    """How far beyond its output's own place it reads: in that phase, or in slices along the depth."""


class Phase(NamedTuple):
    """Every `step`-th output from `first` on, and the taps that these outputs meet."""

    first: int
    outputs: int
    taps: tuple[Tap, ...]


class Axis(NamedTuple):
    """One axis of a convolution over the scratch."""

    stride: int
    before: int
    phases: tuple[Phase, ...]
    reach: int
    """The largest offset of a tap."""
    slice_step: int
    """Along the depth: the distance of neighbouring slices of the scratch in the input."""

    @property
    def outputs(self) -> int:
        """Outputs of the largest phase."""
        return max(phase.outputs for phase in self.phases)


def why_not_forward(problem: ConvProblem) -> str | None:
    """Why a kernel of outputs and input gradients cannot serve a problem, or None."""
    if problem.role == "weight_gradient":
        return "it computes outputs and input gradients"
    return why_not(problem.as_convolution())


def why_not(problem: ConvProblem) -> str | None:
    """Why the direct kernels cannot serve a problem (as a plain convolution), or None."""
    if problem.device != "cpu":
        return f"its kernel runs on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernel is written for float32 and float64, not {problem.dtype}"
    window = problem.window
    if any(s > 1 and e > 1 for s, e in zip(window.stride, window.input_dilation, strict=True)):
        return "its kernel has a stride or an input dilation along an axis, not both"
    if math.prod(window.input_dilation) > _MOST_PARTS:
        return f"its phases are listed one by one, up to {_MOST_PARTS}"
    if problem.taps > _MOST_TAPS:
        return f"its taps are listed one by one, up to {_MOST_TAPS}; here are {problem.taps}"
    return why_no_kernels()


def axes_of(problem: ConvProblem) -> tuple[Axis, Axis, Axis]:
    """Depth, height and width of a plain convolution; a sequence has depth and height 1."""
    window = problem.window
    befores = tuple(before for before, _ in window.padding)
    fields = (problem.output_size, window.kernel, window.stride, befores, window.dilation, window.input_dilation)
    columns = [lifted(field, 0 if field is befores else 1) for field in fields]
    depth, height, width = (_axis(*numbers, depth=i == 0) for i, numbers in enumerate(zip(*columns, strict=True)))
    return depth, height, width


def _axis(m: int, k: int, s: int, before: int, d: int, e: int, *, depth: bool) -> Axis:
    if e == 1 and depth:  # the scratch holds the slices of one output slice: no phases
        return Axis(s, before, (Phase(0, m, tuple(Tap(t, 0, t) for t in range(k))),), k - 1, d)
    if e == 1:
        taps = tuple(Tap(t, t * d % s, t * d // s) for t in range(k))
        return Axis(s, before, (Phase(0, m, taps),), (k - 1) * d // s, 1)
    # Output e j + first meets tap t where e divides first + t d - before, at input j + (first + t d - before) / e.
    least, reach, phases = -before // e, 0, []
    for first in range(min(e, m)):
        met = [(t, first + t * d - before) for t in range(k) if (first + t * d - before) % e == 0]
        taps = tuple(Tap(t, 0, place // e - least) for t, place in met)
        reach = max([reach, *(tap.offset for tap in taps)])
        phases.append(Phase(first, (m - first + e - 1) // e, taps))
    return Axis(1, -least, tuple(phases), reach, 1)


def lifted(values: Sequence[int], filler: int) -> Three:
    """One entry for depth, height and width each."""
    depth, height, width = (filler,) * (3 - len(values)) + tuple(values)
    return depth, height, width


def result_strides(problem: ConvProblem) -> tuple[int, ...]:
    """The strides of the role's result in the problem's layout."""
    memory_format = format_of(problem.layout, problem.axes)
    return torch.empty(problem.result_shape, device="meta").contiguous(memory_format=memory_format).stride()


def aligned(elements: int) -> int:
    """Rounded up, so that what lies behind begins at a full vector."""
    return -(-elements // 16) * 16


@dataclass(frozen=True)
class Blocks:
    """How the work is cut: a register tile, the outputs of a block, shares of the filters; and what it should cost."""

    tile: int
    width: int
    rows: int
    columns: int
    chunks: int
    across: int
    """Vectors of a tile in one row of the result; 0: by way of a buffer."""
    cycles: float
    """Of all threads together."""


class Work(NamedTuple):
    """A plain convolution as the ways to cut its work see it."""

    axes: tuple[Axis, Axis, Axis]
    lanes: int
    channels: int
    """Of one group, as `filters`."""
    filters: int
    planes: int
    """Maps of the scratch, phases included."""
    parts: int
    taps: float
    """Of one part, on average."""
    outer: int
    """Independent maps: images, groups and slices."""
    in_order: bool
    """Neighbours along the width are neighbours in memory."""


def work_of(problem: ConvProblem) -> Work:
    axes = depth, height, width = axes_of(problem)
    channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
    parts = math.prod(len(axis.phases) for axis in axes)
    return Work(
        axes,
        machine().lanes(problem.dtype),
        channels,
        filters,
        channels * (depth.reach + 1) * height.stride * width.stride,
        parts,
        problem.taps / parts,
        problem.batch * problem.groups * depth.outputs,
        problem.layout == "channels_first" or problem.axes == 1,
    )


def room_of(problem: ConvProblem) -> int:
    """Elements that the scratch of a block should hold at most: part of a usual L2 cache."""
    return _SCRATCH_BYTES // DTYPE_BYTES[problem.dtype]


def cost(problem: ConvProblem, cycles: Callable[[ConvProblem], float]) -> Cost:
    """What a kernel should cost that takes `cycles` on one thread; nothing where nothing is summed."""
    if problem.macs == 0 or 0 in problem.result_shape:
        return Cost(0.0, 0)
    return Cost(8e-6 + cycles(problem) / 3.2e9 + problem.bytes * 1e-10, 0)


def equal_blocks(axes: Sequence[Axis], planes: int, room: int, unit: int, outer: int, threads: int) -> tuple[int, int]:
    """(rows, columns) of the outputs of a block: its input fits into `room` elements, and every thread has work.

    planes: maps of the scratch, phases included. unit: columns are cut at multiples of this only. outer: independent maps.
    """
    _, height, width = axes
    columns = width.outputs
    widest = room // (planes * (1 + height.reach)) - width.reach
    if columns > max(widest, unit):
        columns = max(unit, widest // unit * unit)
    wanted = 3 * threads if threads > 1 else 1
    if height.outputs == 1 and outer * -(-width.outputs // columns) < wanted:
        columns = min(columns, max(unit, -(-width.outputs * outer // wanted // unit) * unit))
    blocks_w = -(-width.outputs // columns)
    rows = max(1, min(height.outputs, room // (planes * (columns + width.reach)) - height.reach))
    if outer * blocks_w * -(-height.outputs // rows) < wanted:
        rows = max(1, min(rows, height.outputs * outer * blocks_w // wanted))
    fewest = -(-height.outputs // rows)
    equal = (-(-height.outputs // number) for number in range(fewest, 2 * fewest))  # as equal as can be
    shared = (some for some in equal if outer * blocks_w * -(-height.outputs // some) % threads == 0)  # by all threads
    return next(shared, -(-height.outputs // fewest)), columns


def fill_cycles(axes: Sequence[Axis], channels: int, rows: int, columns: int, lanes: int, in_order: bool) -> float:
    """What it should cost to fill the scratch of a block: a row at a time, in vectors where the input lies so."""
    depth, height, width = axes
    planes = channels * (depth.reach + 1) * height.stride * width.stride
    a_row = (columns + width.reach) * (2.0 / lanes if width.stride == 1 and in_order else 1.5) + A_ROW
    return planes * (rows + height.reach) * a_row + A_TASK


def arguments(
    problem: ConvProblem,
    axes: tuple[Axis, Axis, Axis],
    blocks: Blocks,
    x: Sequence[int],
) -> dict[str, int]:
    """The numbers of scratch.INPUT but for addresses, of a plain convolution whose input has the strides `x`."""
    depth, height, width = axes
    phase_rows, pitch = blocks.rows + height.reach, blocks.columns + width.reach
    size, steps = lifted(problem.size, 1), lifted(x[2:], 0)
    channels, slices, lanes = problem.channels // problem.groups, depth.reach + 1, machine().lanes(problem.dtype)
    return {
        "x_n": x[0], "x_c": x[1], "x_d": steps[0], "x_h": steps[1], "x_w": steps[2],
        "size_d": size[0], "size_h": size[1], "size_w": size[2],
        "batch": problem.batch, "groups": problem.groups,
        "channels": channels, "filters": problem.filters // problem.groups,
        "stride_d": depth.stride, "stride_h": height.stride, "stride_w": width.stride,
        "before_d": depth.before, "before_h": height.before, "before_w": width.before,
        "slices": slices, "slice_step": depth.slice_step, "positions_d": depth.outputs,
        "rows": blocks.rows, "columns": blocks.columns, "phase_rows": phase_rows, "pitch": pitch,
        "blocks_h": -(-height.outputs // blocks.rows), "blocks_w": -(-width.outputs // blocks.columns),
        "parts": math.prod(len(axis.phases) for axis in axes),
        # A vector more: rows are written in whole vectors.
        "scratch_size": channels * slices * height.stride * width.stride * phase_rows * pitch + lanes,
    }  # fmt: skip


def table(
    problem: ConvProblem,
    axes: tuple[Axis, Axis, Axis],
    given: dict[str, int],
    y: Sequence[int],
    weight: Sequence[int],
    turned: bool,
    packed_filters: int,
    unit: int = 1,
) -> tuple[npt.NDArray[np.int64], int]:
    """The table of scratch.PART and of every part's taps, and how many packed weights it speaks of.

    y: the strides of the output. weight: the strides by (filter, channel, *kernel); `turned`: it is read backwards.
    packed_filters: filters of a packed weight, padding included. unit: lists are lengthened to a multiple, by their first entry.
    """
    phase_size = given["phase_rows"] * given["pitch"]
    slice_size = given["stride_h"] * given["stride_w"] * phase_size
    y_steps, w_steps = lifted(y[2:], 0), lifted(weight[2:], 0)
    kernel = lifted(problem.window.kernel, 1)
    steps = [len(axis.phases) for axis in axes]
    channel = np.arange(given["channels"], dtype=np.int64)[:, None]
    parts = list(itertools.product(*(axis.phases for axis in axes)))
    numbers: list[int] = []
    lists: list[npt.NDArray[np.int64]] = []
    at, packed = len(parts) * len(PART), 0
    for part in parts:
        offsets, sources = [], []
        for d, h, w in itertools.product(*(phase.taps for phase in part)):
            inside = (h.phase * given["stride_w"] + w.phase) * phase_size + h.offset * given["pitch"] + w.offset
            offsets.append(d.offset * slice_size + inside)
            places = [k - 1 - t.tap if turned else t.tap for k, t in zip(kernel, (d, h, w), strict=True)]
            sources.append(_dot(places, w_steps))
        pairs = ((given["slices"] * slice_size, offsets), (weight[1], sources))
        both = [channel * step + np.array(one, np.int64) for step, one in pairs]
        taps = both[0].size
        more = -taps % unit
        both = [np.concatenate([one.ravel(), one.ravel()[:1].repeat(more)]) for one in both]
        counts = [phase.outputs for phase in part]
        strides = [step * stride for step, stride in zip(steps, y_steps, strict=True)]
        numbers += [
            taps,
            at,
            at + taps + more,
            *counts,
            *strides,
            _dot([phase.first for phase in part], y_steps),
            packed,
        ]
        lists += both
        at += 2 * (taps + more)
        packed += taps * packed_filters
    return np.concatenate([np.array(numbers, np.int64), *lists]), packed


def _dot(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(i * j for i, j in zip(a, b, strict=True))


def as_bytes(names: Sequence[str], values: dict[str, int]) -> bytes:
    return struct.pack(f"{len(names)}q", *(values[name] for name in names))
