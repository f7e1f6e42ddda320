"""One call of Winograd's weight gradient: how the work is cut into shares, chunks and groups, and everything but the addresses packed once.

What the kernels do stands in convolve/kernels/winograd_gradient.py. The cut comes from a small model of the caches, fitted on Zen 4.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from convolve.kernels import winograd
from convolve.kernels import winograd_gradient as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import engine, phases, positions
from convolve.ops.algorithm import Cost
from convolve.ops.winograd_call import CLOCK, L2_BYTES
from convolve.problem import DTYPE_BYTES, ConvProblem

MOST_TILES = 256
"""Of a chunk: products that are summed one by one."""
_CHUNKS = (32, 64, 96, 128, 192, MOST_TILES)
_NEAR_TILES = 100  # of whose panel of D, and V, the first-level cache holds what a pass reads again

# Cycles of one vector: transformed, of x or of dy, transposed besides, multiplied, made taps; of one pass over the tiles of a chunk; of
# a line that comes from beyond the second-level cache, or that another thread has written.
X_CYCLES, Y_CYCLES, GATHERED_CYCLES, PRODUCT_CYCLES, TAPS_CYCLES = 7.5, 5.7, 14.8, 1.15, 2.6
PASS_CYCLES, V_LINE, D_LINE, U_LINE, SHARE_LINE = 22.0, 2.4, 1.0, 6.3, 62.0
CALL_SECONDS = 1e-4  # in the units of the other estimates
_MOST_PLANS = 1024
_POINTERS = struct.Struct(f"{kernels.ARGUMENTS.index('forward')}q")


class Cut(NamedTuple):
    """How the work is cut, and what it is predicted to cost."""

    tiles: int
    """Of a chunk."""
    tile_parts: int
    channel_parts: int
    filter_parts: int
    group_channels: int
    group_panels: int
    cycles: float
    """Of the busiest thread."""


class _Sizes(NamedTuple):
    """What is counted in tiles, vectors and panels; channels and filters are those of one group."""

    tile: int
    m: int
    taps: int
    """Of one phase of the inputs, along an axis."""
    down: int
    """Phases of the inputs along an axis."""
    lanes: int
    width: int
    """Bytes of an element."""
    kernel: tuple[int, int]
    channels: int
    filters: int
    tiles: tuple[int, int]
    """Of a map."""
    all_tiles: int

    @classmethod
    def of(cls, tile: int, problem: ConvProblem) -> _Sizes:
        problem = phases.inner(problem)
        taps = phases.taps_of(problem)[0]
        m = tile - taps + 1
        rows, columns = (-(-size // m) for size in problem.output_size)
        return cls(
            tile,
            m,
            taps,
            problem.window.stride[0],
            machine().lanes(problem.dtype),
            DTYPE_BYTES[problem.dtype],
            (problem.window.kernel[0], problem.window.kernel[1]),
            problem.channels // problem.groups,
            problem.filters // problem.groups,
            (rows, columns),
            problem.batch * rows * columns,
        )

    @property
    def elements(self) -> int:
        return self.tile**2

    @property
    def products(self) -> float:
        """Elements that are multiplied, of all phases: of one that lacks the last tap, not those at infinity."""
        return self.elements * self.phases * math.prod(1 - k % self.down / 2 / self.tile for k in self.kernel)

    @property
    def panel(self) -> int:
        """Filters of a panel."""
        return kernels.VECTORS * self.lanes

    @property
    def phases(self) -> int:
        return self.down**2

    @property
    def blocks(self) -> int:
        """Vectors of channels."""
        return -(-self.channels // self.lanes)

    @property
    def panels(self) -> int:
        return -(-self.filters // self.panel)


class _Room(NamedTuple):
    """Elements of one thread's scratch."""

    v_element: int
    d_element: int
    u_element: int
    u_size: int
    """Of all the groups that are kept."""
    size: int
    """With all the rest."""

    @classmethod
    def of(cls, sizes: _Sizes, cut: Cut) -> _Room:
        blocks, panels = -(-sizes.blocks // cut.channel_parts), -(-sizes.panels // cut.filter_parts)
        # A line longer than need be: powers of two between them would put all elements of a tile into one set of the cache.
        v_element = (sizes.phases * blocks * cut.tiles + 1) * sizes.lanes
        d_element = (panels * kernels.VECTORS * cut.tiles + 1) * sizes.lanes
        u_element = sizes.phases * cut.group_channels * cut.group_panels * sizes.panel + sizes.lanes
        groups = 1
        if -(-sizes.all_tiles // cut.tile_parts) > cut.tiles:
            groups = -(-blocks * sizes.lanes // cut.group_channels) * -(-panels // cut.group_panels)
        u_size = groups * sizes.elements * u_element
        whole = sizes.elements * (v_element + d_element) + u_size
        whole += kernels.scratch(sizes.tile, math.prod(sizes.kernel), sizes.lanes)
        return cls(v_element, d_element, u_element, u_size, positions.aligned(whole))


@dataclass(frozen=True)
class _Plan:
    problem: ConvProblem
    arguments: bytes
    """The driver's, behind the addresses of tensors."""
    address: int
    scratch_bytes: int
    """Of all threads."""
    result_strides: tuple[int, ...]
    shares: int
    threads: int


_PLANS: dict[tuple[object, ...], _Plan] = {}


def _plan(tile: int, problem: ConvProblem, x: tuple[int, ...], dy: tuple[int, ...]) -> _Plan:
    threads = engine.thread_count()
    key = (tile, id(problem), x, dy, threads)
    found = _PLANS.get(key)
    if found is None or found.problem is not problem:
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        cut = best_cut(tile, problem, threads)
        planned = _planned(tile, phases.inner(problem), x, dy, cut, threads)
        found = _PLANS[key] = replace(planned, problem=problem)
    return found


def _planned(tile: int, problem: ConvProblem, x: tuple[int, ...], dy: tuple[int, ...], cut: Cut, threads: int) -> _Plan:
    sizes = _Sizes.of(tile, problem)
    room = _Room.of(sizes, cut)
    out_h, out_w = problem.output_size
    (before_h, _), (before_w, _) = problem.window.padding
    w = positions.result_strides(problem)
    common = dict.fromkeys(winograd.ARGUMENTS, 0) | {
        "outputs": sizes.m, "run_length": winograd.run_length(sizes.m, sizes.taps, sizes.lanes), "down": 1,
        "tile_rows": sizes.tiles[0], "tile_columns": sizes.tiles[1], "tiles": cut.tiles,
    }  # fmt: skip
    of_x = common | {
        "x_n": x[0], "x_c": x[1], "x_h": x[2], "x_w": x[3], "before_h": before_h, "before_w": before_w,
        "size_h": phases.inputs_met(problem, 0), "size_w": phases.inputs_met(problem, 1),
        "down": sizes.down, "v_element": room.v_element,
    }  # fmt: skip
    of_y = common | {
        "x_n": dy[0], "x_c": dy[1], "x_h": dy[2], "x_w": dy[3], "size_h": out_h, "size_w": out_w,
        "v_element": room.d_element,
    }  # fmt: skip
    values = {
        "forward": loaded(winograd.forward(tile, problem.dtype)).address,
        "gradients": loaded(kernels.gradients(sizes.taps, tile, problem.dtype)).address,
        "sums": loaded(kernels.sums(problem.dtype)).address,
        "taps": loaded(kernels.taps(sizes.taps, tile, problem.dtype)).address,
        "elements": sizes.elements, "thread_size": room.size,
        "groups": problem.groups, "channels": sizes.channels, "filters": sizes.filters,
        "x_c": x[1], "y_k": dy[1], "w_k": w[0], "w_c": w[1], "w_r": w[2], "w_s": w[3],
        "share_size": math.prod(problem.weight_shape),
        "kernel_h": sizes.kernel[0], "kernel_w": sizes.kernel[1], "down": sizes.down, "tile": tile,
        "all_tiles": sizes.all_tiles, "tiles": cut.tiles,
        "tile_parts": cut.tile_parts, "channel_parts": cut.channel_parts, "filter_parts": cut.filter_parts,
        "group_channels": cut.group_channels, "group_panels": cut.group_panels,
        "v_element": room.v_element, "d_element": room.d_element, "u_element": room.u_element, "u_size": room.u_size,
    }  # fmt: skip
    return _Plan(
        problem,
        positions.as_bytes(kernels.ARGUMENTS[kernels.ARGUMENTS.index("forward") :], values)
        + positions.as_bytes(winograd.ARGUMENTS, of_x)
        + positions.as_bytes(winograd.ARGUMENTS, of_y),
        loaded(kernels.driver(problem.dtype)).address,
        room.size * sizes.width * threads,
        w,
        cut.tile_parts,
        threads,
    )


def run(tile: int, problem: ConvProblem, x: Tensor, dy: Tensor) -> tuple[Tensor, bool]:
    """The weight gradient, and whether all of it is finite."""
    if phases.dense(problem):
        return _run_dense(tile, problem, x, dy)
    plan = _plan(tile, problem, x.stride(), dy.stride())
    return _run(plan, x.data_ptr(), dy, engine.scratch(plan.scratch_bytes))


def _run_dense(tile: int, problem: ConvProblem, x: Tensor, dy: Tensor) -> tuple[Tensor, bool]:
    """The same over the phases side by side."""
    maps = phases.maps(problem, x.stride())
    plan = _plan(tile, problem, maps.strides, dy.stride())
    scratch = engine.scratch(maps.bytes + plan.scratch_bytes)
    maps.make(x, scratch)
    dw, finite = _run(plan, scratch, dy, scratch + maps.bytes)
    return phases.weight_gradient(problem, dw), finite


def _run(plan: _Plan, x: int, dy: Tensor, scratch: int) -> tuple[Tensor, bool]:
    shape, strides = phases.inner(plan.problem).weight_shape, plan.result_strides
    shares = torch.empty_strided((plan.shares, *shape), (math.prod(shape), *strides), dtype=dy.dtype)
    flags = torch.zeros(plan.threads, dtype=dy.dtype)
    pointers = _POINTERS.pack(x, dy.data_ptr(), shares.data_ptr(), flags.data_ptr(), scratch)
    engine.run(plan.address, pointers + plan.arguments, plan.threads)
    finite = all(map(math.isfinite, flags.tolist()))
    if plan.shares == 1:
        return shares[0], finite
    total = torch.empty_strided(shape, strides, dtype=dy.dtype)
    torch.sum(shares, 0, out=total)
    return total, finite and bool(total.isfinite().all())


def tiles(tile: int, problem: ConvProblem) -> int:
    """Of all maps of the batch."""
    return _Sizes.of(tile, problem).all_tiles


@lru_cache(maxsize=1024)
def best_cut(tile: int, problem: ConvProblem, threads: int) -> Cut:
    """The cheapest cut, by a count of vector instructions and of bytes between the caches."""
    return min(_cuts(_Sizes.of(tile, problem), problem, threads), key=lambda cut: cut.cycles)


def _cuts(sizes: _Sizes, problem: ConvProblem, threads: int) -> Iterator[Cut]:
    gathered = 0.0 if problem.layout == "channels_last" else GATHERED_CYCLES
    gathered_x = 0.0 if phases.dense(problem) else gathered
    weight_lines = math.prod(problem.weight_shape) * sizes.width / 64
    for tile_parts, channel_parts, filter_parts in _parts(sizes, problem.groups, threads):
        blocks, panels = -(-sizes.blocks // channel_parts), -(-sizes.panels // filter_parts)
        maps = sizes.phases * blocks  # vectors of channels, of all phases
        mine, vectors = (
            -(-sizes.all_tiles // tile_parts),
            min(-(-sizes.filters // sizes.lanes), panels * kernels.VECTORS),
        )
        channels = blocks * sizes.lanes
        passes = sizes.products * -(-min(channels, sizes.channels) // kernels.rows(problem.dtype)) * panels
        tasks = -(-problem.groups * tile_parts * channel_parts * filter_parts // threads)
        work = sizes.elements * mine * (X_CYCLES * maps + Y_CYCLES * vectors)
        work += mine * sizes.m * (gathered_x * sizes.tile * maps + gathered * sizes.m * vectors)
        work += PRODUCT_CYCLES * passes * mine * kernels.rows(problem.dtype) * kernels.VECTORS
        work += TAPS_CYCLES * channels * vectors * (sizes.phases * sizes.elements + 3 * math.prod(sizes.kernel))
        work += SHARE_LINE * weight_lines * (tile_parts - 1)
        for chunks in sorted({-(-mine // tiles) for tiles in _CHUNKS}):
            tiles = -(-mine // chunks)
            line = sizes.elements * tiles * sizes.lanes * sizes.width / 64
            v_lines, d_lines = line * maps, line * panels * kernels.VECTORS
            spilled = 64 * (v_lines + d_lines) > L2_BYTES / 2
            per_pass = PASS_CYCLES + max(0, tiles - _NEAR_TILES)
            for group_blocks, group_panels in _groups(blocks, panels, chunks):
                groups_c, groups_k = -(-blocks // group_blocks), -(-panels // group_panels)
                u_bytes = (
                    sizes.elements
                    * sizes.phases
                    * group_blocks
                    * sizes.lanes
                    * group_panels
                    * sizes.panel
                    * sizes.width
                )
                more = chunks * passes * per_pass
                if spilled:
                    more += chunks * (V_LINE * v_lines * groups_k + D_LINE * d_lines * groups_c)
                if u_bytes > L2_BYTES / 2:
                    more += U_LINE * u_bytes / 64 * groups_c * groups_k
                yield Cut(
                    tiles,
                    tile_parts,
                    channel_parts,
                    filter_parts,
                    group_blocks * sizes.lanes,
                    group_panels,
                    tasks * (work + more),
                )


def _parts(sizes: _Sizes, groups: int, threads: int) -> Iterator[tuple[int, int, int]]:
    """Shares of tiles, channels and filters, no more than there are threads."""
    if groups >= threads:
        yield 1, 1, 1
        return
    divisors = [n for n in range(1, threads + 1) if threads % n == 0]
    for t, c, k in itertools.product(divisors, repeat=3):
        if t * c * k <= threads and t <= sizes.all_tiles and c <= sizes.blocks and k <= sizes.panels:
            yield t, c, k


def _groups(blocks: int, panels: int, chunks: int) -> Iterator[tuple[int, int]]:
    """Vectors of channels and panels of a group of U; where all groups are kept from chunk to chunk, there is one."""
    if chunks > 1:
        yield blocks, panels
        return
    yield from itertools.product(
        {min(blocks, n) for n in (2, 4, 8, blocks)}, {min(panels, n) for n in (1, 2, 4, panels)}
    )


def cost(tile: int, problem: ConvProblem) -> Cost:
    """The estimate of one core, as the other rows give it; nothing where nothing is summed."""
    if problem.macs == 0:
        return Cost(0.0, 0)
    sizes, cut = _Sizes.of(tile, problem), best_cut(tile, problem, 1)
    seconds = CALL_SECONDS + (cut.cycles + phases.cycles(problem)) / CLOCK + problem.bytes * 1e-10
    return Cost(seconds, _Room.of(sizes, cut).size * sizes.width)
