"""One call of Winograd's kernels: how the work is cut into blocks, and everything but the addresses packed once per problem and layout.

What the kernels do stands in convolve/kernels/winograd.py. The input gradient is the same convolution over a weight that is read
turned around, with its channels swapped. A stride goes by phases: `_axis` says over which positions, or ops/phases.py makes it one of
stride 1. The cut comes from a small model of the caches, fitted on Zen 4: the smallest blocks of tiles that fill the register tile,
since the hardware brings the weights of each block in time, unless these come from memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from convolve.kernels import dense_phases
from convolve.kernels import winograd as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.ops import engine, phases, positions
from convolve.ops.algorithm import Cost
from convolve.problem import DTYPE_BYTES, ConvProblem

L1_BYTES, L2_BYTES = 1 << 15, 1 << 20
# Cycles of one vector (AVX-512: a 64-byte line) by a transform, transposed besides, and of a line from the caches that are shared:
# the hardware brings weights in order and early, so they cost little; V and M that leave the second-level cache cost more. A line of M,
# for each time that M is larger than the first-level cache, and at most.
FORWARD_CYCLES, INVERSE_CYCLES, TRANSPOSED_CYCLES = 6.0, 5.0, 4.5
WEIGHT_LINE, FAR_WEIGHT_LINE, SPILLED_LINE = 0.3, 3.0, 8.0
M_LINE, MOST_M_LINE = 1.0, 4.0
FRESH_LINE = 100.0  # of weights that another core has just transformed
NEAR_WEIGHT_BYTES = 12 << 20
WEIGHT_CYCLES, WRITTEN_LINE = 250.0, 12.0
# In the units of the other estimates, whose core is faster than the one measured here: of a call, and where weights are prepared.
CALL_SECONDS, PREPARED_CALL_SECONDS, CLOCK = 4.4e-5, 2.4e-5, 6e9
PASS_CYCLES, CALL_CYCLES, BLOCK_CYCLES = 30.0, 25.0, 300.0
_MOST_TILES, _MOST_PASSES = 112, 8
_MOST_PLANS = 1024
_POINTERS = struct.Struct(f"{kernels.ARGUMENTS.index('forward')}q")
_WEIGHT_POINTERS = struct.Struct("3q")


def why_not(problem: ConvProblem) -> str | None:
    """Why the kernels cannot serve a problem that Winograd's algorithm can, or None."""
    if problem.axes != 2:
        return "its kernels are written for two axes"
    if problem.device != "cpu":
        return f"its kernels run on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernels are written for float32 and float64, not {problem.dtype}"
    return why_no_kernels()


class Blocks(NamedTuple):
    """How the work is cut, and what it is predicted to cost."""

    rows: int
    """Tiles of the products' register tile."""
    tiles: int
    """Of a block."""
    parts: int
    """Shares of the filters."""
    cycles: float
    """Of the busiest thread."""


class _Axis(NamedTuple):
    """One axis of the convolution of stride 1 that the tiles are cut from."""

    positions: int
    """Results of a phase, those included that only another phase has."""
    before: int
    """Zeros before the first input; with a negative number, inputs that are not read."""
    size: int
    """Inputs up to the last one that a result needs."""
    skip: int
    """How many phases have no result at the first position."""


