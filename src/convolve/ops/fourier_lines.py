"""A convolution of lines by the Fourier kernels: the size of the tiles, and the plan of a call.

What the kernels do stands in convolve/kernels/fourier_lines.py; calls are those of maps (ops/fourier_call.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from convolve.kernels import butterflies
from convolve.kernels import fourier_lines as kernels
from convolve.kernels.butterflies import last_radix
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import positions
from convolve.ops.fourier_plan import Axis, Plan, candidates, pass_cycles, passes_of, radices, sizes, spans
from convolve.problem import DTYPE_BYTES, ConvProblem

LARGEST = 1 << 14
"""Numbers of a tile."""
PART_BYTES = 32 << 10
"""Of a vector of tiles: what the first-level cache holds while it goes through the product and back."""

# Cycles (Zen 4, AVX-512) of a complex vector on its way in, through the product, on its way out, in a pass over the second-level cache
# besides, and of a product summed over channels.
IN_CYCLES, THROUGH_CYCLES, OUT_CYCLES, OUTER_CYCLES, SUM_CYCLES = 16.0, 24.0, 18.0, 5.0, 3.5
TASK_CYCLES = 1500.0
SPILLED_CYCLES, NEAR_BYTES = 8.0, 12 << 20


class Cut(NamedTuple):
    """The tiles, and what they should cost."""

    line: Axis
    chunks: int
    """Shares of the filters."""
    cycles: float
    """Of the busiest thread."""


@lru_cache(maxsize=1024)
def cut(problem: ConvProblem, threads: int) -> Cut:
    """The cheapest tiles."""
    return min(_cuts(problem.as_convolution(), threads), key=lambda one: one.cycles)


def _cuts(convolution: ConvProblem, threads: int) -> Iterator[Cut]:
    lanes, groups = machine().lanes("float64"), convolution.groups
    last = last_radix(lanes)
    channels, filters = convolution.channels // groups, convolution.filters // groups
    single = channels == filters == 1
    (span,) = spans(convolution)
    for line in candidates(span, sizes(max(lanes, last), last, LARGEST // 2), 2):
        half = line.size // 2
        outer, inner = split(half)
        turns = pass_cycles((*outer, *inner)) + THROUGH_CYCLES / 2 + OUTER_CYCLES * len(outer)
        vectors = -(-convolution.batch * line.tiles // lanes)
        kernels_size = groups * channels * filters * half * 16
        spilled = SPILLED_CYCLES if kernels_size * lanes > NEAR_BYTES else 0.0
        one_kernel = half * (turns + IN_CYCLES / 2)
        for chunks in {1, min(filters, -(-threads // (groups * vectors)))}:
            tasks, some = groups * chunks * vectors, -(-filters // chunks)
            out = half * (
                turns + OUT_CYCLES * line.step / line.size + (0 if single else channels * (SUM_CYCLES + spilled))
            )
            task = channels * half * (turns + IN_CYCLES) + some * out + TASK_CYCLES
            spectra = -(-groups * channels * filters // (lanes * threads)) * one_kernel
            yield Cut(line, chunks, -(-tasks // threads) * task + spectra)


def split(half: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The passes over the whole, until its parts fit the first-level cache, and those over parts; without the last."""
    lanes = machine().lanes("float64")
    passes = radices(half, last_radix(lanes))
    assert passes is not None
    outer: list[int] = []
    left = list(passes)
    while left and half // math.prod(outer) * 16 * lanes > PART_BYTES:
        outer.append(left.pop())
    return tuple(outer), tuple(left)


def _tile_size(one: Cut) -> int:
    return one.line.size * machine().lanes("float64")


def scratch_sizes(problem: ConvProblem, one: Cut) -> tuple[int, int]:
    """Elements of each thread's scratch, and of all spectra."""
    convolution, lanes = problem.as_convolution(), machine().lanes("float64")
    channels, filters = convolution.channels // convolution.groups, convolution.filters // convolution.groups
    tiles = channels + (0 if channels == filters == 1 else 1)
    own = positions.aligned(kernels.scratch_elements(lanes) + tiles * _tile_size(one))
    return own, -(-convolution.filters * channels // lanes) * _tile_size(one)


def planned(problem: ConvProblem, x: tuple[int, ...], w: tuple[int, ...], one: Cut, threads: int) -> Plan:
    convolution, lanes = problem.as_convolution(), machine().lanes("float64")
    (span,), last = spans(convolution), last_radix(lanes)
    half = one.line.size // 2
    outer, inner = split(half)
    rows, factors = passes_of(half, (*outer, *inner, last), Fraction(1, 4))
    parts = math.prod(outer)
    passes = rows[: len(outer)]
    for part in range(parts):
        for radix, step, count, at in rows[len(outer) :]:
            passes.append((radix, step, count // parts, at + part * (count // parts) * (2 * radix - 2)))
    channels, filters = convolution.channels // convolution.groups, convolution.filters // convolution.groups
    turned = problem.role == "input_gradient"
    (taps,), (out,) = convolution.window.kernel, convolution.output_size
    thread_size, spectra = scratch_sizes(problem, one)
    values = {
        "rows": loaded(kernels.rows()).address,
        "forward": loaded(butterflies.passes(False)).address,
        "inverse": loaded(butterflies.passes(True)).address,
        "batch": convolution.batch, "groups": convolution.groups, "channels": channels, "filters": filters,
        "x_n": x[0], "x_c": x[1], "size": span.inputs, "before": span.before,
        "w_g": w[0] * (problem.filters // problem.groups),
        "w_k": w[1] if turned else w[0], "w_c": w[0] if turned else w[1], "w_s": -w[2] if turned else w[2], "taps": taps,
        "y_n": convolution.filters * out, "y_k": out, "out": span.results, "stride": span.stride,
        "half": half, "step": one.line.step, "tiles": one.line.tiles,
        "outer": len(outer), "parts": parts, "inner": len(inner), "last": rows[-1][-1],
        "chunks": one.chunks, "tile_size": _tile_size(one), "thread_size": thread_size,
    }  # fmt: skip
    return Plan(
        problem,
        np.array(passes, np.int64),
        factors,
        positions.as_bytes(kernels.ARGUMENTS[kernels.ARGUMENTS.index("rows") :], values),
        loaded(kernels.driver(problem.dtype)).address,
        DTYPE_BYTES[problem.dtype] * (taps - 1) * w[2] if turned else 0,
        8 * thread_size * threads,
        8 * spectra,
        threads,
    )
