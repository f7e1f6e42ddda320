"""Winograd's minimal filtering F(m, r): m outputs of a filter of r taps with m + r - 1 products instead of r m.

    y = A^T [ (G g) * (B^T d) ]          one axis; on two axes the same along both

d is a tile of m + r - 1 inputs, g the kernel, * the product of the transformed elements, summed over channels: one matrix product
per element. The three matrices: convolve/kernels/minimal_filtering.py. Sources: Winograd 1980; Lavin & Gray 2015 (arXiv 1509.09308).
A row is a size of tile: it serves 3 taps as F(m, 3), 2 taps as F(m + 1, 2), and tiles of 6 also 4 and 5 taps (`TAPS`).

Tiles of 4 and 6 on two axes in float32 and float64 run on a CPU by our kernels (ops/winograd_call.py); everything else by torch's
operators, here. Both know the same matrices and keep the same bound. The kernels also take a stride, apart into phases: a 4x4 kernel at
stride 2, transposed or not, is four 2x2 kernels at stride 1, of which F(5, 2) multiplies 2.8 times less (ops/phases.py).

The weight gradient of a kernel of r taps is F(r, m): a tile of gradients is the kernel. Only our kernels know it
(ops/winograd_gradient.py).
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from convolve.kernels import dense_phases
from convolve.kernels.minimal_filtering import TAPS, Matrix, matrices
from convolve.kernels.winograd import STRIDES, TILES
from convolve.ops import phases, roles, winograd_call, winograd_gradient
from convolve.ops.algorithm import Algorithm, Cost, NotFinite, Preparation
from convolve.ops.bounds import EPSILON, direct_bound, summing_dtype
from convolve.ops.windows import windows, with_bias, zero_pad
from convolve.problem import ConvProblem

# Largest error over the rms of the result, by the tile; float32, two axes, up to 256 channels; beyond, it grows by their square root. In
# a weight gradient it is tiles that are summed, first in chunks.
BOUND = {4: 5e-6, 6: 2.5e-5, 8: 2e-4}


def why_not(tile: int, problem: ConvProblem) -> str | None:
    window = problem.window
    if problem.dtype not in EPSILON:
        return f"its transforms are not exact, and {problem.dtype} must be"
    if problem.axes > 2:
        return "it is written for one and two axes"
    if {*window.dilation, *window.input_dilation} != {1}:
        return "it needs dilation 1"
    stride, *others = window.stride
    most = (STRIDES if problem.role == "input_gradient" else dense_phases.STRIDES)[-1]
    if stride > most or any(other != stride for other in others):
        return f"it needs a stride of 1 to {most}, the same along each axis"
    taps, *others = phases.taps_of(problem)
    kernel, (least, *_, most) = "x".join(map(str, window.kernel)), TAPS[tile]
    if not least <= taps <= most:
        return f"at stride {stride} its kernels have {stride * (least - 1) + 1} to {stride * most} taps along each axis, not {kernel}"
    if any(other != taps for other in others):
        return f"it needs as many taps along each axis, {'' if stride == 1 else 'in each phase, '}not {kernel}"
    if problem.role == "weight_gradient":
        return winograd_call.why_not(problem)
    return None if stride == 1 else _why_no_phases(tile, problem)


def _why_no_phases(tile: int, problem: ConvProblem) -> str | None:
    """Why a stride above 1 is not served, or None."""
    if tile not in TILES:
        return f"only tiles of {' and '.join(map(str, TILES))} go by phases"
    window = problem.window
    if problem.role == "input_gradient" and any(
        before >= k for (before, _), k in zip(window.padding, window.kernel, strict=True)
    ):
        return "its phases must not crop whole inputs: padding below the kernel's size"
    return winograd_call.why_not(problem)


def run(tile: int, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The role's result."""
    if problem.role == "weight_gradient":
        return with_bias(_finite(*winograd_gradient.run(tile, problem, a, b)), bias)
    if has_kernels(tile, problem):
        return _finite(*winograd_call.run(tile, problem, a, b, bias))
    x, w = roles.operands(problem, a, b)
    convolution = problem.as_convolution()
    return run_transformed(tile, convolution, x, transform_weight(tile, convolution, w), bias)


def prepare(tile: int, problem: ConvProblem, w: Tensor) -> Tensor:
    return winograd_call.prepare(tile, problem, w) if has_kernels(tile, problem) else transform_weight(tile, problem, w)


def run_prepared(tile: int, problem: ConvProblem, x: Tensor, prepared: Tensor, bias: Tensor | None) -> Tensor:
    if has_kernels(tile, problem):
        return _finite(*winograd_call.run_prepared(tile, problem, x, prepared, bias))
    return run_transformed(tile, problem, x, prepared, bias)


def has_kernels(tile: int, problem: ConvProblem) -> bool:
    """Whether our kernels serve, and not torch's operators."""
    return tile in TILES and winograd_call.why_not(problem) is None


def _finite(result: Tensor, finite: bool) -> Tensor:
    if not finite:
        raise NotFinite
    return result


