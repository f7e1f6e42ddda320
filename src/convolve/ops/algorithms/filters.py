"""Direct convolution by our own kernel whose vectors run along filters: small maps, and channels that lie innermost.

What the kernel does stands in convolve/kernels/filters.py. Output and input gradient are one kernel, since the input gradient is a
convolution whose weight is read from other places.
"""

from __future__ import annotations

from functools import cache, lru_cache

from torch import Tensor

from convolve.kernels import filters as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import direct_call, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.ops.positions import Blocks
from convolve.problem import ConvProblem


@lru_cache(maxsize=4096)
def blocks(problem: ConvProblem, threads: int) -> Blocks:
    """The cheapest way to cut the work, by a count of vector instructions."""
    convolution = problem.as_convolution()
    room = positions.room_of(convolution)
    axes, lanes, channels, filters, planes, parts, taps, outer, in_order = positions.work_of(convolution)
    _, height, width = axes
    found = []
    for tile, vectors in kernels.tiles():
        across = vectors * lanes
        rows, columns = positions.equal_blocks(axes, planes, room, tile, outer, threads)
        tiles = -(-filters // across)
        tasks = outer * -(-height.outputs // rows) * -(-width.outputs // columns)
        chunks = min(tiles, -(-threads // tasks))
        a_tap = max(tile * vectors, vectors + tile + 1) + 0.5
        innermost = not in_order and filters >= across
        out = tile * vectors * (1.0 if innermost else 1.5 * min(lanes, filters))
        fill = positions.fill_cycles(axes, channels, rows, columns, lanes, in_order)
        packing = 2.0 * convolution.taps * tiles * across * min(problem.groups * chunks, tasks)
        passes = rows * -(-columns // tile)
        cycles = tasks * (parts * tiles * passes * (taps * a_tap + out + 10) + chunks * fill) + packing
        found.append(Blocks(tile, vectors, rows, columns, chunks, 0, cycles))
    return min(found, key=lambda one: one.cycles)


@cache
def _address(tile: int, width: int, dtype: str) -> int:
    return loaded(kernels.kernel(tile, width, dtype)).address


def _plan(problem: ConvProblem, a: tuple[int, ...], b: tuple[int, ...], threads: int) -> direct_call.Plan:
    cut = blocks(problem, threads)
    lanes = machine().lanes(problem.dtype)
    across = cut.width * lanes
    streamed = problem.result_shape[1] // problem.groups % lanes == 0 and direct_call.streams(problem, 1)

    def own(given: dict[str, int]) -> dict[str, int]:
        # A tile may run beyond a row that is shorter than it.
        size = positions.aligned(given["scratch_size"] + cut.tile)
        return {"scratch_size": size, "tile_size": cut.tile * across, "streamed": int(streamed)}

    address = _address(cut.tile, cut.width, problem.dtype)
    areas = ("scratch_size", "tile_size", "packed_size")
    return direct_call.plan(problem, address, kernels.ARGUMENTS, cut, (a, b), across, threads, own, areas)


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return direct_call.run(_plan, problem, a, b, bias)


def _cost(problem: ConvProblem) -> Cost:
    return positions.cost(problem, lambda one: blocks(one, 1).cycles)


ALGORITHM = Algorithm(
    name="filters",
    summary="our kernel, vectors along filters: small maps, channels innermost",
    run=run,
    why_not=positions.why_not_forward,
    cost=_cost,
    bound=direct_bound,
    roles=("output", "input_gradient", "weight_gradient"),
    reproducible=True,
)
