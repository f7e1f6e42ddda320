"""Direct convolution by our own kernel whose vectors run along positions: few channels, any window, one to three axes.

What the kernel does stands in convolve/kernels/planes.py. Output and input gradient are one kernel, since the input gradient is a
convolution whose weight is read from other places.
"""

from __future__ import annotations

from functools import cache, lru_cache

from torch import Tensor

from convolve.kernels import planes as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import direct_call, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.ops.positions import Blocks
from convolve.problem import DTYPE_BYTES, ConvProblem

_SCRATCH_BYTES = 192 * 1024  # of each thread: part of a usual L2 cache


def why_not(problem: ConvProblem) -> str | None:
    if problem.role == "weight_gradient":
        return "it computes outputs and input gradients"
    return positions.why_not(problem.as_convolution())


@lru_cache(maxsize=4096)
def blocks(problem: ConvProblem, threads: int) -> Blocks:
    """The cheapest way to cut the work, by a count of vector instructions."""
    convolution = problem.as_convolution()
    axes = depth, height, width = positions.axes_of(convolution)
    lanes, room = machine().lanes(problem.dtype), _SCRATCH_BYTES // DTYPE_BYTES[problem.dtype]
    filters, channels = convolution.filters // convolution.groups, convolution.channels // convolution.groups
    planes = channels * (depth.reach + 1) * height.stride * width.stride
    parts = len(depth.phases) * len(height.phases) * len(width.phases)
    taps, outer = convolution.taps / parts, problem.batch * problem.groups * depth.count
    in_order = problem.layout == "channels_first" or problem.axes == 1
    found = []
    for tile, vectors in kernels.tiles():
        reach = vectors * lanes
        rows, columns = positions.equal_blocks(axes, max(planes, tile), room, reach, outer, threads)
        pitch = columns + width.reach
        tiles = -(-filters // tile)
        tasks = outer * -(-height.count // rows) * -(-width.count // columns)
        chunks = min(tiles, -(-threads // tasks))
        direct = in_order and parts == 1 and columns >= 2 * reach
        passes = rows * -(-columns // reach) if direct else -(-((rows - 1) * pitch + columns) // reach)
        a_tap = max(tile * vectors, vectors + tile + 1) + 0.5
        out = tile * vectors * (1.5 if direct else 4 if in_order and parts == 1 else 1.5 * lanes)
        fill = planes * (rows + height.reach) * pitch * (2.0 / lanes if width.stride == 1 and in_order else 1.5)
        packing = 2.0 * convolution.taps * tiles * tile * min(problem.groups * chunks, tasks)
        cycles = tasks * (parts * tiles * passes * (taps * a_tap + out + 10) + chunks * fill) + packing
        found.append(Blocks(tile, vectors, rows, columns, chunks, direct, cycles))
    return min(found, key=lambda one: one.cycles)


@cache
def _address(tile: int, width: int, dtype: str) -> int:
    return loaded(kernels.kernel(tile, width, dtype)).address


def _plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> direct_call.Plan:
    cut = blocks(problem, threads)
    reach = cut.width * machine().lanes(problem.dtype)

    def own(given: dict[str, int]) -> dict[str, int]:
        flat = -(-((cut.rows - 1) * given["pitch"] + cut.columns) // reach) * reach
        # Vectors of positions may run beyond the last row.
        size = positions.aligned(given["scratch_size"] + 2 * reach)
        return {"scratch_size": size, "flat_size": positions.aligned(flat) * cut.tile, "direct": int(cut.direct)}

    address = _address(cut.tile, cut.width, problem.dtype)
    areas = ("scratch_size", "flat_size", "packed_size")
    return direct_call.plan(problem, address, kernels.ARGUMENTS, cut, (a, b), cut.tile, threads, own, areas)


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return direct_call.run(_plan, problem, a, b, bias)


def _cost(problem: ConvProblem) -> Cost:
    return Cost(8e-6 + blocks(problem, 1).cycles / 3.2e9 + problem.bytes * 1e-10, 0)


ALGORITHM = Algorithm(
    name="planes",
    summary="our kernel, vectors along positions: few channels, any window",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=("output", "input_gradient", "weight_gradient"),
    reproducible=True,
)