def transform_weight(tile: int, problem: ConvProblem, w: Tensor) -> Tensor:
    """G g G^T for every kernel: (elements of a tile, groups, k / g, c / g)."""
    wide, axes, g = summing_dtype(w.dtype), problem.axes, problem.groups
    taps = problem.window.kernel[0]
    g_matrix = _tensor(matrices(tile - taps + 1, taps)[1], wide, w.device)
    kernel = _along_axes(g_matrix, w.to(wide).permute(*range(2, 2 + axes), 0, 1), axes)
    return kernel.reshape(tile**axes, g, problem.filters // g, -1)


def run_transformed(tile: int, problem: ConvProblem, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    wide, axes, g = summing_dtype(x.dtype), problem.axes, problem.groups
    taps = problem.window.kernel[0]
    m = tile - taps + 1
    a_t, _, b_t = (_tensor(matrix, wide, x.device) for matrix in matrices(m, taps))
    counts = tuple(-(-size // m) for size in problem.output_size)
    x = zero_pad(x, problem.window.padding).to(wide)
    x = zero_pad(x, [(0, m * (count - 1) + tile - size) for count, size in zip(counts, x.shape[2:], strict=True)])
    tiles = windows(x, (tile,) * axes, (m,) * axes, (1,) * axes)
    # Tile elements first: (elements, g, c / g, n positions), so that each element is one matrix product over channels.
    tiles = tiles.permute(*range(2 + axes, 2 + 2 * axes), 1, 0, *range(2, 2 + axes))
    data = _along_axes(b_t, tiles, axes).reshape(tile**axes, g, problem.channels // g, -1)
    product = torch.matmul(kernel, data).reshape(*(tile,) * axes, problem.filters, problem.batch, *counts)
    y = _along_axes(a_t, product, axes)
    order = [axis for pair in zip(range(axes + 2, 2 * axes + 2), range(axes), strict=True) for axis in pair]
    whole = y.permute(axes + 1, axes, *order).reshape(*problem.output_shape[:2], *(count * m for count in counts))
    inside: Any = (..., *(slice(size) for size in problem.output_size))
    return with_bias(whole[inside], None if bias is None else bias.to(wide)).to(_dtype(problem))


def _along_axes(matrix: Tensor, tiles: Tensor, axes: int) -> Tensor:
    """The matrix applied along each of the first `axes` axes."""
    for axis in range(axes):
        tiles = torch.tensordot(matrix, tiles, dims=([1], [axis])).movedim(0, axis)
    return tiles


@lru_cache(maxsize=32)
def _tensor(matrix: Matrix, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([[float(entry) for entry in row] for row in matrix], dtype=dtype, device=device)


def _dtype(problem: ConvProblem) -> torch.dtype:
    dtype = getattr(torch, problem.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def bound(tile: int, problem: ConvProblem) -> float:
    base = BOUND[tile] * max(1.0, math.sqrt(_summed(tile, problem) / 256))
    once = EPSILON[problem.dtype]
    return base * min(1.0, once / EPSILON["float32"]) + (direct_bound(problem) if once > EPSILON["float32"] else 0.0)


def _summed(tile: int, problem: ConvProblem) -> float:
    """Products summed one by one in the error of a result."""
    if problem.role == "weight_gradient":
        tiles = winograd_gradient.tiles(tile, problem)
        return min(tiles, winograd_gradient.MOST_TILES) + tiles / winograd_gradient.MOST_TILES
    channels = (problem.filters if problem.role == "input_gradient" else problem.channels) / problem.groups
    return channels * math.prod(problem.window.stride) if problem.role == "output" else channels


def _cost(tile: int, problem: ConvProblem, transformed: bool = False) -> Cost:
    if problem.role == "weight_gradient":
        return winograd_gradient.cost(tile, problem)
    if has_kernels(tile, problem):
        return winograd_call.cost(tile, problem, transformed)
    m, products = tile - problem.window.kernel[0] + 1, tile**problem.axes
    counts = problem.batch * math.prod(-(-size // m) for size in problem.output_size)
    c, k, g = problem.channels, problem.filters, problem.groups
    elements = products * counts * (c + k) + (0 if transformed else products * k * c // g)
    macs = products * counts * k * c // g
    slower = 2.5 if problem.dtype == "float64" else 1.0
    return Cost(1e-4 + slower * (elements * 3e-9 + macs / 5e10), 4 * 3 * elements)


def _row(tile: int, name: str, why_not_automatic: str | None) -> Algorithm:
    return Algorithm(
        name=name,
        summary=" or ".join(f"F({tile - taps + 1},{taps})" for taps in TAPS[tile])
        + f": {tile} products along an axis"
        + ("; strides by phases; weight gradients" if tile in TILES else ""),
        run=partial(run, tile),
        why_not=partial(why_not, tile),
        cost=partial(_cost, tile),
        bound=partial(bound, tile),
        roles=("output", "input_gradient", "weight_gradient") if tile in TILES else ("output", "input_gradient"),
        local=False,
        looks=partial(has_kernels, tile),
        exact=False,
        not_automatic=lambda _: why_not_automatic,
        preparation=Preparation(
            partial(prepare, tile), partial(run_prepared, tile), partial(_cost, tile, transformed=True)
        ),
    )


ALGORITHM = _row(6, "winograd", None)
SMALL = _row(4, "winograd_f2", None)
LARGE = _row(8, "winograd_f6", "its error is ten times that of tiles of 6")