def _axis(problem: ConvProblem, axis: int) -> _Axis:
    n, m, window = problem.size[axis], problem.output_size[axis], problem.window
    k, s, (before, _) = window.kernel[axis], window.stride[axis], window.padding[axis]
    if problem.role == "output":
        return _Axis(m, before, phases.inputs_met(problem, axis), 0)
    # Result i, or s q + r beyond the padding, sums inputs q, q - 1, … with the taps r, r + s, …
    first, last = before // s, (n - 1 + before) // s
    return _Axis(last - first + 1, -(-k // s) - 1 - first, min(m, last + 1), before - s * first)


class _Sizes(NamedTuple):
    """What is counted in tiles, vectors and panels."""

    m: int
    taps: int
    down: int
    """Phases of the input along an axis."""
    up: int
    """Phases of the result along an axis."""
    lanes: int
    width: int
    """Bytes of an element."""
    channels: int
    filters: int
    axes: tuple[_Axis, _Axis]
    odd: tuple[int, int]
    """1: the second phase of the inputs lacks a tap."""

    @classmethod
    def of(cls, tile: int, problem: ConvProblem) -> _Sizes:
        problem = phases.inner(problem)
        stride, taps = problem.window.stride[0], phases.taps_of(problem)[0]
        turned = problem.role == "input_gradient"
        channels, filters = problem.channels // problem.groups, problem.filters // problem.groups
        return cls(
            tile - taps + 1,
            taps,
            1 if turned else stride,
            stride if turned else 1,
            machine().lanes(problem.dtype),
            DTYPE_BYTES[problem.dtype],
            filters if turned else channels,
            channels if turned else filters,
            (_axis(problem, 0), _axis(problem, 1)),
            (0, 0) if turned or stride == 1 else (problem.window.kernel[0] % 2, problem.window.kernel[1] % 2),
        )

    @property
    def tile(self) -> int:
        return self.m + self.taps - 1

    @property
    def elements(self) -> int:
        return self.tile**2

    @property
    def panel(self) -> int:
        """Filters of a panel."""
        return kernels.VECTORS * self.lanes

    @property
    def tiles(self) -> tuple[int, int]:
        """Along each axis of a map."""
        height, width = (-(-axis.positions // self.m) for axis in self.axes)
        return height, width

    @property
    def vectors(self) -> int:
        """Of channels in one sum, all phases together."""
        return self.down**2 * -(-self.channels // self.lanes)

    @property
    def depth(self) -> int:
        """Products in one sum; where there are phases, the channels of each fill whole vectors."""
        return self.channels if self.down == 1 else self.vectors * self.lanes

    @property
    def products(self) -> float:
        """Products in one sum that are computed, on average over the elements of a tile."""
        return self.depth * math.prod(1 - odd / 2 / self.tile for odd in self.odd)

    @property
    def panels(self) -> int:
        return -(-(self.up**2) * -(-self.filters // self.lanes) // kernels.VECTORS)

    @property
    def panel_size(self) -> int:
        """Transformed elements of one panel."""
        return self.elements * (self.depth * kernels.VECTORS + 1) * self.lanes

    @property
    def weights(self) -> int:
        """Transformed elements of one group."""
        return self.panels * self.panel_size


@lru_cache(maxsize=1024)
def blocks(tile: int, problem: ConvProblem, threads: int, prepared: bool = True) -> Blocks:
    """The cheapest cut, by a count of vector instructions and of bytes between the caches."""
    return min(_cuts(tile, problem, threads, prepared), key=lambda cut: cut.cycles)


def _cuts(tile: int, problem: ConvProblem, threads: int, prepared: bool) -> Iterator[Blocks]:
    sizes = _Sizes.of(tile, problem)
    tiles, vectors = problem.batch * math.prod(sizes.tiles), sizes.vectors
    last = problem.layout == "channels_last"
    transposed = 0.0 if last else TRANSPOSED_CYCLES
    forward = sizes.elements * vectors * (FORWARD_CYCLES + (0.0 if phases.dense(problem) else transposed))
    inverse = sizes.elements * kernels.VECTORS * (INVERSE_CYCLES + transposed)
    weight_bytes = sizes.weights * sizes.width
    near = weight_bytes * problem.groups < NEAR_WEIGHT_BYTES
    for rows in kernels.rows():
        for passes in range(1, min(_MOST_PASSES, _MOST_TILES // rows) + 1):
            block = rows * passes
            count = -(-tiles // block)
            m_bytes = sizes.elements * block * sizes.panel * sizes.width
            v_bytes = sizes.elements * block * vectors * sizes.lanes * sizes.width
            for parts in {1, min(threads, max(1, sizes.panels))}:
                tasks = problem.groups * parts * count
                panels = -(-sizes.panels // parts)
                product = passes * (sizes.products * max(2.0 * rows, rows + 4.0) + 4.0 * rows + PASS_CYCLES)
                work = sizes.elements * panels * (product + CALL_CYCLES)
                work += block * (forward + panels * inverse) + BLOCK_CYCLES
                work += weight_bytes / parts / 64 * (WEIGHT_LINE if near else FAR_WEIGHT_LINE)
                work += m_bytes * panels / 64 * min(MOST_M_LINE, M_LINE * max(0.0, m_bytes / L1_BYTES - 1))
                share = (v_bytes + m_bytes) / L2_BYTES
                if share > 0.25:
                    work += v_bytes * panels / 64 * min(SPILLED_LINE, 2 * share)
                # With a share of the filters each, threads read the weights that they have transformed themselves.
                fresh = 0.0 if prepared or parts == threads else weight_bytes * problem.groups * (1 - 1 / threads)
                yield Blocks(rows, block, parts, work * -(-tasks // threads) + fresh / 64 * FRESH_LINE)
            if count == 1:
                break


def cost(tile: int, problem: ConvProblem, prepared: bool = False) -> Cost:
    """The estimate of one core, as the other rows give it; `prepared`: with transformed weights."""
    sizes, cut = _Sizes.of(tile, problem), blocks(tile, problem, 1)
    weights = problem.groups * sizes.weights
    vectors = weights / sizes.elements / sizes.lanes
    cycles = cut.cycles + (0 if prepared else vectors * WEIGHT_CYCLES + weights * sizes.width / 64 * WRITTEN_LINE)
    kept = 0 if prepared else weights * sizes.width
    cycles += phases.cycles(problem)
    call = PREPARED_CALL_SECONDS if prepared else CALL_SECONDS
    return Cost(call + cycles / CLOCK + problem.bytes * 1e-10, kept + _thread_size(sizes, cut) * sizes.width)


@dataclass(frozen=True)
class _Plan:
    problem: ConvProblem
    arguments: bytes
    """The driver's, behind the addresses of tensors."""
    address: int
    scratch_bytes: int
    """Of all threads."""
    result_strides: tuple[int, ...]
    threads: int
    flags: int
    maps: phases.Maps | None
    """Of dense phases, to be made first: where no thread has whole images to itself."""


_PLANS: dict[tuple[object, ...], _Plan] = {}


def _plan(tile: int, problem: ConvProblem, a: Tensor, prepared: bool) -> _Plan:
    threads = engine.thread_count()
    key = (tile, id(problem), a.stride(), threads, prepared)
    found = _PLANS.get(key)
    if found is None or found.problem is not problem:
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        planned = _planned_dense if phases.dense(problem) else _planned
        found = _PLANS[key] = planned(tile, problem, a.stride(), threads, prepared)
    return found


def _planned_dense(tile: int, problem: ConvProblem, x: tuple[int, ...], threads: int, prepared: bool) -> _Plan:
    """Of dense phases: a thread that has whole images to itself keeps the phases of one in its caches."""
    if problem.batch % threads > 0 and problem.batch < 4 * threads:
        maps = phases.maps(problem, x)
        plan = _planned(tile, problem, maps.strides, threads, prepared)
        return replace(plan, scratch_bytes=plan.scratch_bytes + maps.bytes, maps=maps)
    image = replace(problem, batch=1)
    maps = phases.maps(image, x)
    plan = _planned(tile, image, maps.strides, 1, prepared)
    size = maps.bytes + 8 * dense_phases.TOLD + plan.scratch_bytes
    width = DTYPE_BYTES[problem.dtype]
    values = {
        "maps": maps.address, "driver": plan.address, "batch": problem.batch, "x_n": x[0], "y_n": plan.result_strides[0],
        "maps_size": maps.bytes // width, "thread_size": size // width,
    }  # fmt: skip
    arguments = positions.as_bytes(dense_phases.IMAGES[dense_phases.IMAGES.index("maps") :], values)
    return replace(
        plan,
        problem=problem,
        arguments=arguments + maps.arguments + plan.arguments,
        address=loaded(dense_phases.images(problem.dtype)).address,
        scratch_bytes=size * threads,
        threads=threads,
        flags=problem.batch,
    )


def _planned(tile: int, problem: ConvProblem, x: tuple[int, ...], threads: int, prepared: bool) -> _Plan:
    sizes, cut = _Sizes.of(tile, problem), blocks(tile, problem, threads, prepared)
    height, width = sizes.axes
    y, (out_h, out_w) = positions.result_strides(problem), problem.result_shape[2:]
    v_element, m_element = _strides(sizes, cut)
    values = {
        "forward": loaded(kernels.forward(tile, problem.dtype)).address,
        "product": loaded(kernels.product(cut.rows, problem.dtype)).address,
        "inverse": loaded(kernels.inverse(sizes.m, sizes.taps, problem.dtype)).address,
        "tile": tile, "outputs": sizes.m, "run_length": kernels.run_length(sizes.m, sizes.taps, sizes.lanes),
        "thread_size": _thread_size(sizes, cut),
        "batch": problem.batch, "groups": problem.groups, "channels": sizes.channels, "filters": sizes.filters,
        "depth": sizes.depth, "panels": sizes.panels,
        "x_n": x[0], "x_c": x[1], "x_h": x[2], "x_w": x[3],
        "size_h": height.size, "size_w": width.size, "before_h": height.before, "before_w": width.before,
        "y_n": y[0], "y_k": y[1], "y_h": y[2], "y_w": y[3], "out_h": out_h, "out_w": out_w,
        "down": sizes.down, "up": sizes.up, "skip_h": height.skip, "skip_w": width.skip,
        "odd_h": sizes.odd[0], "odd_w": sizes.odd[1],
        "tile_rows": sizes.tiles[0], "tile_columns": sizes.tiles[1],
        "tiles": cut.tiles, "rows": cut.rows, "parts": cut.parts,
        "v_element": v_element, "m_element": m_element,
    }  # fmt: skip
    return _Plan(
        problem,
        positions.as_bytes(kernels.ARGUMENTS[kernels.ARGUMENTS.index("forward") :], values),
        loaded(kernels.driver(problem.dtype)).address,
        values["thread_size"] * sizes.width * threads,
        y,
        threads,
        flags=threads,
        maps=None,
    )


def _strides(sizes: _Sizes, cut: Blocks) -> tuple[int, int]:
    """From one element of a tile to the next, in V and in M."""
    return (sizes.vectors * cut.tiles + 1) * sizes.lanes, (cut.tiles * kernels.VECTORS + 1) * sizes.lanes


def _thread_size(sizes: _Sizes, cut: Blocks) -> int:
    """Scratch of one thread."""
    return positions.aligned(
        sizes.elements * sum(_strides(sizes, cut)) + kernels.scratch_elements(sizes.tile, sizes.lanes)
    )


@dataclass(frozen=True)
class _Transform:
    """What makes the packed weights of a problem."""

    problem: ConvProblem
    address: int
    arguments: bytes
    packed: int
    """Elements that it writes."""
    packed_bytes: int
    """The same, rounded up so that what lies behind begins at a full vector."""
    scratch_bytes: int
    """Of all threads."""
    threads: int

    def run(self, w: int, packed: int, scratch: int) -> None:
        engine.run(self.address, _WEIGHT_POINTERS.pack(w, packed, scratch) + self.arguments, self.threads)


_TRANSFORMS: dict[tuple[object, ...], _Transform] = {}


def _transform(tile: int, problem: ConvProblem, w: Tensor) -> _Transform:
    """The remembered transform of weights that lie as w does."""
    threads = engine.thread_count()
    key = (tile, id(problem), w.stride(), threads)
    found = _TRANSFORMS.get(key)
    if found is None or found.problem is not problem:
        if len(_TRANSFORMS) >= _MOST_PLANS:
            _TRANSFORMS.clear()
        found = _TRANSFORMS[key] = _transform_of(tile, problem, w.stride(), threads)
    return found


def prepare(tile: int, problem: ConvProblem, w: Tensor) -> Tensor:
    """The transformed weights, packed: (groups, panels, elements, channels, filters of a panel and a line more), flat."""
    transform = _transform(tile, problem, w)
    packed = torch.empty(transform.packed, dtype=w.dtype)
    transform.run(w.data_ptr(), packed.data_ptr(), engine.scratch(transform.scratch_bytes))
    return packed


def _transform_of(tile: int, problem: ConvProblem, strides: tuple[int, ...], threads: int) -> _Transform:
    sizes = _Sizes.of(tile, problem)
    turned, stride = problem.role == "input_gradient", problem.window.stride[0]
    # Phases of the results are panels, and vectors in a panel; those of the inputs are parts of the channels, or lie among them.
    channels, steps = sizes.channels, (0, 0, sizes.panel, 0)
    if sizes.up > 1:
        steps = (sizes.panel_size, sizes.lanes, sizes.panel, 0)
    elif sizes.down > 1:
        steps = (0, 0, sizes.panel, sizes.depth // sizes.down**2 * sizes.panel)
    elif stride > 1:
        channels = problem.channels // problem.groups
        steps = (sizes.channels // stride * sizes.panel, sizes.panel, stride * sizes.panel, 0)
    values = {
        "thread_size": kernels.weights_scratch(tile, math.prod(problem.window.kernel), sizes.lanes),
        "groups": problem.groups, "channels": channels, "filters": sizes.filters,
        "w_g": strides[0] * (problem.filters // problem.groups),
        "w_k": strides[1] if turned else strides[0], "w_c": strides[0] if turned else strides[1],
        "w_r": strides[2], "w_s": strides[3],
        "kernel_h": problem.window.kernel[0], "kernel_w": problem.window.kernel[1], "flipped": int(turned),
        "depth": sizes.depth, "panels": sizes.panels, "vectors": sizes.panels * kernels.VECTORS // sizes.up**2,
        "phases": stride, "vector_step": sizes.up**2,
        "phase_h_step": steps[0], "phase_w_step": steps[1], "channel_step": steps[2], "part_step": steps[3],
    }  # fmt: skip
    packed = problem.groups * sizes.weights
    return _Transform(
        problem,
        loaded(kernels.weights(sizes.m, sizes.taps, problem.dtype)).address,
        positions.as_bytes(kernels.WEIGHTS_ARGUMENTS[3:], values),
        packed,
        positions.aligned(packed) * sizes.width,
        values["thread_size"] * sizes.width * threads,
        threads,
    )


def run(tile: int, problem: ConvProblem, a: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, bool]:
    """The output or input gradient, and whether all of it is finite."""
    plan, transform = _plan(tile, problem, a, prepared=False), _transform(tile, problem, w)
    scratch = engine.scratch(transform.packed_bytes + max(plan.scratch_bytes, transform.scratch_bytes))
    transform.run(w.data_ptr(), scratch, scratch + transform.packed_bytes)
    return _run(plan, a, scratch, bias, scratch + transform.packed_bytes)


def run_prepared(
    tile: int, problem: ConvProblem, a: Tensor, packed: Tensor, bias: Tensor | None
) -> tuple[Tensor, bool]:
    """The same with what `prepare` returned."""
    plan = _plan(tile, problem, a, prepared=True)
    return _run(plan, a, packed.data_ptr(), bias, engine.scratch(plan.scratch_bytes))


def _run(plan: _Plan, a: Tensor, packed: int, bias: Tensor | None, scratch: int) -> tuple[Tensor, bool]:
    result = torch.empty_strided(plan.problem.result_shape, plan.result_strides, dtype=a.dtype)
    flags = torch.zeros(plan.flags, dtype=a.dtype)
    if bias is not None:
        bias = bias.contiguous()
    x = a.data_ptr()
    if plan.maps is not None:
        plan.maps.make(a, scratch)
        x, scratch = scratch, scratch + plan.maps.bytes
    pointers = _POINTERS.pack(
        x, packed, 0 if bias is None else bias.data_ptr(), result.data_ptr(), flags.data_ptr(), scratch
    )
    engine.run(plan.address, pointers + plan.arguments, plan.threads)
    return result, all(map(math.isfinite, flags.tolist()))
