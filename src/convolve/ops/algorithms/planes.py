"""Direct convolution by our own kernel whose vectors run along positions: few channels, any window, one to three axes.

What the kernels do stands in convolve/kernels/planes.py, and in rows.py, which serves single filters. Output and input gradient are
one kernel, since the input gradient is a convolution whose weight is read from other places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache

from torch import Tensor

from convolve.geometry import Window
from convolve.kernels import planes as kernels
from convolve.kernels import rows as single
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import direct_call, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.algorithms import depthwise_rows
from convolve.ops.bounds import direct_bound
from convolve.ops.positions import Blocks, Work
from convolve.problem import ConvProblem

_STREAMED_BYTES = 32 << 20  # of the results of several filters: smaller ones may as well stay in the caches
SINGLE = -1  # in place of Blocks.across: the kernel of single filters


@lru_cache(maxsize=4096)
def blocks(problem: ConvProblem, threads: int) -> Blocks:
    """The cheapest way to cut the work, by a count of vector instructions."""
    convolution = problem.as_convolution()
    work, room = positions.work_of(convolution), positions.room_of(convolution)
    axes, lanes, channels, filters, planes, parts, taps, outer, in_order = work
    _, height, width = axes
    found = []
    straight = in_order and parts == 1
    for tile, vectors, across in kernels.layouts(straight):
        reach = vectors * lanes
        # The sums of a tile pass through a scratch of their own, unless they go straight into the result.
        maps = planes if across else max(planes, tile)
        rows, columns = positions.equal_blocks(axes, maps, room, reach, outer, threads)
        tiles = -(-filters // tile)
        tasks = outer * -(-height.outputs // rows) * -(-width.outputs // columns)
        chunks = min(tiles, -(-threads // tasks))
        if across:
            passes = -(-rows // (vectors // across)) * -(-columns // (across * lanes))
            a_sum = 1.5 if across == vectors else 2.0
        else:
            flat = (rows - 1) * (columns + width.reach) + columns
            passes, a_sum = -(-flat // reach), 10.0 if straight else 1.5 * lanes
        sums, loads = tile * vectors, 1.7 * vectors + 0.7 * tile  # a load between two cache lines counts twice
        a_tap, out = max(sums, loads) + 0.15 * min(sums, loads) + 0.1 * max(sums - 16, 0), a_sum * sums
        fill = positions.fill_cycles(axes, channels, rows, columns, lanes, in_order)
        copies = 0 if across else tile * rows * positions.A_ROW
        packing = 2.0 * convolution.taps * tiles * tile * min(problem.groups * chunks, tasks)
        inner = parts * tiles * (passes * (taps * a_tap + out + 10) + copies)
        cycles = tasks * (inner + chunks * fill) + packing
        found.append(Blocks(tile, vectors, rows, columns, chunks, across, cycles))
    rows_meet = height.stride == 1 and height.reach + 1 == len(height.phases[0].taps)  # neighbours, without gaps
    if filters == 1 and in_order and parts == 1 and rows_meet:
        found += _single(work, room, threads)
    return min(found, key=lambda one: one.cycles)


def _single(work: Work, room: int, threads: int) -> list[Blocks]:
    """The ways to cut the work for the kernel of single filters."""
    _, height, width = work.axes
    planes = work.planes // width.stride  # the phases of the width lie side by side
    kernel_h, kernel_w = height.reach + 1, len(width.phases[0].taps)
    found = []
    for tall, wide in single.tiles():
        if tall > kernel_h:
            continue
        reach = wide * work.lanes
        rows, columns = positions.equal_blocks(work.axes, work.planes, room, reach, work.outer, threads)
        tasks = work.outer * -(-height.outputs // rows) * -(-width.outputs // columns)
        passes = -(-rows // tall) * -(-columns // reach)
        whole = max(tall * wide, 2 * wide + tall + 1) + 0.5
        partial = sum(max(some * wide, 2 * wide + some + 1) + 0.5 for some in range(1, tall))
        a_plane = kernel_w * ((kernel_h - tall + 1) * whole + 2 * partial) + 4 * tall
        fill = positions.fill_cycles(work.axes, work.channels, rows, columns, work.lanes, True)
        cycles = tasks * (passes * (planes * a_plane + 2 * tall * wide) + fill)
        found.append(Blocks(tall, wide, rows, columns, 1, SINGLE, cycles))
    return found


@cache
def _address(tile: int, width: int, dtype: str, of_single: bool) -> int:
    kernel = single.kernel if of_single else kernels.kernel
    return loaded(kernel(tile, width, dtype)).address


def in_one_row(problem: ConvProblem) -> ConvProblem:
    """The same arithmetic over maps of one row each, where no window holds more than its own position; else the problem itself."""
    window = problem.window
    plain = {*window.kernel, *window.stride, *window.input_dilation} == {1} and not any(map(any, window.padding))
    if problem.axes == 1 or problem.layout != "channels_first" or not plain:
        return problem
    return replace(problem, size=(math.prod(problem.size),), window=Window((1,), (1,), ((0, 0),), (1,), (1,)))


def _plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> direct_call.Plan:
    row = in_one_row(problem)
    if row is problem or list(a[2:]) != _dense(problem.size):
        return _planned(problem, a, b, threads)
    plan = _planned(row, (*a[:2], 1), b[:3], threads)
    return replace(plan, problem=problem, result_strides=positions.result_strides(problem))


def _dense(size: Sequence[int]) -> list[int]:
    """The strides of a map in one piece."""
    return [math.prod(size[axis + 1 :]) for axis in range(len(size))]


def _planned(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> direct_call.Plan:
    cut = blocks(problem, threads)
    reach = cut.width * machine().lanes(problem.dtype)

    def own(given: dict[str, int]) -> dict[str, int]:
        if cut.across == SINGLE:
            size = positions.aligned(given["scratch_size"] + reach + cut.tile * given["pitch"])
            streamed = direct_call.streams(problem, -1)
            return {"scratch_size": size, "flat_size": 0, "across": SINGLE, "streamed": int(streamed)}
        flat = -(-((cut.rows - 1) * given["pitch"] + cut.columns) // reach) * reach
        # Vectors of positions may run beyond the last row, and tiles beyond the last rows.
        size = positions.aligned(given["scratch_size"] + 2 * reach + cut.width * given["pitch"])
        return {
            "scratch_size": size,
            "flat_size": positions.aligned(flat) * cut.tile,
            "across": cut.across,
            "streamed": int(cut.across != 0 and direct_call.streams(problem, -1, _STREAMED_BYTES)),
        }

    address = _address(cut.tile, cut.width, problem.dtype, cut.across == SINGLE)
    areas = ("scratch_size", "flat_size", "packed_size")
    return direct_call.plan(
        problem, address, kernels.ARGUMENTS, cut, (a, b), 1 if cut.across == SINGLE else cut.tile, threads, own, areas
    )


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return direct_call.run(_plan, problem, a, b, bias)


def _cost(problem: ConvProblem) -> Cost:
    return positions.cost(problem, lambda one: blocks(in_one_row(one), 1).cycles)


def _not_automatic(problem: ConvProblem) -> str | None:
    if problem.filters <= 2 * problem.channels and depthwise_rows.why_not(problem) is None:
        return "depthwise_rows computes the same without copying the input"
    return None


ALGORITHM = Algorithm(
    name="planes",
    summary="our kernel, vectors along positions: few channels, any window",
    run=run,
    why_not=positions.why_not_forward,
    cost=_cost,
    bound=direct_bound,
    roles=("output", "input_gradient", "weight_gradient"),
    reproducible=True,
    not_automatic=_not_automatic,
)
