"""One call of the Fourier kernels: the sizes of the tiles, and everything but the addresses packed once per problem and layout.

What the kernels do stands in convolve/kernels/fourier.py. The input gradient is the same convolution over a weight that is read turned
around, with its channels swapped; dilations are stuffed with zeros by torch. Tiles are chosen by a count of vector instructions.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convolve.kernels import butterflies
from convolve.kernels import fourier as kernels
from convolve.kernels.butterflies import last_radix
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.ops import engine, fourier_lines, positions
from convolve.ops.algorithm import Cost
from convolve.ops.fourier_plan import (
    Axis,
    Plan,
    candidates,
    pass_cycles,
    passes_of,
    plain,
    radices,
    sizes,
    spans,
    undilated,
)
from convolve.problem import DTYPE_BYTES, ConvProblem

LARGEST = 1024
"""Rows or columns of a tile."""
_MOST_PLANS = 1024
_POINTERS = struct.Struct(f"{kernels.ARGUMENTS.index('columns')}q")
_MOST_SCRATCH = 64 << 20  # of each thread
_KEPT_BYTES = 32 << 20  # of scratch that stays with the calling thread
_OWN_BYTES = 4 << 20  # of spectra that each thread keeps for itself

# Cycles (Zen 4, AVX-512) of a complex vector turned with the last pass there or the first back, through the product; of a real one: read,
# written; of a product summed over channels.
OUT_CYCLES, IN_CYCLES, THROUGH_CYCLES = 15.0, 13.0, 20.0
READ_CYCLES, WRITE_CYCLES, SUM_CYCLES = 5.0, 7.0, 5.0
CALL_CYCLES, TASK_CYCLES = 60.0, 1000.0
L2_BYTES, NEAR_BYTES, SPILLED_LINE, FAR_LINE = 1 << 20, 12 << 20, 2.0, 14.0
CALL_SECONDS, CLOCK = 1.2e-5, 3.6e9


@lru_cache(maxsize=4096)
def why_not(problem: ConvProblem) -> str | None:
    """Why the kernels cannot serve a problem that a transform can, or None."""
    if problem.macs == 0:
        return "there is nothing to sum"
    if problem.axes > 2:
        return "its kernels are written for one and two axes"
    if problem.device != "cpu":
        return f"its kernels run on a CPU, not on {problem.device}"
    if problem.role == "weight_gradient":
        return "its kernels compute outputs and input gradients"
    window, largest = problem.as_convolution().window, LARGEST if problem.axes == 2 else fourier_lines.LARGEST
    if any(k + s - 1 > largest for k, s in zip(window.extent, window.stride, strict=True)):
        return f"its tiles have up to {largest} numbers along an axis, and must hold a kernel and a stride"
    reason = why_no_kernels()
    if (
        reason is None
        and 0 not in problem.result_shape
        and _scratch_sizes(undilated(problem), 1)[0] * 8 > _MOST_SCRATCH
    ):
        return f"a tile of all channels takes more than {_MOST_SCRATCH >> 20} MiB"
    return reason


class Cut(NamedTuple):
    """Tiles along both axes, and what they should cost."""

    height: Axis
    width: Axis
    chunks: int
    """Shares of the filters."""
    own: bool
    """Each thread transforms the kernels that it needs."""
    cycles: float
    """Of the busiest thread."""


@lru_cache(maxsize=1024)
def cut(problem: ConvProblem, threads: int) -> Cut:
    """The cheapest tiles."""
    return min(_cuts(problem.as_convolution(), threads), key=lambda one: one.cycles)


def _cuts(convolution: ConvProblem, threads: int) -> Iterator[Cut]:
    lanes = machine().lanes("float64")
    last = last_radix(lanes)
    span_h, span_w = spans(convolution)
    channels, filters, groups = (
        convolution.channels // convolution.groups, convolution.filters // convolution.groups, convolution.groups,
    )  # fmt: skip
    of_group, single = channels * filters, channels == filters == 1
    for height in candidates(span_h, sizes(lanes, lanes, LARGEST // 2), 2):
        half, blocks = height.size // 2, height.size // 2 // lanes
        passes_h = pass_cycles(radices(half, lanes) or ())
        for width in candidates(span_w, sizes(max(lanes, last), last, LARGEST), 1):
            passes_w = pass_cycles(radices(width.size, last) or ())

            def there(columns: int, half: int = half, passes: float = passes_h) -> float:
                return -(-columns // lanes) * half * (passes + OUT_CYCLES + 2 * READ_CYCLES)

            whole = blocks * width.size  # complex vectors of a tile
            one_way = whole * (passes_w + THROUGH_CYCLES / 2)
            back = -(-width.step // lanes) * (half * (passes_h + IN_CYCLES) + height.step * WRITE_CYCLES)
            back += one_way + whole * (0 if single else SUM_CYCLES * channels)
            calls = (blocks + 2 * width.size // lanes) * CALL_CYCLES + TASK_CYCLES
            tile_bytes = 16 * lanes * whole
            outer = convolution.batch * height.tiles * width.tiles
            for chunks in {1, min(filters, -(-threads // (groups * outer)))}:
                own = groups % threads == 0 or groups >= 4 * threads or of_group == 1
                own = own and of_group * tile_bytes <= _OWN_BYTES
                kernel = there(span_w.taps) + one_way
                tasks = groups * chunks * outer
                some = -(-filters // chunks)
                task = channels * (there(width.used) + one_way) + some * back + calls * (channels + some) / 2
                held = tile_bytes * (1 + channels + (0 if single else 1) + (of_group if own else 0))
                line = SPILLED_LINE if held > L2_BYTES else 0.0
                far = FAR_LINE if groups * of_group * tile_bytes > NEAR_BYTES else SPILLED_LINE
                if not own:
                    kernel += tile_bytes / 64 * 2 * far
                task += tile_bytes / 64 * (2 * line * (channels + some) + some * channels * (line if own else far))
                mine = -(-tasks // threads)
                spectra = -(-groups // threads) if own else groups / threads
                yield Cut(height, width, chunks, own, mine * task + spectra * of_group * kernel)


def _tile_size(one: Cut) -> tuple[int, int]:
    """Elements of a tile, and of a block of its rows: not a multiple of 4 KB, which would all be in one set of the cache."""
    lanes = machine().lanes("float64")
    row = one.width.size * 2 * lanes
    row += 16 * lanes if row % 512 == 0 else 0
    return one.height.size // 2 // lanes * row, row


def _thread_size(problem: ConvProblem, one: Cut) -> int:
    convolution, lanes = problem.as_convolution(), machine().lanes("float64")
    channels, filters = convolution.channels // convolution.groups, convolution.filters // convolution.groups
    tiles = channels + (0 if channels == filters == 1 else 1) + (channels * filters if one.own else 0)
    return kernels.TOLD + 2 * lanes + one.height.size * one.width.size + tiles * _tile_size(one)[0]


def _scratch_sizes(problem: ConvProblem, threads: int) -> tuple[int, int]:
    """Elements of each thread's scratch, and of all spectra that are shared."""
    if problem.axes == 1:
        return fourier_lines.scratch_sizes(problem, fourier_lines.cut(problem, threads))
    one = cut(problem, threads)
    shared = 0 if one.own else problem.filters * (problem.channels // problem.groups) * _tile_size(one)[0]
    return _thread_size(problem, one), shared


def cost(problem: ConvProblem) -> Cost:
    """The estimate of one core, as the other rows give it."""
    wide = undilated(problem)
    cycles = (fourier_lines.cut if problem.axes == 1 else cut)(wide, 1).cycles
    own, shared = _scratch_sizes(wide, 1)
    return Cost(CALL_SECONDS + cycles / CLOCK + problem.bytes * 1e-10, 8 * (own + shared))


_PLANS: dict[tuple[object, ...], Plan] = {}


def _plan(problem: ConvProblem, a: Tensor, w: Tensor) -> Plan:
    threads = engine.thread_count()
    key = (id(problem), a.stride(), w.stride(), threads)
    found = _PLANS.get(key)
    if found is None or found.problem is not problem:
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        strides = a.stride(), w.stride()
        if problem.axes == 1:
            found = fourier_lines.planned(problem, *strides, fourier_lines.cut(problem, threads), threads)
        else:
            found = _planned(problem, *strides, cut(problem, threads), threads)
        _PLANS[key] = found
    return found


def _planned(problem: ConvProblem, x: tuple[int, ...], w: tuple[int, ...], one: Cut, threads: int) -> Plan:
    convolution, lanes = problem.as_convolution(), machine().lanes("float64")
    height, width = one.height, one.width
    span_h, span_w = spans(convolution)
    last = last_radix(lanes)
    passes_h, passes_w = radices(height.size // 2, lanes), radices(width.size, last)
    assert passes_h is not None
    assert passes_w is not None
    tables = [
        passes_of(height.size // 2, (*passes_h, lanes), Fraction(1, 4)),
        passes_of(width.size, (*passes_w, last), Fraction(0)),
    ]
    rows_h, rows_w = (rows for rows, _ in tables)
    at = len(tables[0][1])
    passes = np.array([*rows_h[:-1], *((*row[:-1], row[-1] + at) for row in rows_w)], np.int64)
    channels, filters = convolution.channels // convolution.groups, convolution.filters // convolution.groups
    turned = problem.role == "input_gradient"
    tile_size, row_size = _tile_size(one)
    out_h, out_w = convolution.output_size
    kernel_h, kernel_w = convolution.window.kernel
    values = {
        "columns": loaded(kernels.columns(problem.dtype)).address,
        "rows": loaded(kernels.rows()).address,
        "results": loaded(kernels.results(problem.dtype)).address,
        "forward": loaded(butterflies.passes(False)).address,
        "inverse": loaded(butterflies.passes(True)).address,
        "batch": convolution.batch, "groups": convolution.groups, "channels": channels, "filters": filters,
        "x_n": x[0], "x_c": x[1], "x_h": x[2], "x_w": x[3],
        "size_h": span_h.inputs, "size_w": span_w.inputs, "before_h": span_h.before, "before_w": span_w.before,
        "w_g": w[0] * (problem.filters // problem.groups),
        "w_k": w[1] if turned else w[0], "w_c": w[0] if turned else w[1],
        "w_r": -w[2] if turned else w[2], "w_s": -w[3] if turned else w[3],
        "kernel_h": kernel_h, "kernel_w": kernel_w,
        "y_n": convolution.filters * out_h * out_w, "y_k": out_h * out_w, "y_h": out_w,
        "out_h": span_h.results, "out_w": span_w.results, "stride_h": span_h.stride, "stride_w": span_w.stride,
        "half_h": height.size // 2, "width": width.size, "step_h": height.step, "step_w": width.step,
        "tiles_h": height.tiles, "tiles_w": width.tiles, "used_w": width.used,
        "passes_h": len(passes_h), "passes_w": len(passes_w), "last_h": rows_h[-1][-1], "last_w": rows_w[-1][-1] + at,
        "chunks": one.chunks, "tile_size": tile_size, "row_size": row_size,
        "thread_size": positions.aligned(_thread_size(problem, one)),
    }  # fmt: skip
    size = DTYPE_BYTES[problem.dtype]
    return Plan(
        problem,
        passes,
        np.concatenate([factors for _, factors in tables]),
        positions.as_bytes(kernels.ARGUMENTS[kernels.ARGUMENTS.index("columns") :], values),
        loaded(kernels.driver(problem.dtype)).address,
        size * ((kernel_h - 1) * w[2] + (kernel_w - 1) * w[3]) if turned else 0,
        8 * values["thread_size"] * threads,
        0 if one.own else 8 * tile_size * convolution.filters * channels,
        threads,
    )


def run(problem: ConvProblem, a: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, bool]:
    """The output or input gradient, channels first, and whether all of it is finite."""
    problem, a, w, bias = plain(problem, a, w, bias)
    if a.stride(-1) != 1:
        a = a.contiguous()  # a row of a map is read in vectors
    plan = _plan(problem, a, w)
    result = torch.empty_strided(
        problem.result_shape, positions.result_strides(replace(problem, layout="channels_first")), dtype=a.dtype
    )
    flags = torch.zeros(plan.threads, dtype=torch.float64)
    kept = plan.spectra_bytes if plan.spectra_bytes <= _KEPT_BYTES else 0
    scratch = engine.scratch(plan.scratch_bytes + kept)
    spectra, large = scratch + plan.scratch_bytes if kept else 0, None
    if plan.spectra_bytes > kept:
        large = torch.empty(plan.spectra_bytes + 64, dtype=torch.uint8)
        spectra = (large.data_ptr() + 63) // 64 * 64
    if bias is not None:
        bias = bias.contiguous()
    x_at, w_at, bias_at = a.data_ptr(), w.data_ptr() + plan.w_first, 0 if bias is None else bias.data_ptr()
    told = (0, 0, 0, plan.factors.ctypes.data, x_at, w_at)
    rest = (flags.data_ptr(), spectra, scratch, plan.passes.ctypes.data)
    if spectra:
        engine.run(plan.address, _POINTERS.pack(*told, 0, 0, *rest) + plan.arguments, plan.threads)
    pointers = _POINTERS.pack(*told, bias_at, result.data_ptr(), *rest)
    engine.run(plan.address, pointers + plan.arguments, plan.threads)
    return result, all(map(math.isfinite, flags.tolist()))
